"""Access maps: how each tensor element that a stage reads depends on its axes, and the roles that follow.

Roles are derived from how axes occur, never from an operator's name: window = reduced and in one affine index with an output axis;
spatial = that partner; channel = reduced, alone in its index; batch, group and output channel = the remaining output axes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from . import expr as E
from .ranges import simplify
from .size import value_of


def extents(stage) -> dict:
    """Axis name → extent, output axes first."""
    return {a.name: value_of(a.size) for a in [*stage.axes, *stage.reduce]}


def specialised(program):
    """The program with every index as plain as these sizes allow: what emitting and scheduling look at."""
    return replace(program, stages=[replace(s, body=simplify(s.body, extents(s))) for s in program.stages])


def element_dtype(program, load) -> str:
    """The dtype in which a read finds its tensor: a border tensor's own, int32 or float32 for a stage's result."""
    spec = program.tensor(load.data[0])
    return spec.dtype if spec is not None else computed(load)


def computed(e) -> str:
    """The dtype in which an expression is computed."""
    return {"int": "int32", "float": "float32", "bool": "bool"}[e.dtype]


def spliced(program, stage, stages, element):
    """The program with `stage` replaced by `stages`; `element(index)` reads what was element `index` of the old one."""
    def reread(e):
        if e.op == "load" and e.data == (stage.name, None):
            return element([reread(a) for a in e.args])
        return E.Expr(e.op, [reread(a) for a in e.args], e.dtype, e.data) if e.args else e

    new = []
    for s in program.stages:
        new += stages if s is stage else [replace(s, body=reread(s.body))]
    if program.stages[-1] is stage:
        new.append(replace(stage, name="out", reduce=[], combiner=None, body=element(list(stage.axes))))
    return replace(program, stages=new)


def linear(e: E.Expr):
    """({axis: coefficient}, constant) of an index that is affine in its axes, else None."""
    c = E.constant(e)
    if c is not None:
        return {}, int(c)
    if e.op == "axis":
        return {e.data: 1}, 0
    if e.op in ("+", "-"):
        a, b = linear(e.args[0]), linear(e.args[1])
        if a is None or b is None:
            return None
        sign = 1 if e.op == "+" else -1
        terms = dict(a[0])
        for n, k in b[0].items():
            terms[n] = terms.get(n, 0) + sign * k
        return {n: k for n, k in terms.items() if k}, a[1] + sign * b[1]
    if e.op == "*":
        for x, y in (e.args, e.args[::-1]):
            k, other = E.constant(y), linear(x)
            if k is not None and other is not None:
                return {n: v * int(k) for n, v in other[0].items() if v * k}, other[1] * int(k)
    if e.op in ("//", "%") and E.constant(e.args[1]) == 1:
        return linear(e.args[0]) if e.op == "//" else ({}, 0)
    return None


def period(stage, axis: str) -> int:
    """After how many steps of an axis the constant coefficients of a transform repeat: its extent where they never do, 0 where it selects none."""
    found = 0
    for table in (e for e in stage.body.walk() if e.op == "table" and axis in e.axes()):
        turns = [E.constant(e.args[1]) for e in table.walk() if e.op == "%" and e.args[0].op == "axis" and e.args[0].data == axis]
        once = sum(1 for e in table.walk() if e.op == "axis" and e.data == axis) == len(turns) == 1
        found = max(found, int(turns[0]) if once and turns[0] else extents(stage)[axis])
    return found


def moved(program) -> dict:
    """Run-time stage → {axis of the last stage: axes of the stage that move with it}: what a tile of the output needs of every stage before."""
    run = program.run_stages
    found = {run[-1].name: {a.name: {a.name} for a in run[-1].axes}}
    for s in reversed(run):
        for load in s.body.loads():
            source = next((x for x in run if x.name == load.data[0]), None)
            if source is not None and s.name in found:
                mine = found.setdefault(source.name, {a.name: set() for a in run[-1].axes})
                for axis, names in found[s.name].items():
                    mine[axis] |= {a.name for a, index in zip(source.axes, load.args) if names & set(index.axes())}
    return found


def finishes(program, stage) -> str:
    """The sum of the call whose every result, read nowhere else, a map turns into its own at the same position; "" where there is none."""
    here = [("axis", a.name) for a in stage.axes]
    sums = {s.name for s in program.run_stages if s.combiner} if not stage.combiner else ()
    for name in {load.data[0]: None for load in stage.body.loads() if load.data[0] in sums}:
        reads = [(s.name, load) for s in program.run_stages for load in s.body.loads() if load.data[0] == name]
        if all(reader == stage.name and load.data[1] is None and [(i.op, i.data) for i in load.args] == here for reader, load in reads):
            return name
    return ""


def steady(stage) -> list:
    """Axes of a result that no gathered position depends on, where there are such positions: what they cost can be shared along these axes."""
    gathered = [i for load in stage.body.loads() for i in load.args if any(e.op == "load" for e in i.walk())]
    moving = {n for i in gathered for n in i.axes()} | {n for load in stage.body.loads() for i in load.args for inner in i.loads() for j in inner.args for n in j.axes()}
    return [a.name for a in stage.axes if a.name not in moving] if gathered else []


def padding(load, d: int) -> tuple:
    """(before, after): how far dim `d` of a read continues before the first element and after the last."""
    return tuple(map(value_of, load.data[1].amounts[d])) if load.data[1] is not None else (0, 0)


def padded(load) -> list:
    """The dims of a read that are padded."""
    return [d for d in range(len(load.args)) if any(padding(load, d))]


def on_axis(e: E.Expr, axis: str, extent: int):
    """Values of an index along one axis, all other axes at zero; None if it depends on data."""
    values = _values(e, {axis: np.arange(extent)})
    return None if values is None else np.broadcast_to(values, (extent,))


def _values(e, given):
    c = E.constant(e)
    if c is not None:
        return int(c)
    if e.op == "axis":
        return given.get(e.data, 0)
    ops = {"+": np.add, "-": np.subtract, "*": np.multiply, "//": np.floor_divide, "%": np.mod, "min": np.minimum, "max": np.maximum}
    if e.op not in ops:
        return None
    parts = [_values(a, given) for a in e.args]
    return None if any(p is None for p in parts) else ops[e.op](*parts)


@dataclass
class Roles:
    """Axis names by role, in the stage's order."""

    window: list
    spatial: list
    channel: list
    plain: list  # output axes that are not spatial: batch, group, output channel
    table: list  # reduced axes that select a constant coefficient
    gathered: list  # reduced or output axes that occur in an index together with a tensor's value

    def of(self, axis: str) -> str:
        return next((r for r in ("window", "spatial", "channel", "table", "plain", "gathered") if axis in getattr(self, r)), "plain")


