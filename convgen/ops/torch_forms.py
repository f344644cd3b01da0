"""Independent PyTorch formulations: what people run today, and what the descriptions are checked against.

Each is f(w, **tensors) -> tensor for a workload w, without the epilogue that flags add, and keeps the dtype of its tensors.
"""

from __future__ import annotations

from ..lang import Prepared


def _padded(x, padding, mode):
    """(x, padding left for the convolution): symmetric zeros go to the convolution, anything else through F.pad."""
    import torch.nn.functional as F
    if mode == "zeros" and all(lo == hi for lo, hi in padding):
        return x, tuple(lo for lo, _ in padding)
    flat = [p for pair in reversed(padding) for p in pair]
    y = F.pad(x, flat) if mode == "zeros" else F.pad(x, flat, mode=mode)
    return y, (0,) * len(padding)


def _conv(rank):
    import torch.nn.functional as F
    return (F.conv1d, F.conv2d, F.conv3d)[rank - 1]


def conv(w, x, weight):
    a = w.attributes
    x, pad = _padded(x, a["padding"], a["padding_mode"])
    return _conv(x.ndim - 2)(x, weight, None, a["stride"], pad, a["dilation"], a["groups"])


def _conv_once(w, x, weight):
    """A zero-padded convolution with the workload's attributes, in groups as the weight has."""
    a = w.attributes
    x, pad = _padded(x, a["padding"], "zeros")
    return _conv(2)(x, weight, None, a["stride"], pad, a["dilation"], x.shape[1] // weight.shape[1])


def _share(w, x, weight):
    """KH KW over the taps that meet the image, from a convolution of ones: what a layer keeps while the input's size does not change."""
    import torch
    kernel = weight.shape[2:]
    met = _conv_once(w, torch.ones_like(x[:1, :1]), torch.ones_like(weight[:1, :1]))
    return {"x": x, "weight": weight, "ratio": kernel.numel() / met.clamp(min=1)}


PARTIAL_PADDING = Prepared(_share, lambda w, x, weight, ratio: _conv_once(w, x, weight) * ratio)


def partial_conv2d(w, x, mask, weight, bias=None):
    """The authors' layer: the mask's own convolution, a ratio, and a second mask for windows without a pixel."""
    import torch
    met = _conv_once(w, mask, torch.ones_like(weight[:1, :1]))
    seen = met.clamp(0, 1)
    y = _conv_once(w, x * mask, weight) * (weight.shape[2:].numel() / met.clamp(min=1) * seen)
    return y if bias is None else (y + bias.reshape(-1, 1, 1)) * seen


def conv2d_pixel_shuffle(w, x, weight, bias_conv=None):
    import torch.nn.functional as F
    a = w.attributes
    x, pad = _padded(x, a["padding"], "zeros")
    return F.pixel_shuffle(F.conv2d(x, weight, bias_conv, a["stride"], pad, a["dilation"], a["groups"]), a["upscale"])


def conv_transpose(w, x, weight):
    import torch.nn.functional as F
    a = w.attributes
    f = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[x.ndim - 3]
    if all(lo == hi for lo, hi in a["padding"]):
        return f(x, weight, None, a["stride"], tuple(lo for lo, _ in a["padding"]), a["output_padding"], a["groups"], a["dilation"])
    low = tuple(min(lo, hi) for lo, hi in a["padding"])
    y = f(x, weight, None, a["stride"], low, a["output_padding"], a["groups"], a["dilation"])
    for d, ((lo, hi), m) in enumerate(zip(a["padding"], low), 2):  # asymmetric padding is a crop of the result
        y = y.narrow(d, lo - m, y.shape[d] - (lo - m) - (hi - m))
    return y


def depthwise_conv1d(w, x, weight):
    a = w.attributes
    x, pad = _padded(x, a["padding"], a["padding_mode"])
    return _conv(1)(x, weight, None, a["stride"], pad, a["dilation"], x.shape[1])


def _spectrum(w, x, weight):
    """The kernels' spectrum at the next power of two over padded sequence and taps, so that nothing wraps around."""
    import torch
    import torch.nn.functional as F
    a = w.attributes
    d, (lo, hi) = a["dilation"][0], a["padding"][0]
    wide = weight.squeeze(1)
    if d > 1:
        wide = F.pad(wide.unsqueeze(-1), (0, d - 1)).flatten(1)[:, :d * (weight.shape[2] - 1) + 1]
    points = 1 << (w.dims["L"] + lo + hi - 1).bit_length()
    return {"x": x, "spectrum": torch.fft.rfft(wide.to(torch.promote_types(wide.dtype, torch.float32)), points).conj(), "points": points, "reach": wide.shape[1]}


def _by_spectrum(w, x, spectrum, points, reach):
    """The whole sequence's transform times the kernels', and back: what long-convolution models run."""
    import torch
    import torch.nn.functional as F
    a, m = w.attributes, w.dims["M"]
    padded = F.pad(x, a["padding"][0], mode="constant" if a["padding_mode"] == "zeros" else a["padding_mode"])
    data = torch.fft.rfft(padded.to(torch.promote_types(x.dtype, torch.float32)), points)
    data = data if m == 1 else data.repeat_interleave(m, 1)
    return torch.fft.irfft(data * spectrum, points)[..., :padded.shape[-1] - reach + 1:a["stride"][0]].to(x.dtype)


DEPTHWISE_CONV1D_RFFT = Prepared(_spectrum, _by_spectrum)


def depthwise_conv2d(w, x, weight):
    a = w.attributes
    x, pad = _padded(x, a["padding"], a["padding_mode"])
    return _conv(2)(x, weight, None, a["stride"], pad, a["dilation"], x.shape[1])


def inception(w, x, weight_hw, weight_w, weight_h, bias_hw=None, bias_w=None, bias_h=None):
    import torch
    import torch.nn.functional as F
    g = w.dims["GC"]
    same, hw, band_w, band_h = torch.split(x, (x.shape[1] - 3 * g, g, g, g), dim=1)
    pad = lambda k: (k.shape[2] // 2, k.shape[3] // 2)
    return torch.cat([same, *(F.conv2d(t, k, b, padding=pad(k), groups=g)
                              for t, k, b in ((hw, weight_hw, bias_hw), (band_w, weight_w, bias_w), (band_h, weight_h, bias_h)))], 1)


def dilated_reparam(w, x, **p):
    """The training-time form: every branch a convolution and a batch norm, then added."""
    import torch.nn.functional as F
    from .depthwise import DILATED_BRANCHES
    total, big = None, w.dims["KH"]
    for i, (k, d) in enumerate([(big, 1), *DILATED_BRANCHES[big]]):
        scale, shift, mean, var = p[f"bn{i or ''}"]
        y = F.conv2d(x, p[f"weight{i or ''}"], padding=d * (k - 1) // 2, dilation=d, groups=x.shape[1])
        y = F.batch_norm(y, mean, var, scale, shift, eps=w.attributes["eps"])
        total = y if total is None else total + y
    return total


def _merge(w, x, **p):
    """What a deployed model holds: one kernel and one bias. Source: merge_dilated_branches of UniRepLKNet."""
    import torch
    import torch.nn.functional as F
    from .depthwise import DILATED_BRANCHES
    kernel, bias, big = 0, 0, w.dims["KH"]
    for i, (k, d) in enumerate([(big, 1), *DILATED_BRANCHES[big]]):
        scale, shift, mean, var = p[f"bn{i or ''}"]
        gain = scale / torch.sqrt(var + w.attributes["eps"])
        stuffed = F.conv_transpose2d(p[f"weight{i or ''}"], torch.ones_like(scale[:1]).reshape(1, 1, 1, 1), stride=d)
        kernel = kernel + F.pad(stuffed * gain.reshape(-1, 1, 1, 1), [(big - stuffed.shape[-1]) // 2] * 4)
        bias = bias + shift - mean * gain
    return {"x": x, "weight": kernel, "bias": bias}


def _merged(w, x, weight, bias):
    import torch.nn.functional as F
    return F.conv2d(x, weight, bias, padding=w.dims["KH"] // 2, groups=x.shape[1])


REPARAM_MERGED = Prepared(_merge, _merged)


def separable_block2d(w, x, weight_dw, weight_pw):
    import torch.nn.functional as F
    a = w.attributes
    x, pad = _padded(x, a["padding"], "zeros")
    return F.conv2d(F.conv2d(x, weight_dw, None, a["stride"], pad, a["dilation"], x.shape[1]), weight_pw)


def condconv2d(w, x, weight, routing):
    """One grouped convolution over all samples, on kernels mixed by a matrix product."""
    import torch
    a, (n, c) = w.attributes, x.shape[:2]
    mixed = torch.matmul(routing, weight.flatten(1)).reshape(-1, *weight.shape[2:])
    x, pad = _padded(x, a["padding"], "zeros")
    y = _conv(2)(x.reshape(1, n * c, *x.shape[2:]), mixed, None, a["stride"], pad, a["dilation"], n * a["groups"])
    return y.reshape(n, -1, *y.shape[2:])


def _unfolded(w, x, taps):
    """The inputs that every output pixel meets: [N, C, KH, KW, P, Q]. `taps`: (KH, KW, P, Q)."""
    import torch.nn.functional as F
    a = w.attributes
    x, pad = _padded(x, a["padding"], "zeros")
    return F.unfold(x, taps[:2], dilation=a["dilation"], padding=pad, stride=a["stride"]).reshape(*x.shape[:2], *taps)


def _shifted(w, x, taps):
    """(r, s, view): per tap, the input that every output pixel meets, as a view of the padded image [N, C, P, Q]."""
    import torch.nn.functional as F
    a, (kh, kw, p, q) = w.attributes, taps
    (sh, sw), (dh, dw) = a["stride"], a["dilation"]
    x = F.pad(x, [v for pair in reversed(a["padding"]) for v in pair])
    for r in range(kh):
        for s in range(kw):
            yield r, s, x[..., r * dh:r * dh + (p - 1) * sh + 1:sh, s * dw:s * dw + (q - 1) * sw + 1:sw]


def involution2d(w, x, weight):
    """unfold, multiply, sum: the authors' form."""
    n, g, *taps = weight.shape
    u = _unfolded(w, x, taps).reshape(n, g, -1, *taps)
    return (weight.unsqueeze(2) * u).sum((3, 4)).reshape(n, -1, *taps[2:])


def involution2d_shifted(w, x, weight):
    """One multiply and add per tap, on shifted views of the padded image."""
    n, g, _, _, p, q = weight.shape
    y = 0
    for r, s, view in _shifted(w, x, weight.shape[2:]):
        y = y + view.unflatten(1, (g, -1)) * weight[:, :, r, s].unsqueeze(2)
    return y.reshape(n, -1, p, q)


def ska2d(w, x, weight):
    """unfold, multiply, sum: channel c takes the kernel c mod G."""
    n, g, *taps = weight.shape
    u = _unfolded(w, x, taps).reshape(n, -1, g, *taps)
    return (weight.unsqueeze(1) * u).sum((3, 4)).reshape(n, -1, *taps[2:])


def ska2d_shifted(w, x, weight):
    """One multiply and add per tap, on shifted views of the padded image."""
    n, g, _, _, p, q = weight.shape
    y = 0
    for r, s, view in _shifted(w, x, weight.shape[2:]):
        y = y + view.unflatten(1, (-1, g)) * weight[:, None, :, r, s]
    return y.reshape(n, -1, p, q)


def tvconv2d(w, x, weight):
    """unfold, multiply, sum: the authors' form for training."""
    return (weight * _unfolded(w, x, weight.shape[1:])).sum((2, 3))


def tvconv2d_shifted(w, x, weight):
    """One multiply and add per tap, on shifted views of the padded image."""
    y = 0
    for r, s, view in _shifted(w, x, weight.shape[1:]):
        y = y + view * weight[:, r, s]
    return y


def _taps(w, weight):
    """(normalised taps, how many positions before the present one they reach)."""
    k = weight.shape[2]
    return weight.softmax(2) if w.attributes["softmax"] else weight, k - 1 if w.attributes["alignment"] == "causal" else k // 2


def dynamic_conv1d_band(w, x, weight):
    """A banded matrix over the whole sequence per head, then a batched matrix product: fairseq's choice up to 512 steps."""
    (n, c, length), (heads, k) = x.shape, weight.shape[1:3]
    taps, before = _taps(w, weight)
    band = x.new_zeros(n * heads, length, length + k - 1)
    band.as_strided((n * heads, length, k), (length * (length + k - 1), length + k, 1)).copy_(taps.reshape(n * heads, k, length).transpose(1, 2))
    return (band[:, :, before:before + length] @ x.reshape(n * heads, c // heads, length).transpose(1, 2)).transpose(1, 2).reshape(n, c, length)


def dynamic_conv1d(w, x, weight):
    """unfold along the sequence, softmax over taps, multiply, sum."""
    import torch.nn.functional as F
    (n, c, length), (heads, k) = x.shape, weight.shape[1:3]
    taps, before = _taps(w, weight)
    u = F.pad(x, (before, k - 1 - before)).unfold(2, k, 1).reshape(n, heads, c // heads, length, k)
    return (u * taps.permute(0, 1, 3, 2).unsqueeze(2)).sum(-1).reshape(n, c, length)


def deform_conv2d(w, x, offset, weight, mask=None):
    """grid_sample per tap and offset group, then a matrix product: the best formulation without torchvision."""
    import torch
    import torch.nn.functional as F
    a, (n, c, h, wd) = w.attributes, x.shape
    (o, _, kh, kw), (p, q), dg = weight.shape, offset.shape[2:], w.dims["DG"]
    wide = torch.promote_types(x.dtype, torch.float32)  # half precision has no room for coordinates
    offset = offset.to(wide).reshape(n, dg, kh * kw, 2, p, q)
    columns = []
    rows = torch.arange(p, dtype=wide) * a["stride"][0] - a["padding"][0][0]
    cols = torch.arange(q, dtype=wide) * a["stride"][1] - a["padding"][1][0]
    for g in range(dg):
        part = x[:, g * (c // dg):(g + 1) * (c // dg)].to(wide)
        taps = []
        for t in range(kh * kw):
            y = rows[:, None] + (t // kw) * a["dilation"][0] + offset[:, g, t, 0]
            z = cols[None] + (t % kw) * a["dilation"][1] + offset[:, g, t, 1]
            grid = torch.stack([(z * 2 + 1) / wd - 1, (y * 2 + 1) / h - 1], -1)
            v = F.grid_sample(part, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
            taps.append(v if mask is None else v * mask[:, g * kh * kw + t].unsqueeze(1))
        columns.append(torch.stack(taps, 2))
    groups = a["groups"]
    col = torch.cat(columns, 1).to(x.dtype).reshape(n, groups, c // groups * kh * kw, p * q)
    return torch.matmul(weight.reshape(groups, o // groups, -1), col).reshape(n, o, p, q)


def deform_conv2d_gather(w, x, offset, weight, mask=None):
    """Four gathers of whole pixels from channels-last memory, blended, then a matrix product."""
    import torch
    a, (n, c, h, wd) = w.attributes, x.shape
    (o, _, kh, kw), (p, q), dg, groups = weight.shape, offset.shape[2:], w.dims["DG"], a["groups"]
    wide = torch.promote_types(x.dtype, torch.float32)  # half precision has no room for coordinates
    offset = offset.to(wide).reshape(n, dg, kh, kw, 2, p, q)
    along = lambda count, d: torch.arange(count, dtype=wide) * d
    rows = (along(p, a["stride"][0]) - a["padding"][0][0])[:, None] + along(kh, a["dilation"][0])[:, None, None, None]
    cols = (along(q, a["stride"][1]) - a["padding"][1][0]) + along(kw, a["dilation"][1])[:, None, None]
    y, z = rows + offset[..., 0, :, :], cols + offset[..., 1, :, :]  # [N, DG, KH, KW, P, Q]
    pixels = x.permute(0, 2, 3, 1).reshape(n, h * wd, dg, c // dg).transpose(1, 2).reshape(n * dg, h * wd, c // dg)
    top, left = y.floor(), z.floor()
    value = 0
    for row, wy in ((top, 1 - (y - top)), (top + 1, y - top)):
        for col, wz in ((left, 1 - (z - left)), (left + 1, z - left)):
            weight_here = wy * wz * ((row >= 0) & (row < h) & (col >= 0) & (col < wd))
            if mask is not None:
                weight_here = weight_here * mask.reshape(n, dg, kh, kw, p, q)
            at = (row.clamp(0, h - 1).long() * wd + col.clamp(0, wd - 1).long()).reshape(n * dg, -1)
            value = value + torch.gather(pixels, 1, at.unsqueeze(-1).expand(-1, -1, c // dg)) * weight_here.reshape(n * dg, -1, 1)
    value = value.to(x.dtype).reshape(n, dg, kh * kw, p * q, c // dg).permute(0, 1, 4, 2, 3).reshape(n, groups, c // groups * kh * kw, p * q)
    return torch.matmul(weight.reshape(groups, o // groups, -1), value).reshape(n, o, p, q)
