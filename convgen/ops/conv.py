"""Ordinary convolutions: conv1d/2d/3d and their transposes. Source: torch.nn.functional and torch.nn documentation."""

from __future__ import annotations

from ..lang import choice, either, integer, ints, normal, operator, pads
from . import plain, torch_forms

MODES = ("zeros", "reflect", "replicate", "circular")
_POSITIONAL = "x weight bias stride padding dilation groups"  # as the functions of torch.nn.functional take them
_LENGTHS = {1: "L", 2: "H W", 3: "D H W"}
_WINDOWS = {1: "K", 2: "KH KW", 3: "KD KH KW"}
_OUTPUTS = {1: "LO", 2: "P Q", 3: "DO P Q"}


def output_axes(o, rank, sizes, channels):
    """Name the output sizes and make the axes (n, channel, positions...)."""
    for name, size in zip(_OUTPUTS[rank].split(), sizes):
        o.out(name, size)
    n, c, *positions = o.axes(f"N {channels} {_OUTPUTS[rank]}")
    return n, c, positions


def check_padding(o, mode, lengths, padding):
    """What torch.nn.functional.pad demands of each mode."""
    if mode == "reflect":
        for length, pad in zip(lengths, padding):
            for p in pad:
                o.require(p, "<", length, "reflect padding must be smaller than the input")
    if mode == "circular":
        for length, pad in zip(lengths, padding):
            for p in pad:
                o.require(p, "<=", length, "circular padding must not exceed the input")


def check_groups(o, groups):
    """Groups split both channel counts evenly."""
    o.require(o.C % groups, "==", 0, "C must be divisible by groups")
    o.require(o.O % groups, "==", 0, "O must be divisible by groups")


