"""Copies between rows of memory and vectors across them: which a plan has, and what they look like. How they are done is the schedules' business."""

from __future__ import annotations

from dataclasses import dataclass

from ..lang import access
from ..lang.unfold import phases


@dataclass
class Turn:
    """A copy of rows: between rows of memory and vectors across them, or straight from row to row.

    `source`, `target`: (dim the row runs along, dim of the lanes) in memory. A straight row has no dim of lanes (None), or runs through both: first blocks, then lanes.
    The copy's rows have `width` positions, of which those from `begin` on and before `end` have data; `padded` if that is not all.
    `phases`: how many take turns along the row; if more than one, the dim after the row's counts them, and positions count both.
    """

    source: tuple
    target: tuple
    width: int
    begin: int = 0
    end: int = 0
    phases: int = 1

    @property
    def padded(self) -> bool:
        return self.begin > 0 or self.end < self.width


def of_store(program, p, store_operands) -> Turn | None:
    """How whole vectors of the planned stage `p` become columns of the output's rows, where nothing comes between but parameters that fit the tiles."""
    spec, true, layout = program.output, access.extents(p.stage), p.layout
    perm = spec.permutation(program.layout)
    count = phases(spec).get(perm[-1], 1)
    row, lane = perm[-1] - (count > 1), layout.split  # an unfolded row: its dim of steps, followed by that of phases
    straight = row == lane
    if spec.dtype != "float32" or p.lanes == 1 or layout.order[-1] != perm[-1] or lane == perm[-1] != row:
        return None
    if layout.overhangs != straight and not (straight and count > 1):
        return None  # straight rows of whole vectors need no care
    fits = lambda o: o.kind == "packed" and all(p.extents[c[1]] == true[c[1]] and not (straight and c[1] == p.vec) for c in o.coords) or o.source == p.stage.name
    if not all(fits(o) for o in store_operands.values()):
        return None
    at, width = perm.index(row), spec.shape[row] * count
    return Turn((at, len(perm)), (at, None if straight else perm.index(lane)), width, 0, width, count)


def of_copy(program, p, operand) -> Turn | None:
    """How a staged copy, an Operand of the planned stage `p`, takes rows: straight, or turned into vectors along a plain dim in whole blocks of lanes."""
    spec, layout, load, true = program.tensor(operand.source), operand.layout, operand.load, access.extents(p.stage)
    if spec is None or spec.dtype != "float32" or layout.overhangs or load.data[1] is not None and load.data[1].mode != "zeros":
        return None
    if any(c[0] == "axis" and (p.extents[c[1]] > true[c[1]] or c[1] == p.vec and p.layout.blocks * p.lanes > true[p.vec]) for c in operand.coords):
        return None
    straight = layout.split is None

    def dim(coord):  # the dim of the source that a coord runs through step by step
        return coord[1] if coord[0] == "dim" else next((d for d, a in enumerate(load.args) if a.op == "axis" and a.data == coord[1]), None)
    last = layout.order[-1]
    inner, perm = operand.coords[last], spec.permutation(program.layout)
    row, lane = dim(inner), None if straight else dim(operand.coords[layout.split])
    if row != perm[-1] or not straight and (lane in (None, row) or any(access.padding(load, lane))):
        return None  # a vector is data or padding as a whole
    before, after = access.padding(load, row)
    first = inner[2] if inner[0] == "dim" else 0
    turn = Turn((len(perm) - 1, None if straight else perm.index(lane)), (len(layout.order) - 1, None if straight else len(layout.order)), layout.extents[last], before - first, before - first + spec.shape[row])
    return None if turn.padded and not (before or after) else turn  # reads beyond the data without padding are clamped
