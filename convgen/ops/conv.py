"""Ordinary convolutions: conv1d/2d/3d and their transposes. Source: torch.nn.functional and torch.nn documentation."""

from __future__ import annotations

from ..lang import choice, integer, ints, operator, pads
from . import plain, torch_forms

MODES = ("zeros", "reflect", "replicate", "circular")
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


def _direct(rank):
    return "x weight bias stride padding dilation groups"


@operator(dims="N C O L K", cite="torch.nn.functional.conv1d", baseline=torch_forms.conv, convolution=plain.convolution, positional=_direct(1),
          workloads=["n16,c512,o512,l1024,k3;padding=1:f32.f32.f32:ncl", "n16,c512,o512,l1024,k3;padding=4,dilation=4:f32.f32.f32:ncl", "n1,c64,o64,l1024,k5;padding=2:f32.f32.f32:nlc"])
def conv1d(o, *, stride=ints(1), padding=pads(1), dilation=ints(1), groups=integer(), padding_mode=choice(*MODES)):
    """1-D convolution (cross-correlation), as torch.nn.functional.conv1d."""
    return convolve(o, 1, stride, padding, dilation, groups, padding_mode)


@operator(dims="N C O H W KH KW", cite="torch.nn.functional.conv2d", baseline=torch_forms.conv, convolution=plain.convolution, positional=_direct(2),
          workloads=["n1,c64,o64,h56,w56,k3x3;padding=1:f32.f32.f32:nchw", "n1,c128,o128,h28,w28,k3x3;padding=1:f32.f32.f32:nchw",
                     "n1,c256,o256,h14,w14,k3x3;padding=1:f32.f32.f32:nchw", "n1,c512,o512,h7,w7,k3x3;padding=1:f32.f32.f32:nchw",
                     "n1,c64,o256,h56,w56,k1x1:f32.f32.f32:nchw", "n1,c3,o64,h224,w224,k7x7;stride=2,padding=3:f32.f32.f32:nchw"])
def conv2d(o, *, stride=ints(2), padding=pads(2), dilation=ints(2), groups=integer(), padding_mode=choice(*MODES)):
    """2-D convolution (cross-correlation), as torch.nn.functional.conv2d."""
    return convolve(o, 2, stride, padding, dilation, groups, padding_mode)


@operator(dims="N C O D H W KD KH KW", cite="torch.nn.functional.conv3d", baseline=torch_forms.conv, convolution=plain.convolution, positional=_direct(3),
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