def convolve(o, rank, stride, padding, dilation, groups, mode):
    """y[n,o,p] = sum over c, k of w[o,c,k] x[n, group(o) C/G + c, stride p + dilation k - padding]."""
    check_groups(o, groups)
    lengths = [getattr(o, d) for d in _LENGTHS[rank].split()]
    kernels = [getattr(o, d) for d in _WINDOWS[rank].split()]
    check_padding(o, mode, lengths, padding)
    n, oc, ps = output_axes(o, rank, [o.window_size(l, k, s, d, p) for l, k, s, d, p in zip(lengths, kernels, stride, dilation, padding)], "O")
    per_group = o.C // groups
    x = o.input("x", f"N C {_LENGTHS[rank]}", pad=padding, mode=mode)
    w = o.param("weight", "O", per_group, *_WINDOWS[rank].split())
    c = o.axis("c", per_group)
    ks = [o.axis(d.lower(), getattr(o, d)) for d in _WINDOWS[rank].split()]
    position = [p * s + k * d for p, s, k, d in zip(ps, stride, ks, dilation)]
    return o.sum(w[(oc, c, *ks)] * x[(n, oc // (o.O // groups) * per_group + c, *position)], [c, *ks])


def convolve_transposed(o, rank, stride, padding, output_padding, groups, dilation):
    """The adjoint of `convolve`, read from the output: tap k meets x at (q + padding - dilation k) / stride where that is whole."""
    check_groups(o, groups)
    lengths = [getattr(o, d) for d in _LENGTHS[rank].split()]
    kernels = [getattr(o, d) for d in _WINDOWS[rank].split()]
    for s, d, extra in zip(stride, dilation, output_padding):
        o.require(extra, "<", o.larger(s, d), "output_padding must be smaller than stride or dilation")
    sizes = [(l - 1) * s - lo - hi + d * (k - 1) + e + 1 for l, k, s, d, (lo, hi), e in zip(lengths, kernels, stride, dilation, padding, output_padding)]
    n, oc, qs = output_axes(o, rank, sizes, "O")
    per_group, out_per_group = o.C // groups, o.O // groups
    reach = [(d * (k - 1), d * (k - 1) + e) for d, k, e in zip(dilation, kernels, output_padding)]
    x = o.input("x", f"N C {_LENGTHS[rank]}", pad=reach)
    w = o.param("weight", "C", out_per_group, *_WINDOWS[rank].split())
    c = o.axis("c", per_group)
    ks = [o.axis(d.lower(), getattr(o, d)) for d in _WINDOWS[rank].split()]
    whole, position = None, []
    for q, s, k, d, (lo, _), (r, _) in zip(qs, stride, ks, dilation, padding, reach):
        offset = q + lo - k * d
        hit = offset % s == 0
        whole = hit if whole is None else whole & hit
        position.append(offset // s + r)
    channel = oc // out_per_group * per_group + c
    value = o.select(whole, x[(n, channel, *position)], 0.0)
    return o.sum(w[(channel, oc % out_per_group, *ks)] * value, [c, *ks])


@operator(dims="N C O L K", cite="torch.nn.functional.conv1d", baseline=torch_forms.conv, convolution=plain.convolution, positional=_POSITIONAL,
          workloads=["n16,c512,o512,l1024,k3;padding=1:f32.f32.f32:ncl", "n16,c512,o512,l1024,k3;padding=4,dilation=4:f32.f32.f32:ncl", "n1,c64,o64,l1024,k5;padding=2:f32.f32.f32:nlc"])
def conv1d(o, *, stride=ints(1), padding=pads(1), dilation=ints(1), groups=integer(), padding_mode=choice(*MODES)):
    """1-D convolution (cross-correlation), as torch.nn.functional.conv1d."""
    return convolve(o, 1, stride, padding, dilation, groups, padding_mode)


@operator(dims="N C O H W KH KW", cite="torch.nn.functional.conv2d", baseline=torch_forms.conv, convolution=plain.convolution, positional=_POSITIONAL,
          workloads=["n1,c64,o64,h56,w56,k3x3;padding=1:f32.f32.f32:nchw", "n1,c128,o128,h28,w28,k3x3;padding=1:f32.f32.f32:nchw",
                     "n1,c256,o256,h14,w14,k3x3;padding=1:f32.f32.f32:nchw", "n1,c512,o512,h7,w7,k3x3;padding=1:f32.f32.f32:nchw",
                     "n1,c64,o256,h56,w56,k1x1:f32.f32.f32:nchw", "n1,c3,o64,h224,w224,k7x7;stride=2,padding=3:f32.f32.f32:nchw"])
def conv2d(o, *, stride=ints(2), padding=pads(2), dilation=ints(2), groups=integer(), padding_mode=choice(*MODES)):
    """2-D convolution (cross-correlation), as torch.nn.functional.conv2d."""
    return convolve(o, 2, stride, padding, dilation, groups, padding_mode)


@operator(dims="N C O D H W KD KH KW", cite="torch.nn.functional.conv3d", baseline=torch_forms.conv, convolution=plain.convolution, positional=_POSITIONAL,
          workloads=["n1,c32,o32,d32,h32,w32,k3x3x3;padding=1:f32.f32.f32:ncdhw", "n1,c16,o32,d8,h56,w56,k3x3x3;padding=1,dilation=2:f32.f32.f32:ncdhw:act=relu,bias"])
def conv3d(o, *, stride=ints(3), padding=pads(3), dilation=ints(3), groups=integer(), padding_mode=choice(*MODES)):
    """3-D convolution (cross-correlation), as torch.nn.functional.conv3d."""
    return convolve(o, 3, stride, padding, dilation, groups, padding_mode)


_TRANSPOSED = "x weight bias stride padding output_padding groups dilation"


@operator(dims="N C O L K", cite="torch.nn.functional.conv_transpose1d", baseline=torch_forms.conv_transpose, convolution=plain.transposed, positional=_TRANSPOSED,
          workloads=["n1,c128,o64,l256,k16;stride=8,padding=4:f32.f32.f32:ncl"])
def conv_transpose1d(o, *, stride=ints(1), padding=pads(1), output_padding=ints(1, 0, 0), groups=integer(), dilation=ints(1)):
    """1-D transposed convolution, as torch.nn.functional.conv_transpose1d."""
    return convolve_transposed(o, 1, stride, padding, output_padding, groups, dilation)


@operator(dims="N C O H W KH KW", cite="torch.nn.functional.conv_transpose2d", baseline=torch_forms.conv_transpose, convolution=plain.transposed, positional=_TRANSPOSED,
          workloads=["n1,c128,o64,h28,w28,k4x4;stride=2,padding=1:f32.f32.f32:nchw", "n1,c64,o64,h32,w32,k3x3;stride=2,padding=1,output_padding=1:f32.f32.f32:nchw"])
def conv_transpose2d(o, *, stride=ints(2), padding=pads(2), output_padding=ints(2, 0, 0), groups=integer(), dilation=ints(2)):
    """2-D transposed convolution, as torch.nn.functional.conv_transpose2d."""
    return convolve_transposed(o, 2, stride, padding, output_padding, groups, dilation)


@operator(dims="N C O D H W KD KH KW", cite="torch.nn.functional.conv_transpose3d", baseline=torch_forms.conv_transpose, convolution=plain.transposed, positional=_TRANSPOSED,
          workloads=["n1,c64,o32,d8,h16,w16,k2x2x2;stride=2:f32.f32.f32:ncdhw"])
def conv_transpose3d(o, *, stride=ints(3), padding=pads(3), output_padding=ints(3, 0, 0), groups=integer(), dilation=ints(3)):
    """3-D transposed convolution, as torch.nn.functional.conv_transpose3d."""
    return convolve_transposed(o, 3, stride, padding, output_padding, groups, dilation)


def covered(o, name, length, kernel, out, stride, padding, dilation):
    """Kernel taps over those that meet the image, per output position: a table of one direction, made when parameters are bound."""
    p, k = o.axis(f"{name}_position", out), o.axis(f"{name}_tap", kernel)
    at = p * stride + k * dilation - padding[0]
    met = o.stage(o.sum(o.select((at >= 0) & (at < length), 1.0, 0.0), k, name=f"{name}_met"), (p,))
    return o.stage(o.float(kernel) / o.maximum(met[p], 1.0), (p,), name=f"{name}_ratio")


@operator(dims="N C O H W KH KW", cite="arXiv:1811.11718", formulations={"conv2d, then a table": torch_forms.PARTIAL_PADDING}, positional=_POSITIONAL,
          workloads=["n1,c64,o64,h56,w56,k3x3;padding=1:f32.f32.f32:nchw", "n1,c64,o64,h56,w56,k3x3;padding=1:f32.f32.f32:nhwc", "n1,c512,o512,h7,w7,k3x3;padding=1:f32.f32.f32:nchw",
                     "n1,c3,o64,h224,w224,k7x7;stride=2,padding=3:f32.f32.f32:nchw"])
def partial_padding_conv2d(o, *, stride=ints(2), padding=pads(2), dilation=ints(2), groups=integer()):
    """Convolution with partial-convolution padding: every output is scaled by the share of its window that lies in the image.

    y = conv2d(x) * KH KW / (taps inside), before bias; the ratio is a product of one table per direction, made when parameters are bound.
    """
    value = convolve(o, 2, stride, padding, dilation, groups, "zeros")
    _, _, p, q = value.args
    rows = covered(o, "row", o.H, o.KH, p.size, stride[0], padding[0], dilation[0])
    columns = covered(o, "column", o.W, o.KW, q.size, stride[1], padding[1], dilation[1])
    return value * (rows[p] * columns[q])


@operator(dims="N C O H W KH KW", cite="arXiv:1804.07723", formulations={"masked conv2d": torch_forms.partial_conv2d}, positional="x mask weight bias stride padding dilation groups",
          optional="bias", epilogue=False,
          workloads=["n1,c64,o128,h128,w128,k5x5;stride=2,padding=2:f32.f32.f32:nchw:bias", "n1,c128,o256,h64,w64,k5x5;stride=2,padding=2:f32.f32.f32:nhwc:bias",
                     "n1,c512,o512,h16,w16,k3x3;padding=1:f32.f32.f32:nchw:bias"])
def partial_conv2d(o, *, stride=ints(2), padding=pads(2), dilation=ints(2), groups=integer()):
    """Partial convolution: a convolution of the unmasked pixels, scaled by the share of them in each window; zero where there are none.

    mask [N, 1, H, W] holds ones and zeros, zero where a pixel is missing. y = (conv2d(x * mask) * KH KW / (taps that meet ones) + bias) or, without such taps, 0.
    """
    check_groups(o, groups)
    sizes = [o.window_size(l, k, s, d, p) for l, k, s, d, p in zip((o.H, o.W), (o.KH, o.KW), stride, dilation, padding)]
    n, oc, (p, q) = output_axes(o, 2, sizes, "O")
    x, mask = o.input("x", "N C H W"), o.input("mask", "N", 1, "H", "W", values=either(0.75))
    ch, h, w, r, s = o.axis("ch", o.C), o.axis("h", o.H), o.axis("w", o.W), *o.window("KH KW")
    at = (p * stride[0] + r * dilation[0], q * stride[1] + s * dilation[1])
    seen = o.stage(x[n, ch, h, w] * mask[n, 0, h, w], (n, ch, h, w), name="seen").padded(padding)
    met = o.stage(o.sum(mask.padded(padding)[(n, 0, *at)], (r, s), name="met"), (n, p, q))
    ratio = o.stage(o.select(met[n, p, q] > 0.0, o.float(o.KH * o.KW) / o.maximum(met[n, p, q], 1.0), 0.0), (n, p, q), name="ratio")
    per_group = o.C // groups
    weight, c = o.param("weight", "O", per_group, "KH", "KW"), o.axis("c", per_group)
    value = o.sum(weight[oc, c, r, s] * seen[(n, oc // (o.O // groups) * per_group + c, *at)], (c, r, s)) * ratio[n, p, q]
    if o.has("bias"):
        value = value + o.select(ratio[n, p, q] > 0.0, 1.0, 0.0) * o.param("bias", "O")[oc]
    return value


@operator(dims="N C O H W KH KW", cite="arXiv:1609.05158", baseline=torch_forms.conv2d_pixel_shuffle, optional="bias_conv",
          workloads=["n1,c32,o1,h360,w640,k3x3;padding=1,upscale=3:f32.f32.f32:nchw:bias_conv", "n1,c48,o3,h180,w320,k3x3;padding=1,upscale=4:f32.f32.f32:nchw:bias_conv",
                     "n1,c64,o64,h128,w128,k3x3;padding=1:f32.f32.f32:nhwc:bias_conv"])
def conv2d_pixel_shuffle(o, *, stride=ints(2), padding=pads(2), dilation=ints(2), groups=integer(), upscale=integer(2)):
    """Sub-pixel convolution (ESPCN): a convolution to O*upscale^2 channels, then torch.nn.functional.pixel_shuffle.

    weight [O*upscale^2, C/groups, KH, KW], bias_conv [O*upscale^2] belongs to the convolution; bias, residual and activation follow the shuffle.
    """
    phases = upscale * upscale
    t = o.stage(conv2d(o, O=o.O * phases, stride=stride, padding=padding, dilation=dilation, groups=groups), name="phases")
    o.out("P", t.sizes[2] * upscale), o.out("Q", t.sizes[3] * upscale)
    n, c, p, q = o.axes("N O P Q")
    channel = c * phases + p % upscale * upscale + q % upscale
    value = t[n, channel, p // upscale, q // upscale]
    return value + o.param("bias_conv", o.O * phases, values=normal(0, 0.1))[channel] if o.has("bias_conv") else value
