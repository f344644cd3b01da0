"""Groups follow from what an operator computes, also for operators that nobody listed."""

import pytest

import convgen
from convgen.bench import suites
from convgen.bench.groups import GROUPS, OTHER, group
from convgen.cli.arguments import read
from convgen.lang import operator, pads
from convgen.ops import table

KNOWN = {
    "conv2d:n1,c64,o64,h56,w56,k3x3;padding=1:f32.f32.f32:nhwc:act=relu,bias,residual": "dense 3x3, stride 1",
    "conv2d:n1,c512,o512,h7,w7,k3x3:f32.f32.f32:nchw": "dense 3x3, stride 1",
    "conv2d:n1,c64,o64,h56,w56,k3x3;stride=2,padding=1:f32.f32.f32:nchw": "1x1 and strided",
    "conv2d:n1,c64,o64,h56,w56,k1x1:f32.f32.f32:nchw": "1x1 and strided",
    "conv2d:n1,c64,o64,h56,w56,k1x1;stride=2:f32.f32.f32:nchw": "1x1 and strided",
    "conv2d:n1,c64,o64,h1,w1,k1x1:f32.f32.f32:nchw": "1x1 and strided",
    "conv2d:n1,c3,o64,h56,w56,k7x7;stride=2,padding=3:f32.f32.f32:nchw": "few input channels",
    "conv2d:n1,c1,o8,h56,w56,k3x3:f32.f32.f32:nchw": "few input channels",
    "conv2d:n1,c64,o64,h56,w56,k3x3;padding=1,groups=8:f32.f32.f32:nchw": "grouped",
    "conv2d:n1,c64,o64,h56,w56,k3x3;padding=1,groups=64:f32.f32.f32:nchw": "depthwise to 13x13",
    "conv2d:n1,c64,o64,h56,w56,k5x5;padding=2:f32.f32.f32:nchw": "other dense",
    "conv2d:n1,c64,o64,h56,w56,k3x3;padding=2,dilation=2:f32.f32.f32:nchw": "other dense",
    "conv1d:n1,c64,o64,l99,k3:f32.f32.f32:ncl": "other dense",
    "depthwise_conv2d:n1,c64,h56,w56,k3x3;stride=2,padding=1:f32.f32.f32:nchw": "depthwise to 13x13",
    "depthwise_conv2d:n1,c64,h7,w7,k7x7;padding=3:f32.f32.f32:nhwc:bias": "depthwise to 13x13",
    "depthwise_conv2d:n1,c64,h28,w28,k17x17;padding=8:f32.f32.f32:nhwc": "other depthwise",
    "depthwise_conv2d:n1,c64,h28,w28,k29x29;padding=14:f32.f32.f32:nchw": "depthwise from 23x23",
    "depthwise_conv2d:n1,c64,h14,w14,k27x27;padding=13:f32.f32.f32:nchw": "depthwise, window beyond the plane",
    "dilated_reparam_conv2d:n1,c64,h7,w7,k13x13:f32.f32.f32:nchw": "depthwise, window beyond the plane",
    "dilated_reparam_conv2d:n1,c64,h14,w14,k13x13:f32.f32.f32:nchw": "depthwise to 13x13",
    "depthwise_conv2d:n1,c64,h14,w14,k7x7;padding=9,dilation=3:f32.f32.f32:nchw": "depthwise, dilated",
    "conv_transpose2d:n1,c8,o4,h5,w4,k4x4;stride=2,padding=1,output_padding=1:f32.f32.f32:nhwc:bias": "transposed",
    "involution2d:n1,c8,g2,h7,w6,k3x3;padding=1:f32.f32.f32:nhwc": "per-pixel kernels",
    "conv2d_pixel_shuffle:n1,c32,o1,h9,w8,k3x3;padding=1,upscale=3:f32.f32.f32:nchw:bias_conv": "dense 3x3, stride 1",
    "dynamic_conv1d:n2,c8,heads2,l9,k3:f32.f32.f32:nlc": "per-pixel kernels",
    "deform_conv2d:n1,c8,o4,h7,w6,k3x3;padding=1:f32.f32.f32:nchw:bias,mask": "deformable",
    "condconv2d:n3,c8,o8,e4,h6,w5,k3x3;padding=1,groups=8:f32.f32.f32:nchw": "per-sample kernels",
    "condconv2d:n8,c80,o48,e4,h14,w14,k1x1:f32.f32.f32:nchw": "per-sample kernels",
    "separable_block2d:n1,c64,o12,h9,w8,k3x3;padding=1:f32.f32.f32:nhwc:act=relu6,bias": "fused blocks",
    "inception_depthwise_conv2d:n1,c96,gc12,h56,w56:f32.f32.f32:nchw": "fused blocks",
    "involution2d:n1,c8,g2,h7,w6,k3x3;padding=1:bf16.f32.bf16:nhwc": "bf16",
    "conv2d:n1,c64,o64,h56,w56,k3x3:f16.f32.f16:nchw": "fp16",
}


