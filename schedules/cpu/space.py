"""The space of processors with vectors: per heavy reduction a vector axis, a register tile, an order of the reduction, and where data is staged.

Constraints (registers, unrolled body, temporary memory) prune before anything is compiled: an oversized tile costs LLVM half a minute.
"""

from __future__ import annotations

import itertools
import math

from convgen.emit import borders, dot, plan as P
from convgen.lang import access, count, expr as E
from convgen.lang.cuts import tiles_of
from convgen.lang.size import tree_of, value_of

from ..knobs import KnobSpace
from ..placement import TWICE, Cuts

_BODY = 700  # vector operations in one unrolled body
_ROW = 1800  # and in all tiles of a row, where each has code of its own
_PADDING = 0.06  # the share of terms in the padding from which on leaving them out is worth a try
_HELD = 1.02  # time that holding no more than a call should (count.CALL) is worth
_PAGE = 4096  # addresses this far apart fall into one set of the first cache
_LINE = 64  # bytes that processors hand each other as one
_NARROW = 8  # lines of a position's results of which one that two threads write is too many
_SHORT = 4  # channels whose loop the compiler unrolls by itself
_WEIGHTS = 2  # second-level caches full of weights that every thread may read
_BANDS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16)  # steps of the output that columns may be produced for together
_STREAMED = 4  # multiply-adds that take as long as reading a number from beyond the second-level cache
_STREAM = 1.5  # operations that take as long as reading one byte of transformed kernels
_BEYOND = 8  # and as writing and reading one byte that the second-level cache does not hold between two stages
_FEW_TERMS, _CROWDING = 160, 2.0  # of a sum that storing far apart outlasts; more than any other merit of an axis
_PARTS = 0.3  # time that storing parts of rows costs, as a share of the work of a transform
_SINGLY = 16  # multiply-adds that take as long as storing one vector number by number
_SHARES = (2, 4, 8, 16, 32)  # into which the tiles along one axis can be cut
_IDLE = 1.05  # threads' time over their work from which on sharing it out better is worth more than what it costs
_FEW = 4  # steps of other axes, which threads cannot well share
_TILES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 14, 16, 20, 24, 28)


