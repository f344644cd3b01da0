"""Convolutions of 8-bit integers: u8 activations with one scale and zero point, s8 weights with a scale per output channel.

real = scale (q - zero point), weights without zero point (Krishnamoorthi, arXiv:1806.08342). The sum is exact in int32; going back to u8 is FBGEMM's
float path, bit by bit: round(float32(sum + bias / (s_x s_w)) * (s_x s_w / s_y)) + z_y, halves to even, then clamped (github.com/pytorch/FBGEMM,
QuantUtils.h). oneDNN adds z_y before it rounds, so it may differ by one where the two roundings do.
"""

from __future__ import annotations

from ..lang import integer, ints, operator, pads, uniform, whole
from ..lang.size import value_of
from . import torch_quantized
from .conv import check_groups, output_axes

TYPES = ("u8.i32.u8", "u8.i32.f32", "u8.i32.i32")
_TENSORS = "x weight x_scale x_zero_point weight_scale y_scale y_zero_point bias"
_LONGEST = (2**31 - 1) // (255 * 128)  # terms of a sum that fits int32, whatever the values


def _image(o, padding):
    """(x continued by its zero point, the zero point)."""
    x = o.input("x", "N C H W")
    zero = o.param("x_zero_point", 1, dtype="uint8", values=whole(100, 155))
    return x.padded(padding, "value", zero[0]), zero


def _rescaled(o, total, weights, zero, oc, reduced, relu):
    """What becomes of `total`, the sum of products with x as it is stored. `weights`: the weights of one output channel `oc`."""
    terms = 1
    for axis in reduced:
        terms = terms * axis.size
    o.require(terms, "<=", _LONGEST, "a sum has more terms than int32 can hold")
    shift = o.stage(o.sum(weights, reduced, name="weight_sum") * zero[0], (oc,), name="shift")
    total = total - shift[oc]
    if o.out_dtype == "int32":
        return o.maximum(total, 0) if relu else total
    spread = value_of(terms) ** 0.5  # of random sums: with these scales they fill the range of u8
    xs, ws = o.param("x_scale", 1, values=uniform(0.04, 0.06), dtype="float32"), o.param("weight_scale", oc.size, values=uniform(0.004, 0.006), dtype="float32")
    scale = o.stage(o.single(xs[0] * ws[oc]), (oc,), name="scale")
    real = o.single(o.float(total))
    if o.has("bias"):
        bias = o.param("bias", oc.size, values=uniform(-spread, spread), dtype="float32")
        real = o.single(real + o.stage(o.single(bias[oc] / scale[oc]), (oc,), name="bias_steps")[oc])
    if o.out_dtype == "float32":
        y = o.single(real * scale[oc])
        return o.maximum(y, 0.0) if relu else y
    ys, yz = o.param("y_scale", 1, values=uniform(0.025 * spread, 0.04 * spread), dtype="float32"), o.param("y_zero_point", 1, dtype="uint8", values=whole(100, 155))
    ratio = o.stage(o.single(scale[oc] / ys[0]), (oc,), name="ratio")
    y_zero = o.single(o.float(yz[0]))
    q = o.single(o.round(o.single(real * ratio[oc])) + y_zero)
    return o.int(o.minimum(o.maximum(q, y_zero if relu else 0.0), 255.0))


@operator(dims="N C O H W KH KW", cite="arXiv:1806.08342", types=TYPES, epilogue=False, optional="bias", formulations=torch_quantized.CONVOLUTION,
          positional=f"{_TENSORS} stride padding dilation groups",
          workloads=["n1,c64,o64,h56,w56,k3x3;padding=1,relu=true:u8.i32.u8:nhwc:bias", "n1,c256,o256,h14,w14,k3x3;padding=1,relu=true:u8.i32.u8:nhwc:bias",
                     "n1,c256,o64,h56,w56,k1x1;relu=true:u8.i32.u8:nhwc:bias", "n1,c64,o256,h56,w56,k1x1:u8.i32.u8:nhwc:bias"])
def quantized_conv2d(o, *, stride=ints(2), padding=pads(2), dilation=ints(2), groups=integer(), relu: bool = False):
    """2-D convolution of u8 activations and s8 weights, as torch.ops.quantized.conv2d on integer tensors.

    x [N,C,H,W] uint8 with `x_scale` [1] float32 and `x_zero_point` [1] uint8, which padding continues; weight int8 with `weight_scale` [O] float32; bias
    [O] float32. Output uint8 with `y_scale` and `y_zero_point`; float32 (out_dtype) without them; int32, the bare sums of (x - x_zero_point) weight, without
    any scale or bias.
    """
    check_groups(o, groups)
    n, oc, (p, q) = output_axes(o, 2, [o.window_size(l, k, s, d, a) for l, k, s, d, a in zip((o.H, o.W), (o.KH, o.KW), stride, dilation, padding)], "O")
    x, zero = _image(o, padding)
    per_group = o.C // groups
    w = o.param("weight", "O", per_group, "KH", "KW", dtype="int8")
    c, r, s = o.axis("c", per_group), *o.window("KH KW")
    read = x[n, oc // (o.O // groups) * per_group + c, p * stride[0] + r * dilation[0], q * stride[1] + s * dilation[1]]
    return _rescaled(o, o.sum(w[oc, c, r, s] * read, (c, r, s)), w[oc, c, r, s], zero, oc, (c, r, s), relu)


@operator(dims="N C M=1 H W KH KW", cite="arXiv:1806.08342", types=TYPES, epilogue=False, optional="bias", formulations=torch_quantized.DEPTHWISE,
          positional=f"{_TENSORS} stride padding dilation",
          workloads=["n1,c144,h56,w56,k3x3;padding=1,relu=true:u8.i32.u8:nhwc:bias", "n1,c384,h14,w14,k3x3;padding=1,relu=true:u8.i32.u8:nhwc:bias"])
def quantized_depthwise_conv2d(o, *, stride=ints(2), padding=pads(2), dilation=ints(2), relu: bool = False):
    """Depthwise 2-D convolution of u8 activations and s8 weights [C*M, 1, KH, KW]; tensors as in quantized_conv2d."""
    o.size("O", o.C * o.M)
    n, oc, (p, q) = output_axes(o, 2, [o.window_size(l, k, s, d, a) for l, k, s, d, a in zip((o.H, o.W), (o.KH, o.KW), stride, dilation, padding)], "O")
    x, zero = _image(o, padding)
    w = o.param("weight", "O", 1, "KH", "KW", dtype="int8")
    r, s = o.window("KH KW")
    read = x[n, oc // o.M, p * stride[0] + r * dilation[0], q * stride[1] + s * dilation[1]]
    return _rescaled(o, o.sum(w[oc, 0, r, s] * read, (r, s)), w[oc, 0, r, s], zero, oc, (r, s), relu)