@pytest.mark.parametrize("id", KNOWN)
def test_known_workloads(id):
    assert group(convgen.workload(id)) == KNOWN[id]


def test_every_published_workload_has_a_group():
    for name in table.names():
        assert all(group(w) in GROUPS for w in table.get(name).workloads())
    for name in suites.names():
        assert all(group(case.workload) in GROUPS for case in read(suites.path(name)))


def test_own_operators():
    @operator(dims="N C H W KH KW")
    def position_kernels(o, *, padding=pads(2)):
        """A parameter per pixel and tap."""
        n, c, p, q = o.axes("N C H W")
        r, s = o.window("KH KW")
        x, w = o.input("x", "N C H W", pad=padding), o.param("weight", "C KH KW H W")
        return o.sum(w[c, r, s, p, q] * x[n, c, p + r, q + s], (r, s))

    @operator(dims="N C H W KH KW")
    def attention(o, *, padding=pads(2)):
        """Weights from products of pixels, applied to their neighbours."""
        n, c, p, q = o.axes("N C H W")
        r, s = o.window("KH KW")
        query, x = o.input("query", "N C H W"), o.input("x", "N C H W", pad=padding)
        i, j, d = o.axis("i", o.KH), o.axis("j", o.KW), o.axis("d", o.C)
        logits = o.stage(o.sum(query[n, d, p, q] * x[n, d, p + i, q + j], d, name="logits"), (n, p, q, i, j))
        return o.sum(logits[n, p, q, r, s] * x[n, c, p + r, q + s], (r, s))

    @operator(dims="N C H W KH KW")
    def normalised(o, *, padding=pads(2)):
        """Depthwise, over the mean of all channels."""
        n, c, p, q = o.axes("N C H W")
        r, s = o.window("KH KW")
        x, w = o.input("x", "N C H W", pad=padding), o.param("weight", "C KH KW")
        y = o.stage(o.sum(w[c, r, s] * x[n, c, p + r, q + s], (r, s), name="filtered"), (n, c, p, q))
        d = o.axis("d", o.C)
        mean = o.stage(o.sum(y[n, d, p, q], d, name="mean"), (n, p, q))
        return y[n, c, p, q] - mean[n, p, q]

    @operator(dims="N C H W KH KW")
    def largest(o, *, padding=pads(2)):
        """A maximum instead of a sum."""
        n, c, p, q = o.axes("N C H W")
        r, s = o.window("KH KW")
        x, w = o.input("x", "N C H W", pad=padding), o.param("weight", "C KH KW")
        return o.max(w[c, r, s] + x[n, c, p + r, q + s], (r, s))

    found = {op.name: group(op(N=1, C=8, H=6, W=6, kernel=3, padding=1)) for op in (position_kernels, attention, normalised, largest)}
    assert found == {"position_kernels": "per-pixel kernels", "attention": "per-pixel kernels", "normalised": "fused blocks", "largest": OTHER}
