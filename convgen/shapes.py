"""Random small workloads of any operator: odd sizes, windows larger than the image, one batch, channels of no multiple."""

from __future__ import annotations

from typing import Any

import numpy as np

from .errors import ArgumentError
from .lang.workload import flag_names

_SIZES = {"batch": (1, 1, 2, 3), "channels": (1, 2, 3, 4, 6, 8, 16, 17, 32), "positions": (1, 2, 3, 5, 7, 8, 9, 12, 14, 17), "window": (1, 2, 3, 3, 5, 7), "other": (1, 2, 3, 4)}
_KIND = {"N": "batch", "C": "channels", "O": "channels", "D": "positions", "H": "positions", "W": "positions", "L": "positions"}
_ATTEMPTS = 500


def small(op, seed: int, **fixed: Any):
    """A small valid Workload of `op`, the same for the same seed; `fixed` dims, attributes or flags are kept as given.

    Raises ArgumentError, with what the last attempt was refused for, if none of many attempts is valid.
    """
    rng = np.random.default_rng(seed)
    for _ in range(_ATTEMPTS):
        try:
            return op(**{**_draw(op, rng), **fixed})
        except ArgumentError as error:
            refusal = error
    raise ArgumentError(f"{op.name}: no valid small shape found in {_ATTEMPTS} attempts; the last was refused because: {refusal}")


def _draw(op, rng) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for dim in op.dims:
        kind = "window" if dim in op.window_dims() else _KIND.get(dim, "other")
        values[dim] = int(rng.choice(_SIZES[kind]))
    for name, spec in op.attributes.items():
        if rng.random() < 0.5:  # else the default: independent draws of everything are rarely valid
            values[name] = _attribute(spec, rng)
    values |= {flag: True for flag in flag_names(op) if flag != "any_batch" and rng.random() < 0.3}
    values["layout"] = str(rng.choice(["channels_first", "channels_last"]))
    return values


def _attribute(spec: dict, rng):
    kind = spec["type"]
    if kind == "ints":
        low = spec.get("minimum", 1)
        return tuple(int(v) for v in rng.integers(low, low + 3, spec["rank"]))
    if kind == "pads":
        return tuple((int(a), int(b)) for a, b in rng.integers(0, 4, (spec["rank"], 2)))
    if kind == "int":
        return int(rng.integers(spec.get("minimum", 1), 5))
    if kind == "bool":
        return bool(rng.integers(2))
    if kind == "str" and spec.get("choices"):
        return spec["choices"][rng.integers(len(spec["choices"]))]
    return spec["default"]
