"""Depthwise operators: plain, with branches, re-parameterised, and the separable block."""

from __future__ import annotations

from ..errors import ArgumentError
from ..lang import BATCH_NORM, choice, ints, operator, pads
from . import plain, torch_forms
from .conv import MODES, check_padding, output_axes


@operator(dims="N C M=1 L K", cite="torch.nn.functional.conv1d with groups = in_channels; long kernels: arXiv:2302.10866, arXiv:2302.06646",
          formulations={"conv1d": torch_forms.depthwise_conv1d, "rfft": torch_forms.DEPTHWISE_CONV1D_RFFT}, convolution=plain.depthwise, positional="x weight bias stride padding dilation",
          workloads=["n1,c768,l1024,k1024;padding=1023_0:f32.f32.f32:ncl", "n1,c256,l4096,k4096;padding=4095_0:f32.f32.f32:ncl", "n1,c768,l2048,k128;padding=127_0:f32.f32.f32:ncl",
                     "n1,c1536,l2048,k4;padding=3_0:f32.f32.f32:nlc:act=silu,bias"])
def depthwise_conv1d(o, *, stride=ints(1), padding=pads(1), dilation=ints(1), padding_mode=choice(*MODES)):
    """Depthwise 1-D convolution with channel multiplier M: every channel has its own M kernels; weight [C*M, 1, K]; causal with padding (K - 1, 0).

    K may be as long as the sequence: y[t] = sum_j k[j] u[t - j], as long convolutions define it, has weight[..., K - 1 - j] = k[j].
    """
    check_padding(o, padding_mode, (o.L,), padding)
    o.size("O", o.C * o.M)
    n, c, (t,) = output_axes(o, 1, [o.window_size(o.L, o.K, stride[0], dilation[0], padding[0])], "O")
    x = o.input("x", "N C L", pad=padding, mode=padding_mode)
    w = o.param("weight", "O", 1, "K")
    k = o.window("K")
    return o.sum(w[c, 0, k] * x[n, c // o.M, t * stride[0] + k * dilation[0]], k)


@operator(dims="N C M=1 H W KH KW", cite="torch.nn.functional.conv2d with groups = in_channels", baseline=torch_forms.depthwise_conv2d, convolution=plain.depthwise,
          positional="x weight bias stride padding dilation",
          workloads=["n1,c96,h56,w56,k7x7;padding=3:f32.f32.f32:nchw", "n1,c96,h56,w56,k7x7;padding=3:f32.f32.f32:nhwc", "n1,c64,h56,w56,k7x7;padding=9,dilation=3:f32.f32.f32:nhwc",
                     "n1,c128,h56,w56,k31x31;padding=15:f32.f32.f32:nchw", "n1,c128,h56,w56,k31x31;padding=15:f32.f32.f32:nhwc", "n1,c512,h14,w14,k27x27;padding=13:f32.f32.f32:nhwc", "n1,c144,h56,w56,k3x3;stride=2,padding=1:f32.f32.f32:nchw"])
def depthwise_conv2d(o, *, stride=ints(2), padding=pads(2), dilation=ints(2), padding_mode=choice(*MODES)):
    """Depthwise 2-D convolution with channel multiplier M: every input channel has its own M kernels; weight [C*M, 1, KH, KW]."""
    check_padding(o, padding_mode, (o.H, o.W), padding)
    o.size("O", o.C * o.M)
    sizes = [o.window_size(l, k, s, d, p) for l, k, s, d, p in zip((o.H, o.W), (o.KH, o.KW), stride, dilation, padding)]
    n, c, (p, q) = output_axes(o, 2, sizes, "O")
    x = o.input("x", "N C H W", pad=padding, mode=padding_mode)
    w = o.param("weight", "O", 1, "KH", "KW")
    r, s = o.window("KH KW")
    return o.sum(w[c, 0, r, s] * x[n, c // o.M, p * stride[0] + r * dilation[0], q * stride[1] + s * dilation[1]], (r, s))


@operator(dims="N C GC H W SQUARE=3 BAND=11", cite="arXiv:2303.16900", baseline=torch_forms.inception, optional="bias_hw bias_w bias_h", epilogue=False,
          positional="x weight_hw weight_w weight_h bias_hw bias_w bias_h",
          workloads=["n1,c96,gc12,h56,w56:f32.f32.f32:nchw:bias_h,bias_hw,bias_w", "n1,c192,gc24,h28,w28:f32.f32.f32:nchw:bias_h,bias_hw,bias_w"])
def inception_depthwise_conv2d(o):
    """Inception depthwise convolution (InceptionNeXt): channels split into identity, SQUARE x SQUARE, 1 x BAND and BAND x 1 branches, joined in this order.

    Each branch has GC channels and the identity the first C - 3 GC. Weights [GC,1,SQUARE,SQUARE], [GC,1,1,BAND], [GC,1,BAND,1]; sizes odd.
    """
    o.require(o.C, ">=", o.GC * 3, "C must be at least 3 GC")
    o.require(o.SQUARE % 2, "==", 1, "SQUARE must be odd")
    o.require(o.BAND % 2, "==", 1, "BAND must be odd")
    o.out("P", o.H), o.out("Q", o.W)
    n, c, p, q = o.axes("N C P Q")
    x = o.input("x", "N C H W")
    identity = o.C - o.GC * 3
    branches = []
    for i, (suffix, kh, kw) in enumerate((("hw", o.SQUARE, o.SQUARE), ("w", 1, o.BAND), ("h", o.BAND, 1))):
        w = o.param(f"weight_{suffix}", "GC", 1, kh, kw)
        g, r, s = o.axis("g", o.GC), o.axis("r", kh), o.axis("s", kw)
        around = x.padded([(kh // 2, kh // 2), (kw // 2, kw // 2)])
        value = o.sum(w[g, 0, r, s] * around[n, identity + o.GC * i + g, p + r, q + s], (r, s), name=f"branch_{suffix}")
        branches.append((o.stage(value, (n, g, p, q), name=f"branch_{suffix}"), o.has(f"bias_{suffix}") and o.param(f"bias_{suffix}", "GC")))

    def part(tensor, bias):
        return lambda at: tensor[n, at, p, q] + bias[at] if bias else tensor[n, at, p, q]
    return o.concat([(identity, lambda at: x[n, at, p, q]), *((o.GC, part(t, b)) for t, b in branches)], c)


DILATED_BRANCHES = {  # K: [(kernel, dilation)], UniRepLKNet (arXiv:2311.15599), authors' source
    17: [(5, 1), (9, 2), (3, 4), (3, 5), (3, 7)], 15: [(5, 1), (7, 2), (3, 3), (3, 5), (3, 7)], 13: [(5, 1), (7, 2), (3, 3), (3, 4), (3, 5)],
    11: [(5, 1), (5, 2), (3, 3), (3, 4), (3, 5)], 9: [(5, 1), (5, 2), (3, 3), (3, 4)], 7: [(5, 1), (3, 2), (3, 3)], 5: [(3, 1), (3, 2)],
}


@operator(dims="N C H W KH KW", cite="arXiv:2311.15599", formulations={"merged": torch_forms.REPARAM_MERGED, "branches": torch_forms.dilated_reparam}, convolution=plain.merged_branches,
          workloads=["n1,c160,h28,w28,k13x13:f32.f32.f32:nchw", "n1,c320,h14,w14,k13x13:f32.f32.f32:nhwc", "n1,c640,h7,w7,k13x13:f32.f32.f32:nhwc"])
def dilated_reparam_conv2d(o, *, eps: float = 1e-5):
    """UniRepLKNet's dilated re-parameterisation block: a large depthwise kernel and parallel dilated small ones, each with its batch norm.

    K is 5, 7, 9, 11, 13, 15 or 17 and fixes the branches. `weight` [C,1,K,K] with `bn`, branch i `weight<i>` [C,1,k,k] with `bn<i>`; a bn is [4,C]: scale, shift,
    running mean, running variance. All are merged into one kernel and one bias when bound.
    """
    if int(o.KH) not in DILATED_BRANCHES or int(o.KW) != int(o.KH):
        raise ArgumentError(f"dilated_reparam_conv2d: kernel must be square and one of {sorted(DILATED_BRANCHES)}, got {int(o.KH)}x{int(o.KW)}")
    big = int(o.KH)
    x = o.input("x", "N C H W")
    ch, one, a, b = o.axis("ch", o.C), o.axis("one", 1), o.axis("a", big), o.axis("b", big)
    kernel = shift = None
    for i, (k, d) in enumerate([(big, 1), *DILATED_BRANCHES[big]]):
        w, bn = o.param(f"weight{i or ''}", "C", 1, k, k), o.param(f"bn{i or ''}", 4, "C", values=BATCH_NORM)
        scale = bn[0, ch] / o.sqrt(bn[3, ch] + eps)
        start = big // 2 - (d * (k - 1) + 1) // 2
        row, column = a - start, b - start
        tap = w[ch, 0, row // d, column // d] * scale
        if k != big:
            inside = (row >= 0) & (row <= d * (k - 1)) & (row % d == 0) & (column >= 0) & (column <= d * (k - 1)) & (column % d == 0)
            tap = o.select(inside, tap, 0.0)
        kernel = tap if kernel is None else kernel + tap
        term = bn[1, ch] - bn[2, ch] * scale
        shift = term if shift is None else shift + term
    merged = o.stage(kernel, (ch, one, a, b), name="merged_kernel")
    bias = o.stage(shift, (ch,), name="merged_bias")
    return depthwise_conv2d(o, x=x, weight=merged, bias=bias, padding=big // 2)


@operator(dims="N C O H W KH KW", cite="arXiv:1704.04861", baseline=torch_forms.separable_block2d, positional="x weight_dw weight_pw bias stride padding dilation",
          workloads=["n1,c64,o128,h56,w56,k3x3;padding=1:f32.f32.f32:nhwc:act=relu6,bias", "n1,c128,o128,h56,w56,k3x3;padding=1:f32.f32.f32:nchw:act=relu6,bias"])
def separable_block2d(o, *, stride=ints(2), padding=pads(2), dilation=ints(2)):
    """Depthwise-separable block: depthwise convolution, then pointwise, then (by flag) bias and activation, as one operator."""
    o.out("P", o.window_size(o.H, o.KH, stride[0], dilation[0], padding[0]))
    o.out("Q", o.window_size(o.W, o.KW, stride[1], dilation[1], padding[1]))
    n, oc, p, q = o.axes("N O P Q")
    c, r, s = o.axis("c", o.C), *o.window("KH KW")
    x = o.input("x", "N C H W", pad=padding)
    wd, wp = o.param("weight_dw", "C", 1, "KH", "KW"), o.param("weight_pw", "O", "C", 1, 1)
    inner = o.sum(wd[c, 0, r, s] * x[n, c, p * stride[0] + r * dilation[0], q * stride[1] + s * dilation[1]], (r, s), name="depthwise")
    dw = o.stage(inner, (n, c, p, q))
    return o.sum(wp[oc, c, 0, 0] * dw[n, c, p, q], c, name="pointwise")
