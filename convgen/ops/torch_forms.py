"""Independent PyTorch formulations: what people run today, and what the descriptions are checked against."""

from __future__ import annotations

import numpy as np

_RANK = {3: 1, 4: 2, 5: 3}
_MODE = {"reflect": "reflect", "replicate": "replicate", "circular": "circular"}


def _padded(x, padding, mode):
    """(x, padding left for the convolution): symmetric zeros go to the convolution, anything else through F.pad."""
    import torch.nn.functional as F
    if mode == "zeros" and all(lo == hi for lo, hi in padding):
        return x, tuple(lo for lo, _ in padding)
    flat = [p for pair in reversed(padding) for p in pair]
    y = F.pad(x, flat) if mode == "zeros" else F.pad(x, flat, mode=_MODE[mode])
    return y, (0,) * len(padding)


def _conv(rank):
    import torch.nn.functional as F
    return (F.conv1d, F.conv2d, F.conv3d)[rank - 1]


def conv(w, x, weight):
    a = w.attributes
    x, pad = _padded(x, a["padding"], a["padding_mode"])
    return _conv(x.ndim - 2)(x, weight, None, a["stride"], pad, a["dilation"], a["groups"])


def conv_transpose(w, x, weight):
    import torch.nn.functional as F
    a = w.attributes
    f = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[x.ndim - 3]
    low = tuple(min(lo, hi) for lo, hi in a["padding"])
    y = f(x, weight, None, a["stride"], low, a["output_padding"], a["groups"], a["dilation"])
    for d, ((lo, hi), m) in enumerate(zip(a["padding"], low), 2):  # asymmetric padding is a crop of the result
        y = y.narrow(d, lo - m, y.shape[d] - (lo - m) - (hi - m))
    return y


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


def sample_routing(w, rng):
    return {"routing": 1 / (1 + np.exp(-rng.standard_normal((w.dims["N"], w.dims["E"]))))}


def involution2d(w, x, weight):
    """unfold, multiply, sum: the authors' form."""
    import torch.nn.functional as F
    a = w.attributes
    x, pad = _padded(x, a["padding"], "zeros")
    n, g, kh, kw, p, q = weight.shape
    u = F.unfold(x, (kh, kw), dilation=a["dilation"], padding=pad, stride=a["stride"]).reshape(n, g, x.shape[1] // g, kh, kw, p, q)
    return (weight.unsqueeze(2) * u).sum((3, 4)).reshape(n, x.shape[1], p, q)


def dynamic_conv1d(w, x, weight):
    """unfold along the sequence, softmax over taps, multiply, sum."""
    import torch.nn.functional as F
    n, c, length = x.shape
    heads, k = weight.shape[1], weight.shape[2]
    before = k - 1 if w.attributes["alignment"] == "causal" else k // 2
    taps = weight.softmax(2) if w.attributes["softmax"] else weight
    u = F.pad(x, (before, k - 1 - before)).unfold(2, k, 1).reshape(n, heads, c // heads, length, k)
    return (u * taps.permute(0, 1, 3, 2).unsqueeze(2)).sum(-1).reshape(n, c, length)


def deform_conv2d(w, x, offset, weight, mask=None):
    """grid_sample per tap and offset group, then a matrix product: the best formulation without torchvision."""
    import torch
    import torch.nn.functional as F
    a, (n, c, h, wd) = w.attributes, x.shape
    (o, _, kh, kw), (p, q), dg = weight.shape, offset.shape[2:], w.dims["DG"]
    offset = offset.reshape(n, dg, kh * kw, 2, p, q)
    columns = []
    rows = torch.arange(p, dtype=x.dtype) * a["stride"][0] - a["padding"][0][0]
    cols = torch.arange(q, dtype=x.dtype) * a["stride"][1] - a["padding"][1][0]
    for g in range(dg):
        part = x[:, g * (c // dg):(g + 1) * (c // dg)]
        taps = []
        for t in range(kh * kw):
            y = rows[:, None] + (t // kw) * a["dilation"][0] + offset[:, g, t, 0]
            z = cols[None] + (t % kw) * a["dilation"][1] + offset[:, g, t, 1]
            grid = torch.stack([(z * 2 + 1) / wd - 1, (y * 2 + 1) / h - 1], -1)
            v = F.grid_sample(part, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
            taps.append(v if mask is None else v * mask[:, g * kh * kw + t].unsqueeze(1))
        columns.append(torch.stack(taps, 2))
    groups = a["groups"]
    col = torch.cat(columns, 1).reshape(n, groups, c // groups * kh * kw, p * q)
    return torch.matmul(weight.reshape(groups, o // groups, -1), col).reshape(n, o, p, q)


def sample_offsets(w, rng):
    """Offsets of about two pixels, masks in (0, 1), as a trained layer gives."""
    return {t.name: rng.normal(0, 2, t.shape) if t.name == "offset" else rng.uniform(0, 1, t.shape) for t in w.program.tensors if t.name in ("offset", "mask")}
