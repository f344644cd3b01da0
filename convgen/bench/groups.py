"""The group that a workload counts to in reports: what kind of convolution it is, read from its description's structure.

No operator is known by name: what decides is which axes are positions of the output, which reduced axes move together with one in an index (windows),
and whether kernels depend on the position, on the call, or on neither.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..lang import access, expr as E
from ..lang.ranges import simplify

OTHER, FUSED = "other", "fused blocks"
GROUPS = ("dense 3x3, stride 1", "1x1 and strided", "few input channels", "grouped", "other dense",
          "depthwise to 13x13", "depthwise from 23x23", "depthwise, window beyond the plane", "depthwise, dilated", "other depthwise",
          "transposed", "per-pixel kernels", "deformable", "per-sample kernels", FUSED, "int8", "bf16", "fp16", OTHER)
_BY_DTYPE = {"int8": "int8", "uint8": "int8", "bfloat16": "bf16", "float16": "fp16"}
_FEW = 4  # input channels of a network's first layer
_SMALL, _LARGE = 13, 23  # depthwise windows up to, and from


def group(workload) -> str:
    """One of GROUPS."""
    program = workload.program
    for t in program.tensors:
        if t.dtype in _BY_DTYPE:
            return _BY_DTYPE[t.dtype]
    found = contractions(program)
    if len(found) + _statistics(program, found, _kernel_side(program, found)) > 1:
        return FUSED
    if not found:
        return OTHER
    (one,) = found
    if any(_gathers(program, s) for s in program.run_stages):
        return "deformable"
    if any(_follows(index, one.positions) for k in one.kernels for index in k.args):
        return "per-pixel kernels"
    if any(k.data[0] not in program.constants for k in one.kernels):
        return "per-sample kernels"
    if any(e.op == "%" and E.constant(e.args[1]) != 1 and _uses(e, one.positions) and _uses(e, one.reduced) for e in one.stage.body.walk()):
        return "transposed"  # a tap meets data only where its distance divides by the stride
    return _plain(program, one)


def contractions(program) -> list["Contraction"]:
    """The sums of products that a call does with data, those left out that make kernels."""
    positions = _positions(program)
    found = [c for s in program.run_stages if (c := _contraction(s, positions))]
    made = _kernel_side(program, found)
    return [c for c in found if c.stage.name not in made]


def _kernel_side(program, found) -> set:
    """Names of all that kernels are made of."""
    return _upstream(program, [load for c in found for load in c.kernels])


@dataclass
class Contraction:
    """A sum of products of data (read around positions) and kernels (the other factors that are summed over)."""

    stage: object
    positions: set  # names of its axes that are positions of the output
    data: object  # the load
    kernels: list

    @property
    def reduced(self) -> set:
        return {a.name for a in self.stage.reduce}


def _uses(e, axes) -> bool:
    return bool(set(e.axes()) & set(axes))


def _follows(e, axes) -> bool:
    """Whether an index goes along with one of the axes, rather than repeating itself along it (the phases of a sub-pixel convolution)."""
    return e.op != "%" and (e.op == "axis" and e.data in axes or any(_follows(a, axes) for a in e.args))


def _positions(program) -> dict:
    """Tensor or stage → its dims that follow a position of the output, walking from the output back."""
    found = {program.stages[-1].name: set(program.output.spatial)}
    for stage in reversed(program.stages):
        here = {stage.axes[d].name for d in found.get(stage.name, ())}
        for load in stage.body.loads():
            found.setdefault(load.data[0], set()).update(d for d, index in enumerate(load.args) if _follows(index, here))
    return found


def _contraction(stage, positions) -> Contraction | None:
    here = {stage.axes[d].name for d in positions.get(stage.name, ())}
    reduced = {a.name for a in stage.reduce}
    if stage.combiner != "sum" or not here:
        return None
    outer = [load for load in stage.body.loads() if _uses(load, reduced)]
    mixed = [load for load in outer if any(_uses(i, here) and _uses(i, reduced) for i in load.args)]
    data = mixed or [load for load in outer if _uses(load, here)]
    kernels = [load for load in outer if all(load is not d for d in data)]
    return Contraction(stage, here, data[0], kernels) if data and kernels else None


def _upstream(program, loads) -> set:
    """Names of everything that these loads read, directly or through stages."""
    names, left = set(), [load.data[0] for load in loads]
    while left:
        name = left.pop()
        if name not in names:
            names.add(name)
            stage = program.stage(name)
            left += [load.data[0] for load in stage.body.loads()] if stage is not None else []
    return names


def _statistics(program, contractions, kernel_side) -> int:
    """How many further reductions of data a call does beside its contractions (means of a normalisation or an attention over channels)."""
    own = {c.stage.name for c in contractions}
    return sum(s.combiner is not None and s.name not in own | kernel_side and not {e.data[0] for e in s.body.loads()} <= kernel_side for s in program.run_stages)


def _gathers(program, stage) -> bool:
    """Whether an index holds a value that is computed or given per call."""
    return any(inner.data[0] not in program.constants for load in stage.body.loads() for index in load.args for inner in index.loads())


def _plain(program, one: Contraction) -> str:
    """Of a contraction of data with a kernel that all positions and samples share."""
    extents = access.extents(one.stage)
    windows, planes, steps, gaps, seen = [], [], [], [], set()
    for index, plane in zip(one.data.args, program.shape(one.data.data[0])):
        if not _uses(index, one.positions):
            continue
        terms = access.linear(index)
        taps = [n for n in index.axes() if n in one.reduced]
        if terms is None or len(taps) > 1:
            return OTHER
        seen |= set(taps)
        windows.append(math.prod(extents[n] for n in taps))
        gaps += [terms[0][n] for n in taps if extents[n] > 1]
        steps += [v for n, v in terms[0].items() if n in one.positions]
        planes.append(plane)
    channels = math.prod(extents[n] for n in one.reduced - seen)
    across = [simplify(index, extents) for index in one.data.args if not _uses(index, one.positions)]
    private = {a.name for a in one.stage.axes[1:]} - one.positions  # output axes besides the first, the samples
    shared = not any(_uses(index, private) for index in across)  # every output channel reads the same data
    if not shared and channels == 1:
        return _depthwise(windows, planes, gaps)
    if not shared:
        return "grouped"
    if channels <= _FEW:
        return "few input channels"
    if len(windows) == 2 and all(g == 1 for g in gaps):
        if max(windows) == 1 or max(steps, default=1) > 1:
            return "1x1 and strided"
        if windows == [3, 3]:
            return "dense 3x3, stride 1"
    return "other dense"


def _depthwise(windows, planes, gaps) -> str:
    if len(windows) != 2:
        return "other depthwise"
    if any(g > 1 for g in gaps):
        return "depthwise, dilated"
    if all(n <= (k + 1) // 2 for k, n in zip(windows, planes)):  # centred anywhere in the plane, the window covers all of it
        return "depthwise, window beyond the plane"
    if max(windows) <= _SMALL:
        return "depthwise to 13x13"
    return "depthwise from 23x23" if max(windows) >= _LARGE else "other depthwise"
