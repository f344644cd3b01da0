"""Inputs for a program: realistic values, exact small integers, and their conversion to torch.

What realistic means is stated where a tensor is declared (`values=normal(0, 2)`), as data, so that worker processes which hold only the
description draw the same numbers.
"""

from __future__ import annotations

import math
import zlib

import numpy as np

from ..errors import ArgumentError
from .size import value_of


_RANGES = {"int8": (-127, 127), "uint8": (0, 255)}


def normal(mean: float = 0.0, deviation: float = 1.0) -> dict:
    """Normal values."""
    return {"kind": "normal", "mean": float(mean), "deviation": float(deviation)}


def uniform(low: float, high: float) -> dict:
    """Uniform values in [low, high)."""
    return {"kind": "uniform", "low": float(low), "high": float(high)}


def either(ones: float) -> dict:
    """Zeros and ones, of which the share `ones` is one."""
    return {"kind": "either", "ones": float(ones)}


def whole(low: int, high: int) -> dict:
    """Integers from low to high, both included, all alike."""
    return {"kind": "whole", "low": int(low), "high": int(high)}


def rows(*each: dict) -> dict:
    """Another distribution for every index of the first dimension (the scale, shift, mean and variance of a batch norm)."""
    return {"kind": "rows", "rows": list(each)}


BATCH_NORM = rows(uniform(0.5, 1.5), normal(0, 0.1), normal(0, 0.1), uniform(0.5, 1.5))  # scale, shift, mean, variance after training


def _draw(values, shape, rng):
    if values["kind"] == "rows":
        return np.stack([_draw(v, shape[1:], rng) for v in values["rows"]])
    if values["kind"] == "whole":
        return rng.integers(values["low"], values["high"] + 1, shape)
    if values["kind"] == "uniform":
        return rng.uniform(values["low"], values["high"], shape)
    if values["kind"] == "either":
        return rng.random(shape) < values["ones"]
    return values["mean"] + values["deviation"] * rng.standard_normal(shape, dtype=np.float32)


def _rng(seed, name):
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def _fan(program, name) -> int:
    """How many terms of this parameter, or of what it is made into, meet in one element of the stage that sums them."""
    for s in program.stages:
        for e in s.body.loads():
            if e.data[0] == name and s.reduce:
                used = {a for i in e.args for a in i.axes()}
                return max(1, math.prod(value_of(a.size) for a in s.reduce if a.name in used))
            if e.data[0] == name and s in program.bind_stages:
                return _fan(program, s.name)
    return 1


def usual_values(program, t) -> dict:
    """What a tensor realistically holds: as declared, else integers of the whole range, inputs standard normal and parameters normal with variance 1/terms."""
    if t.values:
        return t.values
    return whole(*_RANGES[t.dtype]) if t.dtype in _RANGES else normal(0, 1 / math.sqrt(_fan(program, t.name)) if t.kind == "param" else 1)


def realistic(program, seed=0) -> dict:
    """Float32 arrays by tensor name, of `usual_values`."""
    return {t.name: np.asarray(_draw(usual_values(program, t), tuple(t.shape), _rng(seed, t.name)), np.float32) for t in program.tensors}


def _few_integers(seed):
    """Draws an input of -4 to 4 or a parameter of -2 to 2 without zeros, of which the share `density` is kept."""
    def draw(tensor, density):
        rng = _rng(seed, tensor.name)
        v = rng.integers(1, (4 if tensor.kind == "input" else 2) + 1, tensor.shape) * rng.choice([-1, 1], tensor.shape)
        return np.where(rng.random(tensor.shape) < density, v, 0).astype(np.float32)
    return draw


def integers(program, seed=0, limit=2**24, draw=None) -> dict:
    """Values (as float32) with one right result, bit by bit: small integers for which every partial sum, in any order, is exact below `limit`.

    Where the program's own tensors are integers, realistic values already are such. Else values are in [-4, 4] for inputs and [-2, 2] for parameters; density falls until the magnitude of the result is below the limit.
    `draw(tensor, density)` draws them (default: by numpy from the seed).
    Raises ArgumentError if the program's arithmetic leaves the integers, or its constants alone exceed the limit.
    """
    from .carry import Magnitude, most
    from .oracle import evaluate
    if not program.exact:
        raise ArgumentError(f"{program.operator}: its arithmetic does not keep integers, so there is no exact sample")
    if program.integral:
        return realistic(program, seed)
    draw, density = draw or _few_integers(seed), 1.0
    while True:
        out = {t.name: draw(t, density) for t in program.tensors}
        if most(program, out) < limit:
            return out
        largest = float(np.max(evaluate(program, out, Magnitude())[1]))
        if largest < limit:
            return out
        if density == 0.0:
            raise ArgumentError(f"{program.operator}: its constants alone give {largest:g}, and integers are exact below {limit:g}")
        density *= max(0.1, min(0.7, limit / largest))
        density = density if density > 1e-9 else 0.0


def to_torch(program, arrays) -> dict:
    """Torch tensors in each tensor's dtype and this program's layout; the arrays themselves where torch is not installed."""
    try:
        import torch
    except ImportError:
        return arrays
    out = {}
    for t in program.tensors:
        v = torch.empty(t.shape, dtype=getattr(torch, t.dtype))  # torch aligns its memory for vectors, numpy does not
        v.copy_(torch.from_numpy(np.ascontiguousarray(arrays[t.name])))
        out[t.name] = in_layout(v, t.permutation(program.layout))
    return out


def in_layout(v, permutation):
    """A tensor of the same logical shape whose memory order is `permutation`, with canonical strides."""
    if tuple(permutation) == tuple(range(v.ndim)):
        return v.contiguous()
    if v.ndim in (4, 5) and tuple(permutation) == (0, *range(2, v.ndim), 1):
        import torch
        return v.contiguous(memory_format=torch.channels_last if v.ndim == 4 else torch.channels_last_3d)
    back = [tuple(permutation).index(d) for d in range(v.ndim)]
    return v.permute(*permutation).contiguous().permute(*back)


def to_numpy(v):
    """A numpy array of a torch or numpy tensor (bfloat16 widened to float32; float64 stays)."""
    if hasattr(v, "detach"):
        import torch
        v = v.detach().cpu()
        return (v.float() if v.dtype in (torch.bfloat16, torch.float16) else v).numpy()
    return np.asarray(v)
