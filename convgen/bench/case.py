"""What one contestant is given: a workload, its tensors with canonical strides, threads, and a scratch folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

import numpy as np

from ..errors import ArgumentError
from ..lang.epilogue import EPS


class NotOffered(Exception):
    """Why a contestant does not take part in a race: one clause."""


@dataclass
class Case:
    """One workload as every contestant meets it. `tensors` are torch tensors with logical shapes in the workload's layout."""

    workload: Any
    tensors: dict
    threads: int
    folder: Path

    @property
    def inputs(self) -> dict:
        """The tensors that change per call, in the operator's order."""
        return {t.name: self.tensors[t.name] for t in self.workload.program.tensors if t.kind == "input"}

    @property
    def parameters(self) -> dict:
        """The tensors that are constant at inference."""
        return {t.name: self.tensors[t.name] for t in self.workload.program.tensors if t.kind == "param"}

    def convolution(self) -> dict:
        """The ordinary convolution that the workload is, with its parameters (see `Operator.convolution`). Raises NotOffered."""
        declared = self.workload.op.convolution
        parameters = self.parameters
        bn = parameters.pop("bn", None) if self.workload.flags.get("bn") else None
        found = declared(self.workload, **parameters) if declared else None
        if found is None:
            raise NotOffered("it is no ordinary convolution")
        return found if bn is None else _folded(found, bn)


def _folded(found: dict, bn) -> dict:
    """A convolution with the batch norm in its weight and bias, as deployed models have it."""
    scale, shift, mean, variance = bn
    gain = scale / (variance + EPS).sqrt()
    weight, groups = found["weight"], found["groups"]
    if found["transposed"]:  # [C, O/groups, ...]
        weight = weight.unflatten(0, (groups, -1)) * gain.reshape(groups, 1, -1, *[1] * (weight.ndim - 2))
        weight = weight.flatten(0, 1)
    else:
        weight = weight * gain.reshape(-1, *[1] * (weight.ndim - 1))
    centre = mean if found["bias"] is None else mean - found["bias"]
    return {**found, "weight": weight, "bias": shift - centre * gain}


@dataclass
class Ready:
    """A contestant ready to be timed.

    call() computes once; `result(value)` turns what it returned into a numpy array of the logical output (None: what it computes is only a part, and is not compared). output: "fresh" if every call allocates
    its output, as PyTorch does, "own" where the library keeps one. facts: anything worth keeping beside the times.
    """

    call: Callable[[], Any]
    result: Callable[[Any], np.ndarray] | None
    output: str = "fresh"
    columns: dict = field(default_factory=dict)


def make(workload, threads: int, folder, seed: int = 0) -> Case:
    """The case of a workload: realistic tensors, each with the strides that a contiguous tensor of its format has."""
    tensors = workload.sample(seed)
    for t in workload.program.tensors:
        tensors[t.name] = canonical(tensors[t.name], t.permutation(workload.layout))
    return Case(workload, tensors, threads, Path(folder))


def canonical(v, permutation):
    """The same values with compact strides in the memory order `permutation`, also where a size is 1.

    PyTorch picks its algorithm by strides, so a channels_last tensor made by permuting is up to 21 times slower than one made as such.
    """
    import torch
    strides, step = [0] * v.ndim, 1
    for d in reversed(tuple(permutation)):
        strides[d], step = step, step * v.shape[d]
    out = torch.empty_strided(v.shape, strides, dtype=v.dtype)
    out.copy_(v)
    if out.stride() != tuple(strides) or out.storage_offset():
        raise ArgumentError(f"a tensor of shape {tuple(v.shape)} has strides {out.stride()} instead of {tuple(strides)}")
    return out
