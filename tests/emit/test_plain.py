"""The plain form that other schedulers get: what it computes, and which of its arguments they may prepare."""

import convgen
from convgen.errors import WorkerError

IDS = {  # → constants
    "conv2d:n1,c8,o16,h9,w7,k3x3;stride=2,padding=0_1x1_0:f32.f32.f32:nhwc:act=relu6,bias": ["weight", "bias"],
    "conv_transpose2d:n1,c8,o4,h5,w4,k4x4;stride=2,padding=1,output_padding=1:f32.f32.f32:nchw": ["weight"],
    "depthwise_conv2d:n2,c8,m2,h7,w6,k5x5;padding=2,padding_mode=reflect:f32.f32.f32:nchw": ["weight"],
    "dilated_reparam_conv2d:n1,c8,h9,w8,k7x7:f32.f32.f32:nhwc:bias": ["bias", "merged_kernel", "merged_bias"],
    "inception_depthwise_conv2d:n1,c16,gc4,h6,w5:f32.f32.f32:nhwc": ["weight_hw", "weight_w", "weight_h"],
    "involution2d:n1,c8,g2,h7,w6,k3x3;padding=1:f32.f32.f32:nhwc": [],
    "condconv2d:n3,c8,o8,e4,h6,w5,k3x3;padding=1,groups=8:f32.f32.f32:nchw": ["weight"],
    "deform_conv2d:n1,c8,o4,h7,w6,k3x3;padding=1:f32.f32.f32:nchw:bias,mask,residual": ["weight", "bias"],
    "dynamic_conv1d:n2,c8,heads2,l9,k3:f32.f32.f32:nlc": [],
}


def test_plain_forms(kernels):
    answers = kernels.ask([{"cmd": "plain", "description": convgen.workload(id).description} for id in IDS])
    for (id, constants), answer in zip(IDS.items(), answers):
        assert not isinstance(answer, WorkerError), f"{id}: {answer}"
        assert answer["error"] < 1e-6 and answer["constants"] == constants, f"{id}: {answer}"
