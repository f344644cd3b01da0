"""Blocks of published networks as one operator each."""

from __future__ import annotations

from ..lang import choice, ints, normal, operator, uniform
from . import torch_blocks
from .conv import conv2d
from .depthwise import depthwise_conv2d

_BIAS = normal(0, 0.1)


def check_odd(o, *dims):
    """Windows with a centre, so that half a window of padding keeps the plane."""
    for d in dims:
        o.require(getattr(o, d) % 2, "==", 1, f"{d} must be odd")


def ids(rows, layouts=("nhwc", "nchw")):
    """Workload ids without the name: each of `rows` (dims and attributes) in each layout."""
    return [f"{row}:f32.f32.f32:{layout}" for row in rows for layout in layouts]


CONVNEXT_T = ids(f"n1,c{c},hidden{4 * c},h{s},w{s},k7x7" for c, s in ((96, 56), (192, 28), (384, 14), (768, 7)))


@operator(dims="N C HIDDEN H W KH KW", cite="arXiv:2201.03545", epilogue=False, workloads=CONVNEXT_T,
          formulations={"linear layers": torch_blocks.CONVNEXT_LINEAR, "convolutions": torch_blocks.CONVNEXT_CONVOLUTIONS})
def convnext_block2d(o, *, eps: float = 1e-6):
    """ConvNeXt block: depthwise convolution, layer norm over channels, 1x1, GELU, 1x1, layer scale, plus the input.

    KH and KW odd, padded by half of them. norm [2, C]: scale and shift of the layer norm; weight_1 [HIDDEN, C] and weight_2 [C, HIDDEN]: the linear layers;
    layer_scale [C]. Norm and layer scale are folded into the linear layers when bound. GELU is the exact one.
    """
    check_odd(o, "KH", "KW")
    x = o.input("x", "N C H W")
    y = o.stage(depthwise_conv2d(o, x=x, weight=o.param("weight_dw", "C", 1, "KH", "KW"), bias=o.param("bias_dw", "C", values=_BIAS), padding=(o.KH // 2, o.KW // 2)), name="depthwise")
    norm, scale = o.param("norm", 2, "C", values=normal(1, 0.1)), o.param("layer_scale", "C", values=uniform(0, 1))
    w1, b1 = o.param("weight_1", "HIDDEN", "C"), o.param("bias_1", "HIDDEN", values=_BIAS)
    w2, b2 = o.param("weight_2", "C", "HIDDEN"), o.param("bias_2", "C", values=_BIAS)
    h, c, kh, kw = o.axis("hidden", o.HIDDEN), o.axis("c", o.C), o.axis("kh", 1), o.axis("kw", 1)
    weight_1 = o.stage(w1[h, c] * norm[0, c], (h, c, kh, kw), name="scaled_1")
    bias_1 = o.stage(o.sum(w1[h, c] * norm[1, c], c, name="shift") + b1[h], (h,), name="shifted_1")
    weight_2 = o.stage(w2[c, h] * scale[c], (c, h, kh, kw), name="scaled_2")
    bias_2 = o.stage(b2[c] * scale[c], (c,), name="shifted_2")
    n, p, q = o.axis("n", o.N), o.axis("p", o.H), o.axis("q", o.W)
    mean = o.stage(o.sum(y[n, c, p, q], c, name="total") / o.float(o.C), (n, p, q), name="mean")
    centred = y[n, c, p, q] - mean[n, p, q]
    spread = o.stage(1.0 / o.sqrt(o.sum(centred * centred, c, name="squares") / o.float(o.C) + eps), (n, p, q), name="spread")
    normed = o.stage(centred * spread[n, p, q], (n, c, p, q), name="normed")
    hidden = o.stage(conv2d(o, x=normed, weight=weight_1, bias=bias_1, O=o.HIDDEN, KH=1, KW=1, activation="gelu"), name="activated")
    return conv2d(o, x=hidden, weight=weight_2, bias=bias_2, residual=x, C=o.HIDDEN, O=o.C, KH=1, KW=1)


MOBILENETV2 = ids(("n1,c32,hidden32,o16,h112,w112,k3x3", "n1,c16,hidden96,o24,h112,w112,k3x3;stride=2", "n1,c24,hidden144,o24,h56,w56,k3x3",
                   "n1,c32,hidden192,o32,h28,w28,k3x3", "n1,c64,hidden384,o64,h14,w14,k3x3", "n1,c160,hidden960,o160,h7,w7,k3x3"))


@operator(dims="N C HIDDEN O H W KH KW", cite="arXiv:1801.04381", formulations={"convolutions": torch_blocks.inverted_residual2d}, epilogue=False, workloads=MOBILENETV2)
def inverted_residual2d(o, *, stride=ints(2), inner=choice("relu6", "relu", "silu", "hardswish")):
    """Inverted residual (MobileNetV2): 1x1, activation, depthwise convolution, activation, 1x1, plus the input where stride is 1 and C = O.

    Batch norms are folded: every layer has a bias. KH and KW odd, padded by half of them. `inner` is the activation. As in the authors' networks, a block
    with HIDDEN = C has no expanding layer (weight_expand [HIDDEN, C, 1, 1] and bias_expand).
    """
    check_odd(o, "KH", "KW")
    y = x = o.input("x", "N C H W")
    if o.HIDDEN != o.C:
        y = o.stage(conv2d(o, x=x, weight=o.param("weight_expand", "HIDDEN", "C", 1, 1), bias=o.param("bias_expand", "HIDDEN", values=_BIAS),
                           O=o.HIDDEN, KH=1, KW=1, activation=inner), name="expanded")
    y = o.stage(depthwise_conv2d(o, x=y, weight=o.param("weight_dw", "HIDDEN", 1, "KH", "KW"), bias=o.param("bias_dw", "HIDDEN", values=_BIAS), C=o.HIDDEN,
                                 stride=stride, padding=(o.KH // 2, o.KW // 2), activation=inner), name="filtered")
    residual = {"residual": x} if stride[0] == 1 and stride[1] == 1 and o.C == o.O else {}
    return conv2d(o, x=y, weight=o.param("weight_project", "O", "HIDDEN", 1, 1), bias=o.param("bias_project", "O", values=_BIAS),
                  C=o.HIDDEN, H=y.sizes[2], W=y.sizes[3], KH=1, KW=1, **residual)


VAN_B1 = ids(f"n1,c{c},h{s},w{s},k7x7" for c, s in ((64, 56), (128, 28), (320, 14), (512, 7)))


@operator(dims="N C H W SMALL=5 KH KW", cite="arXiv:2202.09741", formulations={"convolutions": torch_blocks.large_kernel_attention2d}, epilogue=False, workloads=VAN_B1)
def large_kernel_attention2d(o, *, dilation=ints(2, 3)):
    """Large kernel attention (VAN): depthwise SMALL x SMALL, dilated depthwise KH x KW, 1x1, times the input.

    Windows odd, padded by half of them. weight_dw [C,1,SMALL,SMALL], weight_dilated [C,1,KH,KW], weight_pw [C,C,1,1], each with its bias.
    """
    check_odd(o, "SMALL", "KH", "KW")
    x = o.input("x", "N C H W")
    y = o.stage(depthwise_conv2d(o, x=x, weight=o.param("weight_dw", "C", 1, "SMALL", "SMALL"), bias=o.param("bias_dw", "C", values=_BIAS),
                                 KH=o.SMALL, KW=o.SMALL, padding=o.SMALL // 2), name="near")
    y = o.stage(depthwise_conv2d(o, x=y, weight=o.param("weight_dilated", "C", 1, "KH", "KW"), bias=o.param("bias_dilated", "C", values=_BIAS),
                                 padding=(dilation[0] * (o.KH // 2), dilation[1] * (o.KW // 2)), dilation=dilation), name="far")
    return conv2d(o, x=y, weight=o.param("weight_pw", "C", "C", 1, 1), bias=o.param("bias_pw", "C", values=_BIAS), gate=x, O=o.C, KH=1, KW=1)
