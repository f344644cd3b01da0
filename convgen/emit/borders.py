"""Terms that meet only padding. Where a term of a sum is a product with a zero from the padding, a kernel may leave it out instead of computing it.

Leaving out pays only where the test costs nothing: where it holds for a whole row of a register tile, or where unrolled loops decide it while the kernel is
compiled. So every padded dimension of a read either leaves terms out or keeps its zeros. The terms that remain are the same, in the same order.
"""

from __future__ import annotations

import math

import numpy as np

from ..lang import access, expr as E
from .tiling import tile_axes, unrolled


def droppable(stage, load) -> bool:
    """Whether the terms of a stage are zero wherever this read meets its padding."""
    return bool(access.padded(load)) and load.data[1].mode == "zeros" and stage.combiner == "sum" and any(f is load for f in E.factors(stage.body))


def left_out(stage, load, vec: str, tiles: dict, whole, unrolled) -> tuple:
    """The padded dimensions of a droppable read where terms are tested for free.

    `tiles`: axis → extent in the register tile; `whole`: axes that unrolled loops span; `unrolled`: reduced axes whose loops are unrolled.
    """
    extents = access.extents(stage)
    reduced = {a.name for a in stage.reduce}
    found = []
    for d in access.padded(load):
        names = {n for n in load.args[d].axes() if extents[n] > 1}
        known = names & reduced <= set(unrolled)
        if access.linear(load.args[d]) is not None and vec not in names and all(tiles.get(a, 1) == 1 or known and a in whole for a in names - reduced):
            found.append(d)
    return tuple(found)


def skipped(program, stage, load, choice) -> tuple:
    """The padded dims of a read at which a choice leaves out the terms that meet padding."""
    k = lambda name, default=None: choice.get(f"{stage.name}.{name}", default)
    if k("padding") != "skip" or not droppable(stage, load):
        return ()
    extents = access.extents(stage)
    tiles = {a: k(f"tile{i + 1}", 1) for i, a in enumerate(tile_axes(program, stage, k("vec"))) if a is not None}
    whole = {a for a, t in tiles.items() if t >= extents[a]} | ({row_axis(program, stage, choice)} - {None})
    return left_out(stage, load, k("vec"), tiles, whole, unrolled(program, stage, choice))


def row_axis(program, stage, choice) -> str | None:
    """The axis whose register tiles get code of their own, one after the other, because the terms that they leave out differ; None if all share one code."""
    k = lambda name, default=None: choice.get(f"{stage.name}.{name}", default)
    row = stage.axes[-1].name
    separate = k("padding") == "skip" and k("unroll") and k("order", "vector") == "vector" and len(stage.axes) > 2 and tile_axes(program, stage, k("vec"))[0] == row
    return row if separate else None


def inside(stage, load, d: int, size: int) -> float:
    """The share of the terms at which padded dimension `d` of a read meets its `size` elements rather than padding; 1.0 where it cannot be told."""
    extents, linear = access.extents(stage), access.linear(load.args[d])
    if linear is None:
        return 1.0
    at = np.array([linear[1] - access.padding(load, d)[0]])
    *shorter, (longest, last) = sorted(((extents[name], step) for name, step in linear[0].items() if step)) or [(1, 1)]
    for extent, step in shorter:
        at = (at[:, None] + step * np.arange(extent)).reshape(-1)
    at, last = (at, last) if last > 0 else (at + last * (longest - 1), -last)
    first, end = np.maximum(0, -(at // last)), np.minimum(longest, -((at - size) // last))  # along the longest axis it is a range
    return float(np.sum(np.maximum(0, end - first)) / (len(at) * longest))


def in_padding(program, stage, dims=access.padded) -> float:
    """The share of a stage's terms that meet padding, in the dimensions that `dims(load)` names of its droppable reads."""
    share = 1.0
    for load in stage.body.loads():
        if droppable(stage, load):
            shape = program.shape(load.data[0])
            share *= math.prod(inside(stage, load, d, shape[d]) for d in dims(load))
    return 1.0 - share