def _fits(band, steps) -> bool:
    """Whether bands waste little of the last one."""
    return band <= steps and -(-steps // band) * band <= 1.1 * steps


class Leaf(KnobSpace):
    """Knobs of every anchor of one algorithm's program, prefixed by the stage's name. A family's own leaf names its dot product instructions."""

    instructions: object  # a module with lanes(dtypes, target), the vector lengths for which a target has an instruction
    reuse = 1.5  # multiply-adds per vector or number read from which on a dense tile gains no more
    side_by_side = 2  # vectors in a dense tile that cost nothing beside their registers
    numbers = 1  # that a register holds for multiply-adds with vectors

    def __init__(self, algorithm: str, program, target: dict):
        self.program, self.target = program, target
        self.lanes, self.registers = target["lanes"]["float32"], target["vector_registers"]
        self.anchors = P.anchors(self.program)
        self.cuts = Cuts(program, self.lanes)
        self.domains = {"algorithm": [algorithm]} | {f"cut.{a}": [0, *sizes] for a, sizes in self.cuts.sizes.items()}
        self._info, self._insides = {}, {}
        for s in self.anchors:
            self._add(s)
        self._own = {name: {k: v for k, v in self.domains.items() if k.startswith(f"{name}.")} for name in self._info}
        self.feature_names = ["log_flops", "log_bytes", "log_staged", "anchors", "log_tile", "log_trips", "repeated", *(f"{i}.{f}" for i in range(2) for f in _FEATURES)]

    # -- domains --------------------------------------------------------------------------------------------------------
    def _add(self, s):
        ext, roles, name = access.extents(s), access.roles(s), s.name
        loads = s.body.loads()
        out = [a.name for a in s.axes]
        batch = {a.name for a in s.axes if self.program.any_batch and tree_of(a.size) == "N"}
        stores_output = P.epilogue_of(self.program)[0] is s
        distant = roles.spatial[:-1]  # only the last position can be contiguous
        vecs = [a for a in out if a not in batch and a not in distant and self._vectorisable(s, a, loads, ext)]
        vecs = vecs or [next(a for a in reversed(out) if a not in batch)]
        vecs.sort(key=lambda a: -self._merit(s, a, loads, ext, roles))
        vecs = vecs[:2]
        lanes = sorted({min(l, self.lanes) for l in (self.lanes, self.lanes // 2)}, reverse=True)
        if max(ext[v] for v in vecs) < self.lanes:
            lanes = [max(2, min(self.lanes, 1 << (max(ext[v] for v in vecs) - 1).bit_length()))]
        # first the width whose vectors meet whole vectors everywhere: a channel map c % 24 has runs of 8, not of 16
        lanes.sort(key=lambda width: sum("other" in P.vector_kinds(l, vecs[0], ext, width) for l in loads))
        tiles = [P.tile_axes(self.program, s, v) for v in vecs]
        channel = max((ext[c] for c in roles.channel), default=0)
        window = [w for w in roles.window]
        padded = any(l.data[1] is not None and any(value_of(v) for pair in l.data[1].amounts for v in pair) for l in loads)
        dense = any(ext[a] > 1 for a in roles.channel)
        d = self.domains
        d[f"{name}.vec"] = vecs
        d[f"{name}.lanes"] = lanes
        d[f"{name}.tile1"] = sorted({t for a, _ in tiles for t in self._tiles(s, ext, a)})
        d[f"{name}.tile2"] = sorted({t for _, a in tiles for t in self._tiles(s, ext, a) if t <= 8})
        five = dense and any(v not in roles.spatial and -(-ext[v] // self.lanes) == 5 for v in vecs)  # in twos and fours a vector in six would be empty
        d[f"{name}.vectors"] = [v for v in (1, 2, 4) if v == 1 or v * self.lanes // 2 <= max(ext[a] for a in vecs)] + [5] * five
        alone = [ext[a] for v, (a, _) in zip(vecs, tiles) if a is not None and math.prod(ext[x] for x in out if x not in (v, a)) < _FEW] if dense and stores_output else []
        d[f"{name}.order"] = ["vector", "position", *(b for b in _SHARES if 4 * b <= max(alone, default=0))]
        d[f"{name}.block"] = [b for b in (0, 8, 16, 32, 64) if b == 0 or (b < channel and channel % b == 0)] if dense else [0]
        d[f"{name}.inner"] = ["channel", "window"] if dense and window else ["channel"]
        d[f"{name}.unroll"] = list(range(min(len(window), 2) + 1))
        d[f"{name}.padding"] = ["stage", "inline", *(["skip"] if window and _PADDING <= borders.in_padding(self.program, s) < 1 else [])] if padded else ["stage"]
        d[f"{name}.pack"] = ["plain", "blocked"] if dense else ["plain"]
        rows = roles.spatial[-2:-1]  # their tiles can be shared out in bands, each of which copies what it needs
        d[f"{name}.copies"] = ["root", "outer", *(b for b in (1, 2, 4, 8) if rows and len(out) > 3 and b <= ext[rows[0]] and not (dense and b == 1))]
        producers = {l.data[0] for l in loads} & {x.name for x in self.program.run_stages}
        maps = all(self.program.stage(n).combiner is None and not any(o.data[0] in producers for o in self.program.stage(n).body.loads()) for n in producers)
        movable = producers and maps and sum(1 for x in self.program.run_stages for l in x.body.loads() if l.data[0] in producers) == len(producers)
        bands = [c for v in vecs if (c := P.columns(self.program, s, v)) is not None] if dense else []
        d[f"{name}.producer"] = ["root", *(["tile"] if movable and len(out) > 2 else []), *(t for t in _BANDS if any(_fits(t, ext[rows]) for rows, _ in bands))]
        product = dot.find(self.program, s)
        if product is not None and self.instructions.lanes(product.dtypes, self.target):
            d[f"{name}.dot"] = [True, False]
        store = P.epilogue_of(self.program)[1]
        run = {x.name for x in self.program.run_stages}
        alone = store is None or {e.data[0] for e in store.body.loads()} & run <= {name}
        # a store that also reads another stage's result cannot move into this one's tiles
        d[f"{name}.store"] = (["tile", "row", "pass"] if alone else ["pass"]) if stores_output else ["tile"]
        self._info[name] = (s, ext, roles)

    def _tiles(self, s, ext, axis):
        """Tile sizes: divisors, and a few others that waste little of the last tile; an axis of constant coefficients in whole periods."""
        extent = ext.get(axis, 1)
        step = axis and access.period(s, axis)
        if step:
            return [t for t in range(step, 29, step) if t == step or -(-extent // t) * t <= 1.15 * extent] or [step]
        good = [t for t in _TILES if t <= extent and (extent % t == 0 or (-(-extent // t) * t - extent) / extent <= 0.15)]
        return good or [1]

    def _vectorisable(self, s, axis, loads, ext):
        if ext[axis] < 2:
            return False
        if any(axis in a.axes() and any(x.op == "load" for x in a.walk()) for l in loads for a in l.args):
            return False
        if any(e.op == "table" and axis in e.axes() for e in s.body.walk()):
            return False  # every lane would pick its own constant by comparisons, which take LLVM half a minute
        for l in loads:
            for index, kind in zip(l.args, P.vector_kinds(l, axis, ext, self.lanes)):
                if kind == "other" and not (set(index.axes()) & {r.name for r in s.reduce} == set()):
                    terms = access.linear(index)
                    if terms is not None:  # a strided window: every lane would need its own cache line
                        return False
        return True

    def _merit(self, s, axis, loads, ext, roles):
        """How good an axis is to vectorise: whole vectors first, then contiguous reads, then reuse of the other operand."""
        blocks = -(-ext[axis] // self.lanes)
        merit = 4.0 * ext[axis] / (blocks * self.lanes)
        for l in loads:
            kinds = P.vector_kinds(l, axis, ext, self.lanes)
            spec = self.program.tensor(l.data[0])
            if all(k in ("free", "constant") for k in kinds):
                merit += 1.0
            elif spec is not None and spec.kind == "input":
                inner = spec.permutation(self.program.layout)[-1]
                merit += 1.0 if kinds[inner] in ("plain", "window") else 0.2
            else:
                lanes = self._lanes_of(l.data[0])
                merit += 0.9 if lanes is None or kinds[lanes] in ("plain", "window", "run") else 0.2
        return merit + (0.5 if axis in roles.plain else 0.0) - (_CROWDING if self._crowds_sets(s, axis, ext, roles) else 0.0)

    def _crowds_sets(self, s, axis, ext, roles) -> bool:
        """Whether a sum of few terms would store vectors number by number whole pages apart: all meet in the same few lines of a cache, which takes longer than the sum."""
        out = self.program.output
        order = [s.axes[d].name for d in out.permutation(self.program.layout)] if len(s.axes) == len(out.shape) else []
        if P.epilogue_of(self.program)[0] is not s or axis not in order[:-1] or not any(ext[a] > 1 for a in roles.channel):
            return False
        apart = count.BYTES[out.dtype] * math.prod(ext[a] for a in order[order.index(axis) + 1:])
        return apart % _PAGE == 0 and math.prod(ext[a.name] for a in s.reduce) <= _FEW_TERMS

    def _lanes_of(self, name):
        """The dim of an earlier result along which its vectors probably lie, seen through maps, or None."""
        s = self.program.stage(name)
        if s is None:
            return None
        axes = [a.name for a in s.axes]
        if f"{name}.vec" in self.domains:
            return axes.index(self.domains[f"{name}.vec"][0])
        for l in s.body.loads() if s.combiner is None else ():
            lanes = self._lanes_of(l.data[0])
            if lanes is not None and l.args[lanes].op == "axis":
                return axes.index(l.args[lanes].data)
        return None

    def _taken(self, s, c):
        """The axis of `s` along which the one stage that reads it, seen through maps, has its vectors, or None."""
        readers = [(x, l) for x in self.program.run_stages for l in x.body.loads() if l.data[0] == s.name]
        if not readers or any(x is not readers[0][0] for x, _ in readers):
            return None
        reader, load = readers[0]
        vec = c.get(f"{reader.name}.vec") or (self._taken(reader, c) if reader.combiner is None else None)
        return next((a.name for a, index in zip(s.axes, load.args) if index.op == "axis" and index.data == vec), None)

    # -- constraints ----------------------------------------------------------------------------------------------------
    def _inside(self, s, tiles):
        """(extents of one tile, axes that move with it) of a stage; its own extents and none where it stays outside."""
        key = s.name, *tiles.items()
        if key not in self._insides:
            need = self.cuts.needs(tiles).get(s.name)
            self._insides[key] = access.extents(s) | (need or {}), set() if need is None else set().union(*(self.cuts.moved[s.name][a] for a in tiles))
        return self._insides[key]

    def _cut_constraint(self, s, ext, roles, tiles, c):
        """Why a stage cannot run inside the tiles of a choice, or None."""
        k = lambda n: c[f"{s.name}.{n}"]
        need, moved = self._inside(s, tiles)
        if s.name not in self.cuts.needs(tiles):
            return None if k("producer") == "root" else "a producer belongs to the tile of its reader"
        if k("producer") != "root" or k("copies") != "root" or k("store") != self.domains[f"{s.name}.store"][-1]:
            return "inside tiles of the output nothing else is placed"
        vec = k("vec")
        if vec in moved and (vec in roles.spatial or not self.cuts.aligned(s, vec, tiles, k("lanes"))) or need[vec] % (k("lanes") * k("vectors")):
            return "vectors reach beyond the tile of the output"
        lengths = self.cuts.lengths(tiles).get(s.name, {})
        for axis, tile in zip(P.tile_axes(self.program, s, vec), (k("tile1"), k("tile2"))):
            ragged = axis is not None and axis not in moved and access.period(s, axis)  # a transform's last tile may be cut off
            if axis is not None and not ragged and (need[axis] % tile or axis in moved and lengths.get(axis, ext[axis]) % tile):
                return "the register tile does not divide the tile of the output"
        return None

    def constraint(self, c) -> str | None:
        tiles = tiles_of(c)
        if len(tiles) > 1 and self.cuts.repeated(tiles) > TWICE:
            return "tiles repeat too much work"
        reasons = (self._anchor_constraint(name, tiles, c) for name in self._info)
        return next((r for r in reasons if r), None) or (self._vectors_cut(tiles, c) if tiles else None)

    def _anchor_constraint(self, name, tiles, c) -> str | None:
        """Why the knobs of one reduction are not to be compiled, or None."""
        s, ext, roles = self._info[name]
        k = lambda n: c[f"{s.name}.{n}"]
        reason = self._cut_constraint(s, ext, roles, tiles, c) if tiles else None
        if reason:
            return reason
        axis1, axis2 = P.tile_axes(self.program, s, k("vec"))
        if any(t not in self._tiles(s, ext, a) for a, t in ((axis1, k("tile1")), (axis2, k("tile2")))):
            return "the tile wastes too much of its axis"
        acc = k("tile1") * k("tile2") * k("vectors")
        # one vector: the other operand's numbers are read by the multiply-adds; several: LLVM first loads the numbers of all pixels into registers
        beside = acc // k("vectors") if k("vectors") > 1 and roles.channel and not c.get(f"{s.name}.dot") else k("vectors")
        if k("tile2") > 1 and roles.channel and k("vec") in roles.plain and axis2 == P.row_phase(self.program, s):
            beside = k("tile1") + k("tile2") * k("vectors")  # phases meet the same numbers
        if acc + beside + 1 > self.registers:
            return f"{acc} accumulators do not fit {self.registers} registers beside their operands"
        possible = ext.get(axis1, 1) * ext.get(axis2, 1)
        if acc < min(4, possible):
            return "too few accumulators to hide latency"
        lanes = k("lanes")
        if lanes > self.lanes or (k("vectors") - 1) * lanes >= ext[k("vec")]:
            return "vectors reach beyond the axis"
        taps = [ext[w] for w in roles.window]
        body = acc * math.prod(taps[-k("unroll"):]) if k("unroll") else acc
        body *= math.prod(ext[t] for t in roles.table)
        if body > _BODY:
            return f"unrolled body of {body} operations"
        blocks = -(-ext[k("vec")] // (k("lanes") * k("vectors")))
        if k("order") == "position" and blocks == 1 and k("producer") != "tile":
            return "with one block of vectors the order says nothing"
        wrong = self._no_dot(s, ext, roles, k) if c.get(f"{s.name}.dot") else None
        if wrong:
            return wrong
        if k("copies") != "root" and k("padding") != "stage" and k("pack") == "plain" and k("vec") not in roles.spatial and self.program.layout == "channels_last":
            return "there are no copies to place"
        if k("producer") == "tile" and k("order") != "position":
            return "a producer inside the tile would run again for every vector block"
        if isinstance(k("producer"), int):
            found = P.columns(self.program, s, k("vec"))
            if found is None or not _fits(k("producer"), ext[found[0]]) or k("producer") % k("tile2"):
                return "there are no such bands to produce columns for"
            if k("order") != "vector" or c.get(f"{s.name}.dot") or k("copies") != "root" or k("store") == "tile" and "row" in self.domains[f"{s.name}.store"]:
                return "the sums of a band are stored together"
        if k("padding") == "inline" and k("vec") in roles.spatial:
            return "padding cannot be inlined along the vector axis"
        if k("padding") == "skip":
            row = P.row_axis(self.program, s, c)
            if row is not None and body * -(-ext[row] // k("tile1")) > _ROW:
                return "too much code for the tiles of one row"
            if not self._left_out(s, c):
                return "with this tile no term could be left out"
        if k("store") == "row" and k("order") == "position":
            return "a row is complete only when the vector blocks are outside"
        if isinstance(k("order"), int):
            if axis1 is None or -(-ext[axis1] // k("tile1")) % k("order") or P.row_phase(self.program, s) is not None:
                return "there are no such bands of tiles"
            if k("copies") != "root" or k("producer") != "root" or k("store") == "row":
                return "bands of tiles have neither copies nor whole rows of their own"
        if isinstance(k("copies"), int):
            rows = roles.spatial[-2]
            count = -(-ext[rows] // {axis1: k("tile1"), axis2: k("tile2")}.get(rows, 1))
            if k("order") == "position" or k("producer") == "tile" or k("vec") == rows or count % k("copies") or k("copies") == count > 1:
                return "there are no such bands of rows"
            if any(ext[a] > 1 for a in roles.channel) and P.row_phase(self.program, s) is not None:
                return "bands do not part rows whose phases take turns"
        if k("copies") == "outer" and k("order") == "position" and not roles.channel and ext[k("vec")] > 4 * lanes:
            return "copies would be repeated for every vector"
        if k("copies") == "outer" and k("order") == "vector" and roles.channel and ext[k("vec")] > 4 * lanes * k("vectors"):
            return "copies would be repeated for every output channel block"
        return None

    def _vectors_cut(self, tiles, c) -> str | None:
        """Why tiles would cut through the vectors of a stage that has no knobs, or None."""
        for p in P.make(self.program, c, self.lanes).stages:
            if p.stage is self.program.run_stages[-1]:
                continue
            need, moved = self._inside(p.stage, tiles)
            if p.vec in moved and (need[p.vec] % p.lanes or not self.cuts.aligned(p.stage, p.vec, tiles, p.lanes)):
                return f"tiles cut through the vectors of {p.stage.name}"
        return None

    def _no_dot(self, s, ext, roles, k) -> str | None:
        """Why the dot product instruction cannot compute a stage under these knobs, or None."""
        product = dot.find(self.program, s)
        if k("lanes") not in self.instructions.lanes(product.dtypes, self.target):
            return f"no dot product instruction has {k('lanes')} lanes here"
        data, weight = (set(P.vector_kinds(l, k("vec"), ext, k("lanes"))) for l in (product.data, product.weight))
        if not data <= {"free", "constant"} or "plain" not in weight or not weight <= {"free", "plain"}:
            return "the dot product instruction needs other weights in every lane, and the same data"
        if k("padding") != "stage":
            return "the dot product instruction reads padded data from a copy"
        inner = product.data.args[self.program.tensor(product.data.data[0]).permutation(self.program.layout)[-1]]
        if k("pack") == "plain" and product.axis not in inner.axes():
            return "the dot product instruction needs its channels side by side"
        if product.grouped and k("pack") == "blocked" and not k("block"):
            return "blocks of channels would span groups"
        return None

    def draw(self, rng) -> dict:
        """Anchor by anchor, so that one anchor's constraints do not throw away what the others drew."""
        c = super().draw(rng)
        tiles = tiles_of(c)
        for name, own in self._own.items():
            for _ in range(60):
                if self._anchor_constraint(name, tiles, c) is None:
                    break
                c |= {k: rng.choice(values) for k, values in own.items()}
        return c

    # -- default --------------------------------------------------------------------------------------------------------
    def default(self) -> dict:
        """A decent point without measuring: whole tiles that nearly fill the registers, staged padding, enough parallel work."""
        tiles = self._default_cut()
        c = self._default(tiles)
        return c if not tiles or self.constraint(c) is None else self._default({})

    def _default(self, tiles) -> dict:
        c = {n: v[0] for n, v in self.domains.items()}
        for s, ext, roles in reversed(self._info.values()):  # a dense stage reads numbers, not vectors: its own may lie as its reader takes them
            wanted = self._taken(s, c) if any(ext[a] > 1 for a in roles.channel) else None
            if wanted in self.domains[f"{s.name}.vec"]:
                c[f"{s.name}.vec"] = wanted
        c |= {f"cut.{a}": size for a, size in tiles.items()}
        for s, _, roles in self._info.values():
            n = s.name
            ext, moved = self._inside(s, tiles)
            dense = any(ext[a] > 1 for a in roles.channel)
            if dense:
                c[f"{n}.pack"] = "blocked"
                blocks = [b for b in self.domains[f"{n}.block"] if b]
                c[f"{n}.block"] = 16 if 16 in blocks else (blocks[-1] if blocks else 0)
            if tiles and s.name in self.cuts.needs(tiles):
                whole = [v for v in self.domains[f"{n}.vec"] if not (v in moved and v in roles.spatial) and ext[v] % c[f"{n}.lanes"] == 0]
                if whole and c[f"{n}.vec"] not in whole:
                    c[f"{n}.vec"] = whole[0]  # the other vectors would reach beyond the tile
                c[f"{n}.store"] = self.domains[f"{n}.store"][-1]
            elif steps := self._band(s, ext, c):
                c[f"{n}.producer"], c[f"{n}.store"] = steps, next((v for v in self.domains[f"{n}.store"] if v == "row"), self.domains[f"{n}.store"][-1])
                c[f"{n}.block"] = 0  # the sums leave their registers once per tap
            elif "tile" in self.domains[f"{n}.producer"] and not (roles.window and "inline" in self.domains[f"{n}.padding"]):
                c[f"{n}.producer"], c[f"{n}.order"] = "tile", "position"
            elif "tile" in self.domains[f"{n}.producer"] and ext[c[f"{n}.vec"]] > c[f"{n}.lanes"]:
                c[f"{n}.order"] = "position"  # reads what its producer left, border and all: one tile would produce most of what its neighbours do
            if dense and c[f"{n}.vec"] not in roles.spatial and "inline" not in self.domains[f"{n}.padding"] and self._readable(s):
                c[f"{n}.pack"] = "plain"  # without a border the data can be read where it is
            if c.get(f"{n}.dot"):
                product = dot.find(self.program, s)
                c[f"{n}.lanes"] = next((l for l in self.domains[f"{n}.lanes"] if l in self.instructions.lanes(product.dtypes, self.target)), c[f"{n}.lanes"])
                c[f"{n}.pack"] = "plain" if self.program.layout == "channels_last" else "blocked"  # channels side by side
                fits = lambda v: self._no_dot(s, ext, roles, lambda knob: (c | {f"{n}.vec": v})[f"{n}.{knob}"]) is None
                c[f"{n}.vec"] = next((v for v in self.domains[f"{n}.vec"] if fits(v)), c[f"{n}.vec"])
                c[f"{n}.dot"] = fits(c[f"{n}.vec"])
            c[f"{n}.unroll"] = 1 if 1 in self.domains[f"{n}.unroll"] else 0
            if c.get(f"{n}.dot"):  # taps side by side in one body would keep every broadcast in a register
                c[f"{n}.unroll"] = 0
                c[f"{n}.block"] = c[f"{n}.block"] if c[f"{n}.pack"] == "blocked" and dot.find(self.program, s).grouped else 0
            blocked = self.program.layout == "channels_last" or all(self.program.stage(l.data[0]) is not None for l in s.body.loads() if l.data[1])
            if not dense and "inline" in self.domains[f"{n}.padding"] and c[f"{n}.vec"] not in roles.spatial and blocked:
                c[f"{n}.padding"] = "inline"  # the border's tests are the same for all lanes: cheaper than a copy
                if self._dilated(s, roles) and 2 in self.domains[f"{n}.unroll"]:
                    c[f"{n}.unroll"] = 2
            found = []
            for padding in [c[f"{n}.padding"], *(p for p in self.domains[f"{n}.padding"] if p == "skip")]:
                for t1, t2, v in itertools.product(*(self.domains[f"{n}.{k}"] for k in ("tile1", "tile2", "vectors"))):
                    trial = c | {f"{n}.padding": padding, f"{n}.tile1": t1, f"{n}.tile2": t2, f"{n}.vectors": v}
                    if padding == "skip" and dense:
                        if t2 > 1:
                            continue  # rows of one tile would leave out different terms
                        if self.program.layout == "channels_last" and c[f"{n}.vec"] not in roles.spatial:
                            trial[f"{n}.pack"] = "plain"  # nothing is left to copy for
                    for trial[f"{n}.unroll"] in range(c[f"{n}.unroll"], -1, -1):
                        if self._anchor_constraint(s.name, tiles, trial) is None and not self._crowded(s, ext, roles, trial):
                            break
                    else:
                        continue
                    score = self._tile_score(s, ext, roles, trial) / (1 - self._left_out(s, trial))
                    found.append((score, trial))
            if found:
                c = self._stored(s, ext, roles, tiles, found)
            else:
                c[f"{n}.tile1"] = c[f"{n}.tile2"] = 1
            c = self._banded(s, ext, roles, tiles, c)
            if not (dense and roles.window) and self._shares_lines(s, ext, c):
                whole = c | {f"{n}.order": "position"}
                c = whole if self._anchor_constraint(n, tiles, whole) is None and self._left_out(s, whole) == self._left_out(s, c) else c
            if c[f"{n}.order"] == "vector" and not tiles:
                c = self._shared_out(s, ext, c)
        return c if tiles or self.target["threads"] == 1 else self._handed_on(c)

    def _shared_out(self, s, ext, c) -> dict:
        """The tiles in bands where there are too few blocks of vectors to keep all threads at work: few bands, but such that their data stay in the second-level cache."""
        n, threads = s.name, self.target["threads"]
        axis = P.tile_axes(self.program, s, c[f"{n}.vec"])[0]
        rest = [a.name for a in s.axes if a.name not in (axis, c[f"{n}.vec"])]
        units = -(-ext[c[f"{n}.vec"]] // (c[f"{n}.lanes"] * c[f"{n}.vectors"])) * math.prod(ext[a] for a in rest)
        idle = lambda bands: -(-units * bands // threads) * threads / (units * bands)
        trials = [t for t in (c | {f"{n}.order": b} for b in self.domains[f"{n}.order"] if isinstance(b, int)) if self._anchor_constraint(n, {}, t) is None]
        if idle(1) <= _IDLE or not trials:
            return c
        data = 4 * ext[axis] * math.prod(ext[a.name] for a in s.reduce)

        def cost(trial):
            bands = trial[f"{n}.order"]
            few = _FEW * bands / -(-ext[axis] // c[f"{n}.tile1"])  # in few tiles, a block's operand comes into the first cache for little work
            return idle(bands) * (1 + 0.1 * few) + 0.05 * (data / bands > self.target["l2"] / 2)
        return min(trials, key=cost)

    def _handed_on(self, c) -> dict:
        """A choice in which threads that share out positions read what they wrote themselves: the stages before do so, too, if their weights pass the first cache for every tile."""
        for s, ext, roles in reversed(self._info.values()):
            n, reader = s.name, self._reader(s)
            weights = 4 * math.prod(ext[a.name] for a in s.reduce) * ext[c[f"{n}.vec"]]
            if reader is not None and c.get(f"{reader.name}.order") == "position" and c[f"{n}.order"] == "vector" and not roles.window and weights <= self.target["l1"]:
                own = c | {f"{n}.order": "position"}
                c = own if self._anchor_constraint(n, {}, own) is None else c
        return c

    def _reader(self, s):
        """The one reduction that reads a stage's result, seen through maps, or None."""
        readers = [x for x in self.program.run_stages if any(l.data[0] == s.name for l in x.body.loads())]
        return None if len(readers) != 1 else readers[0] if readers[0].combiner else self._reader(readers[0])

    def _shares_lines(self, s, ext, c) -> bool:
        """Whether threads that share out the vector blocks write into the same lines of memory, which costs more than what they compute, and there are positions enough to share out."""
        n, threads, out = s.name, self.target["threads"], self.program.output
        inner = out.permutation(self.program.layout)[-1]
        if threads == 1 or P.epilogue_of(self.program)[0] is not s or len(s.axes) <= inner or s.axes[inner].name != c[f"{n}.vec"]:
            return False
        vec, size = c[f"{n}.vec"], count.BYTES[out.dtype]
        block = c[f"{n}.lanes"] * c[f"{n}.vectors"]
        blocks = -(-ext[vec] // block)
        own = block * (1 if blocks % threads else blocks // threads)  # what lies between two threads' parts of a position
        shared = own * size % _LINE > 0 or ext[vec] * size % _LINE > 0
        tiles = math.prod(ext[a.name] for a in s.axes if a.name != vec) // (c[f"{n}.tile1"] * c[f"{n}.tile2"])
        return blocks > 1 and shared and ext[vec] * size <= _NARROW * _LINE and tiles >= 8 * threads

    def _crowded(self, s, ext, roles, c) -> bool:
        """Whether the taps of a row meet in one body with so many numbers that the compiler, which keeps each for the next tap, runs out of registers."""
        n = s.name
        if not c[f"{n}.unroll"] or c[f"{n}.vec"] in roles.spatial or not 1 < math.prod(ext[a] for a in roles.channel) <= _SHORT:
            return False
        tile, last = P.tile_axes(self.program, s, c[f"{n}.vec"])[0], roles.window[-1]
        steps, taps = c[f"{n}.tile1"], ext[last]
        moves = [t[0] for t in (access.linear(i) for l in s.body.loads() for i in l.args if {tile, last} <= set(i.axes())) if t is not None]
        numbers = max((min(abs(m[tile]) * (steps - 1) + abs(m[last]) * (taps - 1) + 1, steps * taps) for m in moves), default=0) * c[f"{n}.tile2"]
        return steps * c[f"{n}.tile2"] * c[f"{n}.vectors"] + c[f"{n}.vectors"] + -(-numbers // self.numbers) > self.registers + 2

    def _stored(self, s, ext, roles, tiles, found) -> dict:
        """The best of the trials, (score, choice) each, once it is counted how its tiles are stored: as they are, in whole rows, or number by number."""
        n, best = s.name, (-math.inf, None)
        work = math.prod(ext[a.name] for a in s.reduce)
        for score, c in sorted(found, key=lambda pair: -pair[0]):  # stable: among equals the first
            if score <= best[0]:
                break
            if c[f"{n}.store"] == "tile" and len(self.domains[f"{n}.store"]) > 1 and self._scattered(s, ext, c):
                if self._anchor_constraint(n, tiles, c | {f"{n}.store": "row"}) is None:
                    c = c | {f"{n}.store": "row"}
                else:
                    score *= work / (work + _SINGLY)
            if score > best[0]:
                best = (score, c)
        return best[1]

    def _repeated(self, tiles) -> float:
        """Work of all tiles over the work without tiles, as the default weighs it."""
        return self.cuts.repeated(tiles)

    def _readable(self, s) -> bool:
        """Whether a dense stage may just as well read its numbers as they are stored."""
        return True

    def _default_cut(self) -> dict:
        """The tiles that keep most between the stages in the second-level cache, at little work twice and with work for all threads."""
        best = None
        for sizes in itertools.product(*([*v[::-1], 0] for v in self.cuts.sizes.values())):
            tiles = {a: v for a, v in zip(self.cuts.sizes, sizes) if v}
            if len(tiles) > 2:
                continue
            trips, threads, l2 = self.cuts.trips(tiles), self.target["threads"], self.target["l2"]
            idle = -(-trips // threads) * threads / trips if tiles else 1.0
            spilled = max(0.0, math.log2(max(1, self.cuts.bytes(tiles)) / (0.75 * l2)))
            fixed = self.cuts.fixed_bytes(tiles)
            again = trips * fixed * (2 if fixed < l2 else 4) / max(1, self.program.flops) if tiles else 0.0  # an operation takes as long as half a byte
            cost = (self._repeated(tiles) * idle + again + 0.03 * len(tiles) if tiles else 1.0) * (1 + 0.12 * spilled)
            if self._transforms():
                cost = self._transformed_cost(tiles, idle)
            held = self.cuts.bytes(tiles) * (threads if tiles else 1)
            if held > (count.CALL - 1) * count.border_bytes(self.program):
                cost *= _HELD
            if best is None or cost < best[0]:
                best = (cost, tiles)
        return best[1]

    def _transforms(self) -> bool:
        """Whether sums with constant coefficients, tile by tile, are among the stages."""
        return any(0 < access.period(s, a.name) < value_of(a.size) for s in self.program.run_stages for a in s.axes)

    def _transformed_cost(self, tiles, idle) -> float:
        """Time of stages with transforms in between, as a multiple of what their work takes: kernels are read for every tile, in order, and what a cache cannot hold is written and read."""
        trips, held = self.cuts.trips(tiles), self.cuts.bytes(tiles)
        beyond = trips * max(0, held - 0.75 * self.target["l2"]) * (_BEYOND if not self.target["l3"] or held <= self.target["l3"] else 2 * _BEYOND)
        traffic = (_STREAM * trips * self.cuts.fixed_bytes(tiles) + beyond) / max(1, self.program.flops)
        inner = self.program.output.permutation(self.program.layout)[-1]
        rows = inner in self.program.output.spatial and self.program.run_stages[-1].axes[inner].name in tiles
        return (self._repeated(tiles) * idle if tiles else 1.0) + traffic + 0.03 * len(tiles) + _PARTS * rows

    def _left_out(self, s, c) -> float:
        """The share of a stage's terms that a choice leaves out."""
        return borders.in_padding(self.program, s, lambda load: P.skipped(self.program, s, load, c)) if c[f"{s.name}.padding"] == "skip" else 0.0

    def work(self, c) -> int:
        """Operations that a choice executes, terms that a condition makes zero included; those that one lane of an instruction does together count as one multiply-add."""
        every = {s.name: 2 * math.prod(access.extents(s).values()) for s in self.program.run_stages if s.combiner}
        together = lambda s: dot.find(self.program, s).width if c.get(f"{s.name}.dot") else 1
        done = {name: (1 - self._left_out(s, c)) / together(s) for name, (s, _, _) in self._info.items()}
        return int(sum(n * done.get(name, 1) for name, n in every.items()))

    def spilled(self, c) -> int:
        """Bytes of intermediate results that the last cache cannot hold: they are written to memory and read again."""
        tiles = tiles_of(c)
        held = self.cuts.bytes(tiles) * (self.target["threads"] if tiles else 1)
        return 2 * max(0, held - self.target["l3"]) if self.target["l3"] else 0

    def _scattered(self, s, ext, c) -> bool:
        """Whether a tile would be stored number by number: its vectors lie across the output's rows and cannot be turned, or not as whole tiles."""
        inner, tile = self.program.output.permutation(self.program.layout)[-1], c[f"{s.name}.tile1"]
        if len(s.axes) <= inner or s.axes[inner].name == c[f"{s.name}.vec"]:
            return False
        vec = c[f"{s.name}.vec"]
        axis, phase = P.tile_axes(self.program, s, vec)
        if phase is not None and phase == P.row_phase(self.program, s):
            if c[f"{s.name}.tile2"] != ext[phase]:
                return True
            if vec == s.axes[inner - 1].name:  # phases interleave in whole vectors or whole rows
                return ext[vec] % c[f"{s.name}.lanes"] > 0 and ext[vec] > c[f"{s.name}.lanes"] * c[f"{s.name}.vectors"]
            tile *= ext[phase]
        part = ext.get(axis, 1) % tile or ext[vec] % (c[f"{s.name}.lanes"] * c[f"{s.name}.vectors"])
        return tile < 4 or part > 0 or P.make(self.program, c, self.lanes).turn is None

    def _band(self, s, ext, c) -> int:
        """For how many steps of the output what a sum reads is best produced together; 0 where its parameters stay in the second-level cache, so that tiles may pass over them."""
        n, threads = s.name, self.target["threads"]
        steps = [t for t in self.domains[f"{n}.producer"] if isinstance(t, int)]
        found = P.columns(self.program, s, c[f"{n}.vec"]) if steps else None
        if found is None:
            return 0
        rows, taps = found
        made = {x.name for x in self.program.run_stages}
        used = [(l.data[0] in made, {a for i in l.args for a in i.axes()} - set(taps)) for l in s.body.loads()]
        held = 4 * math.prod(ext[a] for a in set(taps).union(*(axes for own, axes in used if not own and rows not in axes)))
        if held <= self.target["l2"] / 2:
            return 0
        beside = P.tile_axes(self.program, s, c[f"{n}.vec"])[0]
        bands = math.prod(ext[a.name] for a in s.axes if a.name not in (c[f"{n}.vec"], beside, rows))

        def cost(t):
            positions, trips = t * ext.get(beside, 1), bands * -(-ext[rows] // t)
            idle = (-(-trips // threads) + 0.25) * threads * t / (bands * ext[rows])
            bytes_ = 4 * positions * (ext[c[f"{n}.vec"]] + sum(math.prod(ext[a] for a in axes - {rows, beside}) for own, axes in used if own))
            return idle * (1 + _STREAMED / positions) * (1 + max(0.0, math.log2(2 * bytes_ / self.target["l2"])))
        return min((t for t in steps if _fits(t, ext[rows])), key=cost, default=0)

    def _banded(self, s, ext, roles, tiles, c):
        """Copies in bands of rows where that is possible: few enough that little is copied twice, enough for every thread and for the second-level cache."""
        n, threads = s.name, self.target["threads"]
        trials = [c | {f"{n}.copies": b} for b in self.domains[f"{n}.copies"] if isinstance(b, int)]
        trials = [t for t in trials if self._anchor_constraint(n, tiles, t) is None]
        staged = sum(4 * math.prod(o.layout.shape) for o in P.make(self.program, c, self.lanes).stage(n).operands.values() if o.kind == "staged")
        if not trials or not staged:
            return c
        rows, blocks = roles.spatial[-2], -(-ext[c[f"{n}.vec"]] // (c[f"{n}.lanes"] * c[f"{n}.vectors"]))
        loads = [(l, {a for i in l.args for a in i.axes()}) for l in s.body.loads()]
        if any(ext[a] > 1 for a in roles.channel):  # all outputs of a band are computed from its copies, by one thread that reads all their weights
            if sum(4 * math.prod(ext[a] for a in axes) for _, axes in loads if rows not in axes) > _WEIGHTS * self.target["l2"]:
                return c
            planes = math.prod(ext[a.name] for a in s.axes if a.name not in roles.spatial and any({rows, a.name} <= axes for _, axes in loads))
        else:
            planes = math.prod(ext[a.name] for a in s.axes if a.name not in (*roles.spatial[-2:], c[f"{n}.vec"])) * (1 if c[f"{n}.vec"] in roles.spatial else blocks)
        moves = [t[0] for t in (access.linear(i) for l, _ in loads for i in l.args if rows in i.axes() and len(i.axes()) > 1) if t is not None]
        step, halo = max((abs(m[rows]), sum(abs(k) * (ext[a] - 1) for a, k in m.items() if a != rows)) for m in moves) if moves else (1, 0)

        def cost(trial):
            bands = trial[f"{n}.copies"]
            copied = (ext[rows] // bands * step + halo) / (ext[rows] * step + halo) * bands
            work = planes * bands / threads
            return (2 + copied) * math.ceil(work) / work + (staged / planes * copied / bands > self.target["l2"] / 2)
        return min(trials, key=cost)

    def _dilated(self, s, roles) -> bool:
        """Whether neighbouring taps of a row meet inputs that are not neighbours."""
        last = roles.window[-1] if roles.window else None
        terms = [access.linear(i) for l in s.body.loads() for i in l.args if last in i.axes() and len(i.axes()) > 1]
        return any(t is not None and abs(t[0].get(last, 1)) > 1 for t in terms)

    def _tile_score(self, s, ext, roles, c):
        n = s.name
        t1, t2, v = (c[f"{n}.{k}"] for k in ("tile1", "tile2", "vectors"))
        axes = P.tile_axes(self.program, s, c[f"{n}.vec"])
        e1, e2 = (ext.get(a, 1) for a in axes)
        waste = (-(-e1 // t1) * t1 / e1) * (-(-e2 // t2) * t2 / e2)
        if t2 > 1 and any(e.op == "select" and {axes[1]} & set(e.args[0].axes()) and E.is_const(e.args[2], 0.0) for e in s.body.walk()):
            waste *= 1.5  # a condition that differs from row to row of the tile is asked for every product
        blocks = -(-ext[c[f"{n}.vec"]] // c[f"{n}.lanes"])
        waste *= -(-blocks // v) * v / blocks
        acc = t1 * t2 * v
        pixels = t1 * t2
        most, phase = self.side_by_side, P.row_phase(self.program, s)  # vectors that cost nothing
        if any(ext[x] > 1 for x in roles.channel):
            # a dense tile reads one vector per v and one number per pixel for acc multiply-adds; two reads and two multiply-adds start per cycle
            reads = t1 + t2 * v if phase is not None and phase == axes[1] else pixels + v  # phases meet the same numbers
            if roles.window and c[f"{n}.vec"] in roles.spatial:  # vectors of data, and weights a number each: outputs side by side share the vectors
                sizes = {axes[0]: t1, axes[1]: t2, c[f"{n}.vec"]: v}
                reads = sum(math.prod(size for a, size in sizes.items() if any(a in i.axes() for i in l.args)) for l in s.body.loads())
            most = most if phase is None or phase != axes[1] else most // t2
            reuse = min(acc / reads, self.reuse)
        elif roles.window:
            # unrolled taps of a row meet the same inputs: they stay in registers if tile and window fit, else each multiply-add loads its own
            taps, most, sizes = ext[roles.window[-1]], 1, {axes[0]: t1, axes[1]: t2, c[f"{n}.vec"]: v}
            reads, slow = 0, 1.0 if acc <= self.registers // 2 else 0.9
            for load in s.body.loads():
                vectors = math.prod(size for a, size in sizes.items() if any(a in i.axes() for i in load.args))
                along = [d for d, i in enumerate(load.args) if {axes[0], roles.window[-1]} <= set(i.axes())]
                if not along:
                    reads += vectors * taps
                    continue
                positions = t1 + taps - 1
                if c[f"{n}.padding"] == "skip" and borders.droppable(s, load):
                    positions = min(positions, (self.program.tensor(load.data[0]) or self.program.stage(load.data[0])).shape[along[0]])
                row = vectors // t1 * positions
                fits = c[f"{n}.unroll"] and acc + row <= self.registers + 2
                reads += row if fits else vectors * taps
                slow = min(slow, 1.0 if fits else 0.8 if acc <= self.registers // 2 else 0.4)  # the compiler spills large tiles
                if c[f"{n}.padding"] != "stage" and self.program.layout == "channels_last" and c[f"{n}.vec"] not in roles.spatial:
                    # positions lie a pixel apart in memory: at some distances they all fall into few sets of the cache
                    slow *= 0.5 if positions * math.gcd(4 * ext[c[f"{n}.vec"]], _PAGE) >= self.target["l1"] else 1.0
            reuse = min(1.0, acc * taps / reads) * slow
        else:
            reuse = acc / (acc + v) * (1.0 if acc + t1 * v <= self.registers + 2 else 0.4)
        if phase is not None and phase == axes[1] and t2 < e2:
            reuse *= 0.8  # phases apart cannot be stored from the tile
        units = (-(-e1 // t1)) * (-(-e2 // t2)) * -(-blocks // v) * math.prod(e for a, e in ext.items() if a in {x.name for x in s.axes} and a not in (*axes, c[f"{n}.vec"]))
        balance = min(1.0, units / (4 * self.target["threads"])) if not any(c[f"cut.{a}"] for a in self.cuts.sizes) else 1.0  # tiles of the output share the threads
        return reuse * min(acc, 12) / 12 * balance / waste ** 2 - 0.02 * (t2 > 1) - 0.01 * (v > most)

    # -- features -------------------------------------------------------------------------------------------------------
    def features(self, c) -> list:
        """Numbers a cost model can rank by; the same length for every workload."""
        plan = P.make(self.program, c, self.lanes)
        row = [math.log(self.program.flops + 1), math.log(self.program.bytes + 1), math.log(P.staged_bytes(plan) + 1), len(self.anchors)]
        tiles = tiles_of(c)
        row += [math.log(self.cuts.bytes(tiles) + 1), math.log(self.cuts.trips(tiles)), self.cuts.repeated(tiles) if tiles else 1.0]
        heaviest = sorted(self.anchors, key=lambda s: s.flops, reverse=True)
        for i in range(2):
            row += self._anchor_features(heaviest[i], c, plan) if i < len(heaviest) else [0.0] * len(_FEATURES)
        return [float(v) for v in row]

    def _anchor_features(self, s, c, plan):
        _, ext, roles = self._info[s.name]
        k = lambda n: c[f"{s.name}.{n}"]
        p = plan.stage(s.name)
        t1, t2, v, lanes = k("tile1"), k("tile2"), k("vectors"), k("lanes")
        acc = t1 * t2 * v
        taps, channel = math.prod(ext[w] for w in roles.window), math.prod(ext[a] for a in roles.channel)
        e1, e2 = (ext.get(a, 1) for a in P.tile_axes(self.program, s, k("vec")))
        blocks = -(-ext[k("vec")] // lanes)
        waste = (-(-e1 // t1) * t1 / e1) * (-(-e2 // t2) * t2 / e2) * (-(-blocks // v) * v * lanes / ext[k("vec")])
        depth = (k("block") or channel or 1) * taps
        l1 = 4 * depth * (v * lanes + t1 * t2) / self.target["l1"]
        staged = sum(math.prod(o.layout.shape) for o in p.operands.values() if o.kind == "staged")
        unroll = math.prod([ext[w] for w in roles.window][-k("unroll"):]) if k("unroll") else 1
        return [math.log(taps), math.log(channel + 1), math.log(e1), math.log(e2), math.log(ext[k("vec")]), t1, t2, v, lanes, acc, acc / (t1 * t2 + v), waste, math.log(l1 + 1e-6),
                math.log(staged + 1), math.log(acc * unroll), k("order") == "position", k("inner") == "window", k("padding") == "inline", k("pack") == "blocked", k("copies") != "root",
                math.log1p(k("copies") if isinstance(k("copies"), int) else 0), k("store") == "pass", k("store") == "row", k("vec") in roles.spatial, k("block"), k("unroll"),
                self.program.layout == "channels_last", self._left_out(s, c), bool(c.get(f"{s.name}.dot")), math.log1p(P.band(s, c)), math.log(k("order")) if isinstance(k("order"), int) else 0.0]


_FEATURES = ["taps", "channel", "extent1", "extent2", "extent_vec", "tile1", "tile2", "vectors", "lanes", "accumulators", "intensity", "waste", "l1", "staged", "body", "position",
             "window_inner", "inline", "blocked", "local_copies", "bands", "pass", "row", "spatial_vec", "block", "unroll", "channels_last", "left_out", "dot", "columns", "tile_bands"]