def roles(stage) -> Roles:
    """The role of each axis of a stage, from how it occurs in the indices (see the module)."""
    out, red = [a.name for a in stage.axes], [a.name for a in stage.reduce]
    single = {n for n, e in extents(stage).items() if e == 1}  # an axis of one step moves nothing
    window, spatial, gathered = set(), set(), set()
    table = {n for e in stage.body.walk() if e.op == "table" for n in e.axes()}
    for load in stage.body.loads():
        for index in load.args:
            names = index.axes()
            if any(x.op == "load" for x in index.walk()):
                gathered |= set(names)
                continue
            mixed_out, mixed_red = [n for n in names if n in out and n not in single], [n for n in names if n in red and n not in single]
            moving = [n for n in mixed_out if _moves(index, n)] if mixed_red else []
            if moving:
                window |= set(mixed_red)
                spatial |= set(moving)
    # a group map (o // q * m + c) mixes an output axis with the reduced channel, but it is no window: its partner must move with every step
    return Roles([n for n in red if n in window and n not in table], [n for n in out if n in spatial], [n for n in red if n not in window and n not in table],
                 [n for n in out if n not in spatial], [n for n in red if n in table], sorted(gathered))


def _moves(index, axis) -> bool:
    """Whether the axis moves the index with its every step, rather than through a step function of it (a group map, a phase)."""
    if index.op in ("+", "-"):
        return any(_moves(a, axis) for a in index.args)
    if index.op == "*":
        return any(E.constant(a) is not None for a in index.args) and any(_moves(a, axis) for a in index.args)
    return index.op == "axis" and index.data == axis
