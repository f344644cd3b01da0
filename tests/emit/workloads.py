"""Shapes where kernels break: channels beside the lanes, windows larger than the image, one-sided padding, every flag. Ids without dtypes: they vary."""

from convgen.lang import parse
from convgen.ops import table

HARD = {
    "conv1d": ["n1,c17,o33,l9,k3;stride=2,padding=0_2,padding_mode=reflect:ncl:act=relu,bias,residual", "n3,c8,o16,l2,k5;padding=4,dilation=2:nlc:act=gelu",
               "n2,c6,o9,l11,k4;padding=3_1,groups=3,padding_mode=circular:nlc:bias"],
    "conv2d": ["n1,c3,o17,h5,w9,k5x3;stride=2x1,padding=2_1x0_3:nchw:act=relu6,bias,residual", "n2,c33,o16,h3,w4,k3x5;padding=1x4,dilation=1x2,padding_mode=replicate:nhwc:bias,bn,gate",
               "n1,c12,o20,h7,w6,k3x3;padding=1,groups=4:nchw:act=silu,bn", "n1,c16,o34,h6,w5,k1x1:nhwc:act=hardswish,residual", "n1,c1,o1,h9,w8,k2x2;stride=3:nchw",
               "n2,c8,o6,h8,w7,k3x3;padding=3x2,groups=2,padding_mode=circular:nhwc", "n1,c5,o7,h6,w6,k3x3;stride=1x2,padding=2_1x1_3,dilation=2,padding_mode=reflect:nchw:residual"],
    "partial_padding_conv2d": ["n2,c3,o17,h5,w9,k5x3;stride=2x1,padding=2_1x0_3:nchw:act=relu6,bias,residual", "n1,c8,o16,h4,w3,k3x3;padding=4,dilation=2,groups=2:nhwc:bn"],
    "partial_conv2d": ["n2,c3,o17,h5,w9,k5x3;stride=2x1,padding=2_1x0_3:nchw:bias", "n1,c8,o16,h4,w3,k3x3;padding=2,dilation=2,groups=2:nhwc"],
    "conv2d_pixel_shuffle": ["n2,c5,o3,h5,w7,k3x3;padding=1,upscale=3:nchw:act=relu,bias_conv,residual", "n1,c16,o8,h4,w5,k1x1:nhwc:bias"],
    "conv3d": ["n1,c3,o17,d4,h5,w6,k3x2x3;stride=1x2x1,padding=1_0x1_1x0_2:ncdhw:act=tanh,bias", "n2,c16,o5,d2,h4,w3,k2x3x2;padding=1,dilation=1x2x1:ndhwc:residual",
               "n1,c6,o4,d3,h5,w4,k1x3x3;padding=1,groups=2,padding_mode=replicate:ncdhw"],
    "conv_transpose1d": ["n2,c7,o17,l5,k4;stride=3,padding=1_2,output_padding=1:ncl:act=relu,bias", "n1,c12,o6,l6,k3;stride=2,groups=3,dilation=2:nlc:residual"],
    "conv_transpose2d": ["n1,c5,o17,h4,w3,k3x4;stride=2x1,padding=1_0x2_1,output_padding=1x0:nchw:act=sigmoid,bias,residual", "n2,c16,o8,h3,w5,k2x2;stride=2:nhwc:act=leaky_relu,bn,gate",
                         "n1,c4,o6,h5,w4,k3x3;stride=2x3,padding=1,groups=2,dilation=2x1:nhwc:bias"],
    "conv_transpose3d": ["n1,c3,o5,d2,h3,w3,k2x3x2;stride=2x1x2,padding=0_1x1_1x0_0:ncdhw:bias", "n2,c4,o16,d2,h2,w3,k2x2x3;stride=1x2x3,groups=2:ndhwc:act=gelu",
                         "n1,c2,o3,d4,h3,w5,k1x3x2;stride=3x1x2,dilation=2x2x3:ndhwc:bias", "n1,c4,o8,d1,h1,w7,k2x1x2;stride=3,padding=0_3x1_1x2_0,output_padding=1x2x1,dilation=3x2x1:ncdhw"],
    "depthwise_conv1d": ["n2,c17,l9,k5;stride=2,padding=0_3,padding_mode=reflect:ncl:act=relu,bias,residual", "n1,c5,m3,l12,k4;padding=6,dilation=2:nlc:act=gelu", "n1,c16,l21,k17;padding=16_0:ncl:bias",
                         "n2,c3,l40,k31;padding=15,padding_mode=circular:nlc:bn,gate"],
    "depthwise_conv2d": ["n1,c17,h9,w7,k3x5;stride=2x1,padding=1_2x0_4:nchw:act=gelu,bias,residual", "n2,c33,h3,w5,k7x7;padding=3:nhwc:act=hardsigmoid,bias,bn,gate", "n1,c5,m3,h6,w9,k3x3;padding=2,dilation=2,padding_mode=reflect:nhwc",
                         "n1,c16,m2,h8,w17,k3x3;padding=1,padding_mode=circular:nchw:act=relu6", "n1,c1,h12,w9,k2x3;stride=3:nchw", "n3,c8,h5,w4,k3x3;padding=3_1x1_3,padding_mode=replicate:nhwc:residual"],
    "inception_depthwise_conv2d": ["n1,c17,gc3,h6,w7:nchw:bias_h,bias_hw,bias_w", "n2,c24,gc8,h5,w4,square5,band3:nhwc:bias_w", "n1,c37,gc2,h9,w3,band7:nhwc"],
    "dilated_reparam_conv2d": ["n1,c17,h6,w7,k5x5:nchw:act=relu,residual", "n2,c8,h4,w3,k9x9:nhwc:bias"],
    "separable_block2d": ["n1,c17,o33,h7,w6,k3x3;stride=1x2,padding=1_0x2_1:nchw:act=relu6,bias", "n2,c16,o5,h5,w4,k3x5;padding=1x4,dilation=1x2:nhwc:bias,residual"],
    "convnext_block2d": ["n2,c17,hidden33,h7,w6,k3x5:nchw", "n1,c8,hidden20,h5,w4,k7x7;eps=0.001:nhwc", "n1,c16,hidden64,h3,w5,k5x5:nhwc"],
    "inverted_residual2d": ["n2,c6,hidden17,o6,h7,w6,k3x5:nchw", "n1,c16,hidden16,o9,h5,w7,k3x3;stride=2,inner=silu:nhwc", "n1,c8,hidden33,o16,h6,w5,k5x3;stride=1x2,inner=hardswish:nhwc"],
    "large_kernel_attention2d": ["n2,c17,h7,w6,small3,k3x5;dilation=2x3:nchw", "n1,c8,h5,w9,k7x7:nhwc"],
    "condconv2d": ["n3,c6,o10,e3,h7,w5,k3x3;stride=1x2,padding=1_0x2_1,groups=2:nchw:act=relu,bias", "n2,c5,o17,e2,h4,w6,k1x1:nhwc:bn,residual", "n2,c16,o16,e4,h5,w5,k3x3;padding=2,groups=16,dilation=2:nhwc"],
    "involution2d": ["n2,c12,g3,h6,w7,k3x5;stride=2x1,padding=1_1x4_0:nchw:act=silu,bias", "n1,c16,g1,h5,w4,k3x3;padding=2,dilation=2:nhwc:residual", "n1,c17,g17,h4,w9,k1x2:nhwc"],
    "ska2d": ["n2,c12,g3,h6,w7,k3x5;stride=2x1,padding=1_1x4_0:nchw:act=silu,bias", "n1,c34,g17,h5,w4,k3x3;padding=2,dilation=2:nhwc:residual", "n1,c64,g16,h4,w5,k3x3;padding=1:nhwc"],
    "tvconv2d": ["n2,c12,h6,w7,k3x5;stride=2x1,padding=1_1x4_0:nchw:act=silu,bias", "n1,c17,h5,w4,k3x3;padding=2,dilation=2:nhwc:residual", "n3,c5,h4,w9,k1x2:nhwc"],
    "dynamic_conv1d": ["n2,c12,heads3,l9,k4;alignment=causal:ncl:act=relu,bias", "n1,c16,heads1,l5,k7:nlc:residual", "n3,c6,heads6,l8,k3;softmax=false:nlc"],
    "deform_conv2d": ["n1,c6,o17,h7,w5,dg3,k3x3;stride=2x1,padding=1_2x0_1:nchw:act=relu,bias,mask", "n2,c8,o6,h5,w6,k3x2;padding=2,groups=2,dilation=2x1:nhwc:residual", "n1,c16,o16,h4,w4,dg2,k1x1:nhwc:bn,mask"],
    "quantized_conv2d": ["n1,c19,o17,h5,w9,k5x3;stride=2x1,padding=2_1x0_3,relu=true:nchw:bias", "n2,c33,o16,h3,w4,k3x5;padding=1x4,dilation=1x2:nhwc", "n1,c12,o20,h7,w6,k3x3;padding=1,groups=4:nchw:bias",
                         "n1,c64,o34,h6,w5,k1x1:nhwc:bias", "n1,c32,o64,h9,w7,k3x3;stride=2,padding=1,groups=2,relu=true:nhwc", "n1,c1,o1,h9,w8,k2x2;stride=3:nchw"],
    "quantized_depthwise_conv2d": ["n1,c17,h9,w7,k3x5;stride=2x1,padding=1_2x0_4,relu=true:nchw:bias", "n2,c33,h3,w5,k7x7;padding=3:nhwc:bias", "n1,c5,m3,h6,w9,k3x3;padding=2,dilation=2:nhwc",
                                   "n1,c16,m2,h8,w17,k3x3;padding=1:nchw"],
}


def workload(name, text, types=None, any_batch=False):
    """The workload of one text above, in float32 or the operator's own usual dtypes."""
    types = types or next(iter(table.get(name).types), "f32.f32.f32")
    dims, layout, *flags = text.split(":")
    if any_batch:
        dims = "n{}+,{}".format(*dims[1:].split(",", 1))
    return parse(":".join([f"{name}:{dims}", types, layout, *flags]))
