"""Inputs for a program: realistic values, exact small integers, and their conversion to torch."""

from __future__ import annotations

import math
import zlib

import numpy as np

from .size import value_of


def _rng(seed, name):
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def _fan(program, name) -> int:
    """How many terms of this parameter meet in one output element of the stage that reads it."""
    for s in program.stages:
        for e in s.body.loads():
            if e.data[0] == name and s.reduce:
                used = {a for i in e.args for a in i.axes()}
                return max(1, math.prod(value_of(a.size) for a in s.reduce if a.name in used))
    return 1


def realistic(program, seed=0, sampler=None, workload=None) -> dict:
    """Float32 arrays by tensor name: inputs standard normal, parameters normal with variance 1/terms; `sampler(w, rng)` overrides by name."""
    given = sampler(workload, np.random.default_rng(seed)) if sampler and workload is not None else {}
    out = {}
    for t in program.tensors:
        if t.name in given:
            out[t.name] = np.asarray(given[t.name], np.float32).reshape(t.shape)
            continue
        v = _rng(seed, t.name).standard_normal(t.shape, dtype=np.float32)
        out[t.name] = v / np.float32(math.sqrt(_fan(program, t.name))) if t.kind == "param" else v
    return out


def integers(program, seed=0, limit=2**24) -> dict:
    """Small integers (as float32) for which every partial sum is an exact integer below `limit`.

    Values are in [-4, 4] for inputs and [-2, 2] for parameters; density falls until the float64 magnitude bound is below the limit.
    """
    density = 1.0
    for _ in range(12):
        out = {}
        for t in program.tensors:
            rng = _rng(seed, t.name)
            top = 4 if t.kind == "input" else 2
            v = rng.integers(1, top + 1, t.shape) * rng.choice([-1, 1], t.shape)
            out[t.name] = np.where(rng.random(t.shape) < density, v, 0).astype(np.float32)
        _, bound, _ = program.reference_with_bound(out)
        largest = float(np.max(bound)) if bound.size else 0.0
        if largest < limit:
            return out
        density *= max(0.1, min(0.7, limit / largest))
    return out


def to_torch(program, arrays) -> dict:
    """Torch tensors in each tensor's dtype and this program's layout; the arrays themselves where torch is not installed."""
    try:
        import torch
    except ImportError:
        return arrays
    out = {}
    for t in program.tensors:
        v = torch.from_numpy(np.ascontiguousarray(arrays[t.name])).to(getattr(torch, t.dtype))
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
    """A float array of a torch or numpy tensor (bfloat16 widened)."""
    if hasattr(v, "detach"):
        v = v.detach()
        return (v.float() if v.is_floating_point() else v).cpu().numpy()
    return np.asarray(v)
