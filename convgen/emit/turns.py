"""Copies between rows of memory and vectors across them: which a plan has, and what they look like. How they are done is the schedules' business."""

from __future__ import annotations

from dataclasses import dataclass

from ..lang import access
from ..lang.unfold import phases
from .tiling import spacing


@dataclass
class Taps:
    """A window along a copied row: the dim of the copy that counts its taps, how many there are, and how many positions of the source they lie apart."""

    dim: int
    count: int
    apart: int


@dataclass
class Turn:
    """A copy of rows: between rows of memory and vectors across them, or straight from row to row.

    `source`, `target`: (dim the row runs along, dim of the lanes) in memory. A straight row has no dim of lanes (None), or runs through both: first blocks, then lanes.
    The copy's rows have `width` positions, of which those from `begin` on and before `end` have data; `padded` if that is not all.
    `phases`: how many take turns along the row; if more than one, the dim after the row's counts them, and positions count both.
    A spaced row takes vectors of `lanes` numbers that lie `step` positions apart, for each of its `taps`: width counts them, begin and end positions of the source.
    """

    source: tuple
    target: tuple
    width: int
    begin: int = 0
    end: int = 0
    phases: int = 1
    step: int = 1
    lanes: int = 0
    taps: Taps | None = None

    @property
    def blocks(self) -> int:
        """Vectors of a spaced row, per tap."""
        return -(-self.width // self.lanes)

    @property
    def loops(self) -> int:
        """How many loops a row replaces: a straight one its own, others that over lanes too, and those over phases and taps."""
        return (1 if self.step == 1 and None in (self.source[1], self.target[1]) else 2) + (self.phases > 1) + (self.taps is not None)

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
    """How a staged copy, an Operand of the planned stage `p`, takes rows: straight, turned into vectors along a plain dim in whole blocks of lanes, or spaced."""
    spec, layout, load, true = program.tensor(operand.source), operand.layout, operand.load, access.extents(p.stage)
    if spec is not None and layout.split is not None and operand.coords[layout.split] == ("axis", p.vec) and (found := spacing(program, p.stage, load, p.vec)) is not None:
        return _spaced(program, p, operand, *found)
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


def _spaced(program, p, operand, step, tap, apart, first) -> Turn | None:
    spec, layout, load, true = program.tensor(operand.source), operand.layout, operand.load, access.extents(p.stage)
    inner = spec.permutation(program.layout)[-1]
    whole = all(p.extents[c[1]] == true[c[1]] for c in operand.coords if c[0] == "axis" and c[1] != p.vec)
    if layout.lanes not in (4, 8, 16) or spec.shape[inner] < layout.lanes or not whole or load.data[1] is not None and (load.data[1].mode != "zeros" or load.data[1].fill is not None):
        return None
    begin = access.padding(load, inner)[0] - first
    at = lambda axis: layout.order.index(operand.coords.index(("axis", axis)))
    taps = Taps(at(tap), true[tap], apart) if tap is not None else None
    return Turn((len(spec.shape) - 1, None), (at(p.vec), len(layout.order)), true[p.vec], begin, begin + spec.shape[inner], step=step, lanes=layout.lanes, taps=taps)
