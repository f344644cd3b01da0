"""Merging of adjacent output axes that no stage treats separately: the plane of a 1x1 convolution is one axis of H W positions.

Register tiles and vectors then need not divide a row. The tensors at the border keep the caller's dims beside the merged ones (`TensorSpec.parts`).
"""

from __future__ import annotations

from dataclasses import replace

from . import expr as E
from .program import Stage
from .size import Size, tree_of, value_of


def merged(program):
    """The program with every pair of adjacent output axes merged that all its reads pass on unchanged, or the program itself."""
    d = 0
    while d + 1 < len(program.stages[-1].axes):
        found = _pair(program, d)
        program, d = (found, d) if found is not None else (program, d + 1)
    return program


def _pair(program, d):
    """The program with output dims `d` and `d + 1` as one, or None where a read tells them apart."""
    at = {program.stages[-1].name: d}  # stage or tensor → first of its two dims
    pending = [program.stages[-1]]
    while pending:
        stage = pending.pop()
        i = at[stage.name]
        names = [a.name for a in stage.axes[i:i + 2]]
        for load in stage.body.loads():
            j = _place(load, names)
            if j is None:
                continue
            source = load.data[0]
            if at.setdefault(source, j) != j:
                return None
            if program.stage(source) is not None and program.stage(source) not in pending:
                pending.append(program.stage(source))
    tensors = {t.name: t for t in [*program.tensors, program.output]}
    sizes = [value_of(a.size) for a in program.stages[-1].axes[d:d + 2]]
    if 1 in sizes or "N" in map(lambda a: tree_of(a.size), program.stages[-1].axes[d:d + 2]):
        return None
    specs = {name: _spec(tensors[name], i, sizes, program.layout) for name, i in at.items() if name in tensors}
    output = _spec(program.output, d, sizes, program.layout)
    if output is None or None in specs.values():
        return None
    stages = []
    for s in program.stages:
        if s.name in at and s.shape[at[s.name]:at[s.name] + 2] != tuple(sizes):
            return None
        new = _stage(s, at)
        if new is None:
            return None
        stages.append(new)
    return replace(program, tensors=[specs.get(t.name, t) for t in program.tensors], stages=stages, output=output)


def _place(load, names):
    """The dim of a read that is the first axis, the next one being the second; None where they are not its indices."""
    plain = [a.data if a.op == "axis" else None for a in load.args]
    return next((i for i in range(len(plain) - 1) if plain[i:i + 2] == names), None)


def _spec(tensor, i, sizes, layout):
    """A border tensor with two dims merged, or None if they are not neighbours in memory."""
    order = tensor.permutation(layout)
    if tuple(tensor.shape[i:i + 2]) != tuple(sizes) or order.index(i + 1) != order.index(i) + 1 or (i in tensor.spatial) != (i + 1 in tensor.spatial):
        return None
    parts = tensor.parts or tuple(((tree, size),) for tree, size in zip(tensor.trees, tensor.shape))
    join = lambda values, one: (*values[:i], one, *values[i + 2:])
    return replace(tensor, shape=join(tensor.shape, sizes[0] * sizes[1]), trees=list(join(tensor.trees, ["*", *tensor.trees[i:i + 2]])),
                   spatial=tuple(s - (s > i) for s in tensor.spatial if s != i + 1), parts=join(parts, parts[i] + parts[i + 1]))


class _Apart(Exception):
    """A read tells the two axes apart."""


def _stage(s, at):
    """The stage with its two axes, and those of what it reads, merged; None where it uses one of them alone."""
    names, one, axes = [None, None], None, list(s.axes)
    if s.name in at:
        i = at[s.name]
        a, b = axes[i:i + 2]
        one = E.Axis(f"{a.name}_{b.name}", Size(["*", tree_of(a.size), tree_of(b.size)], value_of(a.size) * value_of(b.size), []))
        names, axes[i:i + 2] = [a.name, b.name], [one]

    def walk(e):
        if e.op == "axis" and e.data in names:
            raise _Apart
        if e.op != "load" or e.data[0] not in at:
            return E.Expr(e.op, [walk(a) for a in e.args], e.dtype, e.data) if e.args else e
        name, padding = e.data
        j = _place(e, names)
        amounts = list(padding.amounts) if padding else None
        if j != at[name] or amounts and any(value_of(v) for pair in amounts[j:j + 2] for v in pair):
            raise _Apart
        if amounts:
            del amounts[j]
        return E.Expr("load", [*map(walk, e.args[:j]), one, *map(walk, e.args[j + 2:])], e.dtype, (name, E.Padding(amounts, padding.mode, padding.fill) if padding else None))
    try:
        return Stage(s.name, axes, s.reduce, s.combiner, walk(s.body))
    except _Apart:
        return None
