"""Stages that run tile by tile of the output: which axes may be cut, which stages follow, and what is computed twice.

A tile keeps what lies between the stages of a block, or of Winograd, in cache. Pure Python over a program; every target's space may use it.
"""

from __future__ import annotations

import math

from convgen.lang import access, cuts
from convgen.lang.ranges import interval, whole
from convgen.lang.size import tree_of, value_of

TWICE = 1.5  # work that tiles may repeat at their borders, as a multiple of the work without tiles
_FEW = (1, 2, 4, 8)  # of an axis that no vector runs along
_SIZES = (1, 2, 3, 4, 6, 7, 8, 12, 14, 16, 24, 28, 36, 48, 56)
_OVERHANG = 1.15  # how far the last tile may reach beyond the output


class Cuts:
    """The ways to cut the output of one program. `sizes`: axis → tile sizes; empty where tiles are of no use."""

    def __init__(self, program, lanes: int):
        self.program, self.lanes = program, lanes
        self._needs, self._repeats, self._lengths, self._starts, self._shares, self._tests = {}, {}, {}, {}, {}, {}
        last = program.run_stages[-1]
        self.extents = {a.name: value_of(a.size) for a in last.axes}
        self.moved = access.moved(program)
        self.batch = {a.name: 1 for a in last.axes if tree_of(a.size) == "N"}
        self.positions = self._positions()
        self.sizes = {a: sizes for a in self._axes() if (sizes := self._sizes(a))}

    def _axes(self) -> list:
        """Axes of the output that all reductions depend on: cutting them cuts all the work."""
        heavy = [s.name for s in self.program.run_stages if s.combiner]
        if len(heavy) < 2:
            return []
        return [a for a, n in self.extents.items() if a not in self.batch and n > 1 and all(self.moved.get(s, {}).get(a) for s in heavy)]

    def _sizes(self, axis) -> list:
        extent = self.extents[axis]
        sizes = _SIZES if axis in self.positions else [*(_FEW if self._without_lanes(axis) else ()), *(v * self.lanes for v in (1, 2, 4))]
        fits = [v for v in sizes if v < extent and -(-extent // v) * v <= _OVERHANG * extent]
        return [v for v in fits if self.regular({axis: v}) and self.repeated({axis: v}) <= TWICE]

    def _without_lanes(self, axis) -> bool:
        """Whether every reduction has whole vectors along axes of its own (points of a transform), so that those along this axis are not needed."""
        own = lambda s: [a for a in s.axes if a.name not in self.extents and a.name not in self.moved[s.name][axis] and value_of(a.size) % self.lanes == 0]
        return all(own(s) for s in self.program.run_stages if s.combiner)

    def _positions(self) -> set:
        """Axes of the output that some stage meets as a position in a window."""
        found = set()
        for s in self.program.run_stages:
            spatial = set(access.roles(s).spatial)
            found |= {a for a, names in self.moved.get(s.name, {}).items() if names & spatial}
        return found

    def needs(self, tiles) -> dict:
        """Stage name → {axis: extent} that one tile in the middle needs of each stage that runs inside it; nothing without tiles."""
        key = tuple(sorted(tiles.items()))
        if key not in self._needs:
            middle = {a: -(-self.extents[a] // size) // 2 for a, size in tiles.items()}
            self._needs[key] = _extents(regions(self.program, self.moved, tiles | self.batch, middle, longer=self.lengths(tiles))) if tiles else {}
        return self._needs[key]

    def lengths(self, tiles) -> dict:
        """Stage name → {axis: extent} of what tiles lengthen; see cuts.lengths."""
        key = tuple(sorted(tiles.items()))
        if key not in self._lengths:
            self._lengths[key] = cuts.lengths(self.program, tiles)
        return self._lengths[key]

    def regular(self, tiles) -> bool:
        """Whether tiles need equally much (borders aside), something of every stage, and one step further each time: then loops inside have one extent."""
        needs = [regions(self.program, self.moved, tiles, {a: t for a in tiles}, clip=False) for t in range(8)]
        steps = [{(s, a): now[s][a][0] - before[s][a][0] for s in now for a in now[s]} for before, now in zip(needs, needs[1:])]
        if any(_extents(n) != _extents(needs[0]) for n in needs) or any(x != steps[0] for x in steps):
            return False
        reads = reads_of(self.program)
        trips = range(max(-(-self.extents[a] // size) for a, size in tiles.items()))
        exists = (regions(self.program, self.moved, tiles, {a: t for a in tiles}, reads=reads, longer=self.lengths(tiles)) for t in {*trips[:2], *trips[-2:]})  # in between they reach less far out
        return all(hi >= lo for n in exists for r in n.values() for lo, hi in r.values())

    def aligned(self, stage, axis, tiles, lanes) -> bool:
        """Whether every tile needs a stage from a whole vector along an axis on."""
        key = tuple(sorted(tiles.items()))
        if key not in self._starts:
            self._starts[key] = [regions(self.program, self.moved, tiles, {a: t for a in tiles}, clip=False) for t in (1, 2)]
        return all(need[stage.name][axis][0] % lanes == 0 for need in self._starts[key])

    def repeated(self, tiles) -> float:
        """Work of all tiles over the work without tiles; at least 1."""
        key = tuple(sorted(tiles.items()))
        if key not in self._repeats:
            need, before, after = self.needs(tiles), 0.0, 0.0
            for s in self.program.run_stages:
                work, full = s.flops or math.prod(access.extents(s).values()), access.extents(s)
                before += work
                after += work * (self.trips(tiles) * math.prod(n / full[a] for a, n in need[s.name].items()) if s.name in need else 1)
            self._repeats[key] = after / before
        return self._repeats[key]

    def executed(self, tiles) -> float:
        """Work that all tiles do over the work without tiles: those at the borders have less of it than the one in the middle. Tiles of the output itself count in full."""
        need, before, after = self.needs(tiles), 0.0, 0.0
        for s in self.program.run_stages:
            work = s.flops or math.prod(access.extents(s).values())
            before += work
            after += work * (math.prod(self._share(a, size)[s.name] for a, size in tiles.items()) if s.name in need else 1)
        return after / before

    def _share(self, axis, size) -> dict:
        """Stage name → what the tiles along one axis compute of it in all, as a multiple of it."""
        if (axis, size) not in self._shares:
            tiles, trips = {axis: size}, -(-self.extents[axis] // size)
            found = {}
            for t, times in ((0, 1), (1, trips - 2), (trips - 1, 1)):  # in between all are alike
                need = _extents(regions(self.program, self.moved, tiles, {axis: t}, longer=self.lengths(tiles))) if times else {}
                for name, ext in need.items():
                    full = access.extents(self.program.stage(name))
                    found[name] = found.get(name, 0.0) + times * math.prod(ext[a] / full[a] for a in self.moved[name][axis])
            self._shares[axis, size] = found
        return self._shares[axis, size]

    def tested(self, tiles) -> dict:
        """Stage name → the axes along which its loops inside a tile ask where it ends, because tiles at the borders need less of it than others."""
        found = {}
        for axis, size in tiles.items():
            if (axis, size) not in self._tests:
                self._tests[axis, size] = self._tested(axis, size)
            for name, axes in self._tests[axis, size].items():
                found[name] = found.get(name, set()) | axes
        return found

    def _tested(self, axis, size) -> dict:
        tiles, longer = {axis: size}, self.lengths({axis: size})
        first, last = (regions(self.program, self.moved, tiles, {axis: t}, clip=False, longer=longer) for t in (0, -(-self.extents[axis] // size) - 1))
        ends = {s.name: access.extents(s) | longer.get(s.name, {}) for s in self.program.run_stages}
        return {name: {a for a in self.moved[name][axis] if need[a][0] < 0 or last[name][a][1] >= ends[name][a]} for name, need in first.items()}

    def trips(self, tiles) -> int:
        """Number of tiles, samples counted."""
        return math.prod(-(-self.extents[a] // size) for a, size in (tiles | self.batch).items()) if tiles else 1

    def fixed_bytes(self, tiles) -> int:
        """Bytes of prepared parameters that every tile reads anew."""
        return sum(size for size, along in self._parameters(tiles) if not along)

    def streamed(self, tiles) -> int:
        """Bytes of prepared parameters that all tiles together read where no cache keeps them: along the axes that they have, each tile reads a part."""
        return sum(size * self.trips({a: t for a, t in tiles.items() if a not in along}) for size, along in self._parameters(tiles))

    def _parameters(self, tiles):
        """(bytes, the cut axes that it has) of every prepared parameter."""
        found = {}
        for s in self.program.run_stages:
            for load in s.body.loads():
                if load.data[0] in self.program.constants:
                    used = {n for i in load.args for n in i.axes()}
                    size = 4 * math.prod(self.program.shape(load.data[0]))
                    found[load.data[0]] = size, {a for a in tiles if self.moved.get(s.name, {}).get(a, set()) & used}
        return found.values()

    def bytes(self, tiles) -> int:
        """Bytes of the intermediate results that one tile (without tiles: everything) holds."""
        last = self.program.run_stages[-1].name
        if not tiles:
            return sum(4 * math.prod(s.shape) for s in self.program.run_stages[:-1])
        return sum(4 * math.prod(need.values()) for name, need in self.needs(tiles).items() if name != last)


def _extents(need):
    return {name: {a: hi - lo + 1 for a, (lo, hi) in ranges.items()} for name, ranges in need.items()}


def reads_of(program) -> list:
    """(stage, its extents, its reads of earlier ones as (stage, load)) of every run-time stage."""
    return [(s, access.extents(s), [(source, load) for load in s.body.loads() if (source := program.stage(load.data[0])) is not None]) for s in program.run_stages]


def regions(program, moved, tiles, trip, clip=True, reads=None, longer=None) -> dict:
    """Stage name → {axis: (first, last)} that one tile needs of each stage that depends on every cut axis.

    `moved`: access.moved(program); `tiles`: axis → size; `trip`: axis → number of the tile; `clip`: count only what exists; `reads`: reads_of(program), where it is at hand; `longer`: cuts.lengths.
    """
    reads = reads or reads_of(program)
    follow = {name for name, axes in moved.items() if all(axes[a] for a in tiles)}
    extents = {s.name: e | (longer or {}).get(s.name, {}) for s, e, _ in reads}
    last = reads[-1][0].name
    need = {last: whole(extents[last]) | {a: (size * trip.get(a, 0), size * (trip.get(a, 0) + 1) - 1) for a, size in tiles.items()}}
    for s, own, loads in reversed(reads):
        if s.name not in need:
            continue
        ranges = need[s.name] | whole({a.name: own[a.name] for a in s.reduce})
        for source, load in loads:
            if source.name not in follow:
                continue
            ext = extents[source.name]
            old = need.get(source.name, {})
            new = {}
            for d, (a, index) in enumerate(zip(source.axes, load.args)):
                before = access.padding(load, d)[0]
                lo, hi = interval(index, ranges)
                lo, hi = lo - before, hi - before
                if clip:
                    lo, hi = max(0, lo), min(ext[a.name] - 1, hi)
                if a.name in old:
                    lo, hi = min(lo, old[a.name][0]), max(hi, old[a.name][1])
                new[a.name] = (lo, hi)
            need[source.name] = new
    return need
