"""Which operators are ordinary convolutions, and of what: so that libraries that only know those can be raced against ours.

Each is f(w, **parameters) -> dict or None if that workload is none: "weight" (torch, in PyTorch's order), "bias" (or None), "stride", "padding"
(pairs), "dilation", "groups", "transposed", "output_padding" (transposed only).
"""

from __future__ import annotations


def _facts(w, weight, bias, groups, **more):
    a = w.attributes
    if a.get("padding_mode", "zeros") != "zeros":
        return None
    return {"weight": weight, "bias": bias, "stride": a["stride"], "padding": a["padding"], "dilation": a["dilation"], "groups": groups,
            "transposed": False, **more}


def convolution(w, weight, bias=None):
    return _facts(w, weight, bias, w.attributes["groups"])


def transposed(w, weight, bias=None):
    return _facts(w, weight, bias, w.attributes["groups"], transposed=True, output_padding=w.attributes["output_padding"])


def depthwise(w, weight, bias=None):
    return _facts(w, weight, bias, w.dims["C"])


def merged_branches(w, bias=None, **parameters):
    """The deployed form of the re-parameterised block."""
    from .torch_forms import REPARAM_MERGED
    merged = REPARAM_MERGED.prepare(w, x=None, **parameters)
    k = w.dims["KH"]
    return {"weight": merged["weight"], "bias": merged["bias"] if bias is None else merged["bias"] + bias, "stride": (1, 1), "padding": ((k // 2, k // 2),) * 2,
            "dilation": (1, 1), "groups": w.dims["C"], "transposed": False}
