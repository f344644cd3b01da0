"""What a tile of one reduction reads, holds and repeats: facts that constraints, defaults and features share. Pure Python over access maps."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from convgen.emit import simt
from convgen.lang import access
from convgen.lang.size import tree_of, value_of


_LONG = 32  # terms of a sum that threads may share
_PARTS = 128  # of one sum at most: one thread adds them


class Read:
    """One read of a stage. `dims`: per index either its coefficients by axis or the index itself, and how long the tensor is there."""

    def __init__(self, program, stage, load):
        self.load, self.name = load, load.data[0]
        self.extents, self._known = access.extents(stage), {}
        shape = program.shape(self.name)
        amounts = [sum(map(value_of, pair)) for pair in load.data[1].amounts] if load.data[1] is not None else [0] * len(shape)
        self.dims = []
        for index, n, more in zip(load.args, shape, amounts):
            terms = access.linear(index)
            self.dims.append((terms[0] if terms is not None else None, index, n + more))
        self.axes = {a for index in load.args for a in index.axes()}
        self.padded = any(amounts)
        self.gathered = any(e.op == "load" for a in load.args for e in a.walk())
        self.constant = self.name in program.constants
        spec = program.tensor(self.name)
        self.inner = spec.permutation(program.layout)[-1] if spec is not None else len(shape) - 1  # the dim whose elements are neighbours in memory

    def span(self, d: int, sizes: dict, overhang=False) -> int:
        """How many positions of dim `d` are met where axes take `sizes` steps (1 if not given); `overhang`: those beyond the tensor's end, too, which a whole tile has room for."""
        terms, index, limit = self.dims[d]
        if terms is not None:
            n = 1 + sum(abs(k) * (sizes.get(a, 1) - 1) for a, k in terms.items())
            limit = n if overhang else limit
        elif any(e.op == "load" for e in index.walk()):
            n = math.prod(sizes.get(a, 1) for a in index.axes())
        else:
            n = 1 + sum(self._stretch(d, a, sizes[a]) for a in index.axes() if sizes.get(a, 1) > 1)
        return int(min(n, limit))

    def _stretch(self, d: int, axis: str, size: int) -> int:
        """How far dim d reaches in a tile of `size` steps of an axis that moves it in jumps (groups, phases), where that is farthest."""
        if (d, axis, size) not in self._known:
            extent = self.extents[axis]
            at = access.on_axis(self.dims[d][1], axis, extent)
            self._known[d, axis, size] = size - 1 if at is None else max(int(np.ptp(at[i:i + size])) for i in range(0, extent, size))
        return self._known[d, axis, size]

    def elements(self, sizes: dict) -> int:
        return math.prod(self.span(d, sizes) for d in range(len(self.dims)))

    def rows(self, sizes: dict) -> int:
        """Elements of a copy of a whole tile, with rows that begin at multiples of four."""
        spans = [self.span(d, sizes, overhang=True) for d in range(len(self.dims))]
        return math.prod(n if d != self.inner else -(-n // 4) * 4 for d, n in enumerate(spans))

    def step(self, axis: str) -> int:
        """How many neighbours in memory one step of an axis moves, 0 for none or an unknown number."""
        terms = self.dims[self.inner][0]
        return terms.get(axis, 0) if terms is not None else 0


@dataclass
class Shape:
    """The tile of one stage in one choice: its blocks and threads, its steps, and elements by read."""

    tiles: list
    threads: int  # of a block
    split: int  # of them for one sum
    results: int  # of one thread
    blocks: int
    waste: float  # points computed over points wanted
    chunks: int  # copies of shared data, one after another
    terms: int  # of one thread between two copies
    body: int  # of them in one unrolled body
    shared: list  # (Read, bytes) in shared memory
    direct: list  # Reads from memory, by every thread for itself


class Work:
    """One reduction with knobs: its axes, reads and roles."""

    def __init__(self, program, stage):
        self.program, self.stage, self.name = program, stage, stage.name
        self.extents, self.roles, self.slots = access.extents(stage), access.roles(stage), simt.slots(program, stage)
        reads = {}
        for load in stage.body.loads():
            reads.setdefault(simt.P.key(load), Read(program, stage, load))
        self.reads = list(reads.values())
        self.points = math.prod(self.extents[a.name] for a in stage.axes)
        self.terms = math.prod(self.extents[a.name] for a in stage.reduce)
        self.operations = max(1, sum(1 for e in stage.body.walk() if e.dtype == "float" and e.op not in ("load", "const", "table", "float")))
        self.chunked = simt.chunked(stage)
        self.divided, self.apart = simt.divided(program, stage)
        self.shareable = {id(r): simt.shareable(stage, r.load) for r in self.reads}
        self.last = self._last()
        self.out = [a.name for a in stage.axes]
        self.reduced = [a.name for a in stage.reduce]
        self.whole = {a: a in self.roles.spatial or bool(access.period(stage, a)) for a in self.slots.values() if a is not None}
        self.used = {slot: axis for slot, axis in self.slots.items() if axis is not None}
        f = self.slots["f"]
        self.side_by_side = f is not None and (any(f not in r.axes for r in self.reads) or program.layout == "channels_last")  # parameters, along f
        self.loops = [*self.roles.channel, *self.roles.window]

    def _last(self):
        """The axis along which results are neighbours in memory."""
        names = [a.name for a in self.stage.axes]
        order = simt.order(self.program, self.stage, access.moved(self.program))
        return next((names[d] for d in reversed(order) if self.extents[names[d]] > 1), names[-1])

    def knob(self, c, name, default=0):
        return c.get(f"{self.name}.{name}", default)

    def tiles(self, c) -> list:
        """As simt.tiles."""
        found = []
        for slot, axis in self.used.items():
            threads, each = c[f"{self.name}.{slot}.threads"], c[f"{self.name}.{slot}.each"]
            found.append(simt.Tile(axis, threads, each, simt.near(each, self.whole[axis] or self.knob(c, "split", 1) > 1)))
        return found

    def depth(self, c) -> dict:
        """As simt.depth."""
        chunk = self.knob(c, "chunk")
        steps = {a: self.extents[a] for a in self.reduced}
        if chunk:
            steps[self.chunked] = chunk
        return steps

    def splits(self) -> list:
        """Into how many equal parts threads may divide a sum, the whole first."""
        known = not any(a.name == self.divided and self.program.any_batch and tree_of(a.size) == "N" for a in self.stage.reduce)
        n = self.extents[self.divided] if self.divided and known and self.terms >= _LONG else 1
        return [d for d in range(1, min(n, _PARTS) + 1) if n % d == 0 and (d & d - 1 == 0 or d <= 32)]

    def shape(self, c) -> Shape:
        tiles, depth = self.tiles(c), self.depth(c)
        sizes, each = {t.axis: t.size for t in tiles}, {t.axis: t.each for t in tiles}
        threads, results, split = math.prod(t.threads for t in tiles), math.prod(each.values()), self.knob(c, "split", 1)
        blocks, covered = 1, 1
        for a in self.out:
            n, size = self.extents[a], sizes.get(a, 1)
            blocks *= -(-n // size)
            covered *= -(-n // size) * size
        terms = math.prod(depth.values())
        block, mine = sizes | depth, each | depth
        shared, direct = [], []
        for r in self.reads:
            if r.constant:
                common = self.knob(c, "weights") == "shared"
            else:
                common = self.knob(c, "data") == "shared" and self.shareable[id(r)] and threads * r.elements(mine) >= 2 * r.elements(block)
            (shared.append((r, 4 * r.rows(block))) if common else direct.append(r))
        body = math.prod(self.steps(c).values()) * math.prod(self.extents[a] for a in self.roles.table)
        return Shape(tiles, threads * split, split, results, blocks, covered / self.points, self.terms // terms if terms else 1, terms // split, body, shared, direct)

    def steps(self, c) -> dict:
        """Reduced axis → steps in one unrolled body, of those whose loops are unrolled."""
        depth = self.depth(c)
        return {a: depth[a] // self.knob(c, "split", 1) if a == self.divided else depth[a] for a in self.unrolled(c)}

    def unrolled(self, c) -> list:
        """Reduced axes whose loops are unrolled."""
        return self.loops[len(self.loops) - min(self.knob(c, "unroll"), len(self.loops)):]
