"""One side of a copy of rows, and what statements of such copies are made of."""

from __future__ import annotations

from copy import copy

from tvm import ir, tirx


class Rows:
    """One side of a copy. `access`: its load or store; `dims`: (dim that the row runs along, dim of the lanes), one of them the innermost but for `phases`."""

    def __init__(self, access, dims, phases):
        self.buffer = access.source if isinstance(access, ir.TensorLoad) else access.buffer
        self.indices, (self.row, self.lane), self.phases = list(access.indices), dims, phases
        if isinstance(access, ir.TensorLoad) and self.lane == len(self.indices) - 1:
            self.indices[-1] = tirx.const(0, "int32")  # a tile's vectors are read whole

    def at(self, position, lane, width):
        """Index of `width` neighbours from a position and lane on."""
        index = list(self.indices)
        index[self.row] = index[self.row] + (position if self.phases == 1 else tirx.floordiv(position, self.phases))
        if self.phases > 1:
            index[self.row + 1] = index[self.row + 1] + tirx.floormod(position, self.phases)
        if self.lane is not None:
            index[self.lane] = index[self.lane] + lane
        return [*index[:-1], tirx.Ramp(index[-1], 1, width) if width > 1 else index[-1]]

    def moved(self, dim, by):
        """The same side some steps further along a dim."""
        other = copy(self)
        other.indices = [i + by if d == dim else i for d, i in enumerate(self.indices)]
        return other

    def load(self, position, lane, width):
        return tirx.BufferLoad(self.buffer, self.at(position, lane, width))

    def store(self, value, position, lane, width):
        return tirx.BufferStore(self.buffer, value, self.at(position, lane, width))

    def region(self, region, width, lanes):
        """What the block touches in all: a region of position 0 and lane 0, widened."""
        ranges = list(region.region)
        touched = {self.row: -(-width // self.phases)} | ({self.row + 1: self.phases} if self.phases > 1 else {}) | ({self.lane: lanes} if self.lane is not None else {})
        for d, n in touched.items():
            ranges[d] = ir.Range.from_min_extent(ranges[d].min, n)
        return tirx.BufferRegion(self.buffer, ranges)


def sequence(statements):
    flat = [x for s in statements for x in (s.seq if isinstance(s, tirx.SeqStmt) else [s])]
    return flat[0] if len(flat) == 1 else tirx.SeqStmt(flat)


def conjuncts(e):
    return [*conjuncts(e.a), *conjuncts(e.b)] if isinstance(e, tirx.And) else [e]


def binding():
    """(statements, bind): `bind(value)` names a value by a statement of its own."""
    made = []

    def bind(value):
        v = tirx.Var("v", value.ty)
        made.append(tirx.stmt.Bind(v, value))
        return v
    return made, bind


def shuffle(vectors, order):
    return tirx.Shuffle(vectors, [tirx.const(i, "int32") for i in order])
