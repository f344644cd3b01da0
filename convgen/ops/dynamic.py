"""Operators whose kernels or positions come from the input: per sample, per pixel, per step, sampled."""

from __future__ import annotations

from ..lang import choice, integer, ints, normal, operator, pads, uniform
from . import torch_forms
from .conv import check_groups, output_axes


@operator(dims="N C O E H W KH KW", cite="arXiv:1904.04971", baseline=torch_forms.condconv2d,
          positional="x weight routing bias stride padding dilation groups",
          workloads=["n8,c96,o96,e4,h28,w28,k5x5;padding=2,groups=96:f32.f32.f32:nchw", "n8,c480,o480,e4,h14,w14,k5x5;padding=2,groups=480:f32.f32.f32:nchw",
                     "n8,c80,o480,e4,h14,w14,k1x1:f32.f32.f32:nchw"])
def condconv2d(o, *, stride=ints(2), padding=pads(2), dilation=ints(2), groups=integer()):
    """CondConv: every sample has its own kernel, a mixture of E experts by its routing weights.

    weight [E, O, C/groups, KH, KW], routing [N, E].
    """
    check_groups(o, groups)
    sizes = [o.window_size(l, k, s, d, p) for l, k, s, d, p in zip((o.H, o.W), (o.KH, o.KW), stride, dilation, padding)]
    n, oc, (p, q) = output_axes(o, 2, sizes, "O")
    per_group = o.C // groups
    x = o.input("x", "N C H W", pad=padding)
    w = o.param("weight", "E", "O", per_group, "KH", "KW")
    routing = o.input("routing", "N E", values=uniform(0, 1))
    e, c, r, s = o.axis("e", o.E), o.axis("c", per_group), *o.window("KH KW")
    kernel = o.stage(o.sum(routing[n, e] * w[e, oc, c, r, s], e, name="kernel"), (n, oc, c, r, s))
    return o.sum(kernel[n, oc, c, r, s] * x[n, oc // (o.O // groups) * per_group + c, p * stride[0] + r * dilation[0], q * stride[1] + s * dilation[1]], (c, r, s))


def local_filter(o, stride, padding, dilation, kernel):
    """y[n,c,p,q] = sum over r, s of kernel(n, c, r, s, p, q) x[n, c, stride p + dilation r - padding, ...]: another kernel at every position.

    `kernel()` declares the kernels' tensor, once the output sizes P and Q are known, and returns its element at (n, c, r, s, p, q).
    """
    sizes = [o.window_size(l, k, s, d, p) for l, k, s, d, p in zip((o.H, o.W), (o.KH, o.KW), stride, dilation, padding)]
    n, c, (p, q) = output_axes(o, 2, sizes, "C")
    r, s = o.window("KH KW")
    x = o.input("x", "N C H W", pad=padding)
    return o.sum(kernel()(n, c, r, s, p, q) * x[n, c, p * stride[0] + r * dilation[0], q * stride[1] + s * dilation[1]], (r, s))


@operator(dims="N C G H W KH KW", cite="arXiv:2103.06255", formulations={"unfold": torch_forms.involution2d, "shifted sum": torch_forms.involution2d_shifted},
          workloads=["n1,c64,g4,h56,w56,k7x7;padding=3:f32.f32.f32:nchw", "n1,c64,g4,h56,w56,k7x7;padding=3:f32.f32.f32:nhwc", "n1,c128,g8,h28,w28,k7x7;padding=3:f32.f32.f32:nchw"])
def involution2d(o, *, stride=ints(2), padding=pads(2), dilation=ints(2)):
    """Involution: a kernel per output pixel, shared by the C/G channels of a group. weight [N, G, KH, KW, P, Q]."""
    o.require(o.C % o.G, "==", 0, "C must be divisible by G")

    def kernel():
        w = o.input("weight", "N G KH KW P Q")
        return lambda n, c, *at: w[(n, c // (o.C // o.G), *at)]
    return local_filter(o, stride, padding, dilation, kernel)


@operator(dims="N C G H W KH KW", cite="arXiv:2503.23135", formulations={"unfold": torch_forms.ska2d, "shifted sum": torch_forms.ska2d_shifted},
          workloads=["n1,c128,g16,h28,w28,k3x3;padding=1:f32.f32.f32:nchw", "n1,c128,g16,h28,w28,k3x3;padding=1:f32.f32.f32:nhwc", "n1,c256,g32,h7,w7,k3x3;padding=1:f32.f32.f32:nchw"])
def ska2d(o, *, stride=ints(2), padding=pads(2), dilation=ints(2)):
    """Small kernel aggregation (LSNet): a kernel per output pixel, shared by the channels c, c + G, c + 2G and so on.

    weight [N, G, KH, KW, P, Q], a view of the authors' [N, C/8, KH*KW, H, W]; LSNet has G = C/8, stride 1 and padding KH//2.
    """
    o.require(o.C % o.G, "==", 0, "C must be divisible by G")

    def kernel():
        w = o.input("weight", "N G KH KW P Q")
        return lambda n, c, *at: w[(n, c % o.G, *at)]
    return local_filter(o, stride, padding, dilation, kernel)


@operator(dims="N C H W KH KW", cite="arXiv:2203.10489", formulations={"unfold": torch_forms.tvconv2d, "shifted sum": torch_forms.tvconv2d_shifted},
          workloads=["n1,c144,h24,w24,k3x3;padding=1:f32.f32.f32:nchw", "n1,c144,h24,w24,k3x3;padding=1:f32.f32.f32:nhwc", "n1,c96,h96,w96,k3x3;stride=2,padding=1:f32.f32.f32:nchw"])
def tvconv2d(o, *, stride=ints(2), padding=pads(2), dilation=ints(2)):
    """Translation-variant depthwise convolution (TVConv): a kernel per channel and output pixel, the same for every sample.

    weight [C, KH, KW, P, Q], a view of the authors' [1, C, KH*KW, P, Q]: the generator's output, which is constant at inference.
    """
    def kernel():
        w = o.param("weight", "C KH KW P Q")
        return lambda n, *at: w[at]
    return local_filter(o, stride, padding, dilation, kernel)


@operator(dims="N C HEADS L K", cite="arXiv:1901.10430", formulations={"unfold": torch_forms.dynamic_conv1d, "band matrix": torch_forms.dynamic_conv1d_band}, positional="x weight bias",
          workloads=["n8,c512,heads8,l512,k31:f32.f32.f32:nlc", "n8,c1024,heads16,l64,k15;alignment=causal:f32.f32.f32:nlc"])
def dynamic_conv1d(o, *, alignment=choice("centred", "causal"), softmax: bool = True):
    """Dynamic convolution over a sequence: a kernel per step and head, softmax-normalised over its K taps.

    x [N, C, L], weight (logits) [N, HEADS, K, L]; head of channel c is c // (C/HEADS). y[t] = sum_k w[t,k] x[t + k - P], P = K-1 (causal) or K//2 (centred).
    """
    o.require(o.C % o.HEADS, "==", 0, "C must be divisible by HEADS")
    before = o.K - 1 if alignment == "causal" else o.K // 2
    o.out("T", o.L)
    n, c, t = o.axes("N C T")
    k = o.window("K")
    x = o.input("x", "N C L", pad=[(before, o.K - 1 - before)])
    logits = o.input("weight", "N HEADS K L")
    head = o.axis("head", o.HEADS)
    head_of = c // (o.C // o.HEADS)
    if not softmax:
        return o.sum(logits[n, head_of, k, t] * x[n, c, t + k], k)
    weight, total = o.softmax(logits[n, head, k, t], k)
    return o.sum(weight[n, head_of, k, t] * x[n, c, t + k], k) / total[n, head_of, t]


@operator(dims="N C O H W KH KW DG=1", cite="arXiv:1703.06211, arXiv:1811.11168", formulations={"grid_sample": torch_forms.deform_conv2d, "NHWC gather": torch_forms.deform_conv2d_gather},
          positional="x offset weight bias stride padding dilation mask", optional="mask",
          workloads=["n1,c64,o64,h56,w56,k3x3;padding=1:f32.f32.f32:nchw:mask", "n1,c128,o128,h28,w28,k3x3;padding=1:f32.f32.f32:nchw:mask", "n1,c64,o64,h56,w56,k3x3;padding=1:f32.f32.f32:nhwc"])
def deform_conv2d(o, *, stride=ints(2), padding=pads(2), dilation=ints(2), groups=integer()):
    """Deformable convolution v1 and (with mask) v2: bilinear samples at learned offsets, as torchvision.ops.deform_conv2d.

    offset [N, 2*DG*KH*KW, P, Q] as (dy, dx) per tap, taps row-major, offset groups outermost; mask [N, DG*KH*KW, P, Q].
    """
    check_groups(o, groups)
    o.require(o.C % o.DG, "==", 0, "C must be divisible by DG")
    sizes = [o.window_size(l, k, s, d, p) for l, k, s, d, p in zip((o.H, o.W), (o.KH, o.KW), stride, dilation, padding)]
    n, oc, (p, q) = output_axes(o, 2, sizes, "O")
    per_group = o.C // groups
    x = o.input("x", "N C H W")
    taps = o.KH * o.KW
    offset = o.input("offset", "N", o.DG * taps * 2, "P", "Q", values=normal(0, 2))  # about two pixels, as a trained layer gives
    w = o.param("weight", "O", per_group, "KH", "KW")
    mask = o.input("mask", "N", o.DG * taps, "P", "Q", values=uniform(0, 1)) if o.has("mask") else None
    c, r, s = o.axis("c", per_group), *o.window("KH KW")
    ch = o.axis("ch", o.C)
    tap = ch // (o.C // o.DG) * taps + r * o.KW + s
    y = o.float(p * stride[0] + r * dilation[0] - padding[0][0]) + offset[n, tap * 2, p, q]
    z = o.float(q * stride[1] + s * dilation[1] - padding[1][0]) + offset[n, tap * 2 + 1, p, q]
    value = bilinear(o, lambda i, j: x[n, ch, i, j], y, z, o.H, o.W)
    if mask is not None:
        value = value * mask[n, tap, p, q]
    sampled = o.stage(value, (n, p, q, r, s, ch), name="sampled")
    return o.sum(w[oc, c, r, s] * sampled[n, p, q, r, s, oc // (o.O // groups) * per_group + c], (c, r, s))


def bilinear(o, read, y, x, height, width):
    """Bilinear sample at (y, x); corners outside the image count as zero."""
    top, left = o.floor(y), o.floor(x)
    fy, fx = y - top, x - left
    value = None
    for row, wy in ((top, 1.0 - fy), (top + 1.0, fy)):
        for column, wx in ((left, 1.0 - fx), (left + 1.0, fx)):
            inside = (row >= 0.0) & (row <= o.float(height - 1)) & (column >= 0.0) & (column <= o.float(width - 1))
            i = o.int(o.minimum(o.maximum(row, 0.0), o.float(height - 1)))
            j = o.int(o.minimum(o.maximum(column, 0.0), o.float(width - 1)))
            term = read(i, j) * o.select(inside, wy * wx, 0.0)
            value = term if value is None else value + term
    return value
