"""PyTorch formulations of the quantised convolutions, on integer tensors.

What torch.compile makes of a quantised model (torch.ops.onednn.qconv2d_pointwise): weights packed once, integer tensors in and out.
"""

from __future__ import annotations

from ..lang import Prepared


def _zero(x_zero_point):
    return int(x_zero_point.reshape(-1)[0])


def _padded(x, padding, zero):
    """x continued by its zero point."""
    import torch.nn.functional as F
    flat = [p for pair in reversed(padding) for p in pair]
    return F.pad(x, flat, value=zero) if any(flat) else x


def _sums(w, groups, x, weight, x_zero_point):
    import torch.nn.functional as F
    a, zero = w.attributes, _zero(x_zero_point)
    return F.conv2d(_padded(x, a["padding"], zero).double() - zero, weight.double(), None, a["stride"], 0, a["dilation"], groups)


def _onednn(groups_of):
    def prepare(w, x, weight, x_zero_point, x_scale=None, weight_scale=None, y_scale=None, y_zero_point=None, bias=None):
        import torch
        a, shape, uneven = w.attributes, list(x.shape), any(lo != hi for lo, hi in w.attributes["padding"])
        if w.out_dtype == "int32":
            return {"x": x, "weight": weight, "x_zero_point": x_zero_point}
        scales = float(x_scale), _zero(x_zero_point)
        pad = [0, 0] if uneven else [lo for lo, _ in a["padding"]]
        if uneven:
            shape[2:] = [n + lo + hi for n, (lo, hi) in zip(shape[2:], a["padding"])]
        packed = torch.ops.onednn.qconv_prepack(weight.contiguous(), weight_scale, *scales, a["stride"], pad, a["dilation"], groups_of(w), shape)
        return {"x": x, "packed": packed, "scales": scales, "weight_scale": weight_scale, "zeros": torch.zeros(weight_scale.shape, dtype=torch.int32), "bias": bias,
                "pad": pad, "to": (float(y_scale), _zero(y_zero_point)) if y_scale is not None else (1.0, 0), "groups": groups_of(w)}

    def run(w, x, packed=None, scales=None, weight_scale=None, zeros=None, bias=None, pad=None, to=None, groups=1, weight=None, x_zero_point=None):
        import torch
        a = w.attributes
        if packed is None:  # oneDNN's operators give no sums
            total = _sums(w, groups_of(w), x, weight, x_zero_point).to(torch.int32)
            return total.clamp(min=0) if a["relu"] else total
        if pad != [lo for lo, _ in a["padding"]] or any(lo != hi for lo, hi in a["padding"]):
            x = _padded(x, a["padding"], scales[1])
        return torch.ops.onednn.qconv2d_pointwise(x, *scales, packed, weight_scale, zeros, bias, a["stride"], pad, a["dilation"], groups, *to,
                                                  getattr(torch, w.out_dtype), "relu" if a["relu"] else "none", [], "")
    return Prepared(prepare, run)


CONVOLUTION = {"onednn": _onednn(lambda w: w.attributes["groups"])}
DEPTHWISE = {"onednn": _onednn(lambda w: w.dims["C"])}
