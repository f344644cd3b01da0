"""In how many bands the default works: steps of the output that share columns, rows that share copies, tiles that threads share out."""

from __future__ import annotations

import math

from convgen.emit import banded, plan as P, tiling
from convgen.lang import access

from . import limits
from .domains import band_fits

_WEIGHTS = 2  # second-level caches full of weights that every thread may read
_STREAMED = 4  # multiply-adds that take as long as reading a number from beyond the second-level cache
_IDLE = 1.03  # threads' time over their work from which on sharing it out better is worth more than what it costs
_FEW = 4  # tiles of a band for which fetching a block's operand is as much work as a tenth of theirs


def of_columns(leaf, anchor, c) -> int:
    """For how many steps of the output what a sum reads is best produced together; 0 where its parameters stay in the second-level cache, so that tiles may pass over them."""
    s, ext, _ = anchor
    n, threads, l2 = s.name, leaf.target["threads"], leaf.target["l2"]
    steps = banded.numbers(leaf.domains[f"{n}.producer"])
    found = tiling.columns(leaf.program, s, c[f"{n}.vec"]) if steps else None
    if found is None:
        return 0
    rows, taps = found
    made = {x.name for x in leaf.program.run_stages}
    used = [(l.data[0] in made, {a for i in l.args for a in i.axes()} - set(taps)) for l in s.body.loads()]
    held = anchor.nbytes(set(taps).union(*(axes for own, axes in used if not own and rows not in axes)))
    if held <= l2 / 2:
        return 0
    beside = tiling.tile_axes(leaf.program, s, c[f"{n}.vec"])[0]
    bands = math.prod(ext[a.name] for a in s.axes if a.name not in (c[f"{n}.vec"], beside, rows))

    def cost(t):
        positions, trips = t * ext.get(beside, 1), bands * -(-ext[rows] // t)
        idle = (-(-trips // threads) + 0.25) * threads * t / (bands * ext[rows])
        bytes_ = 4 * positions * (ext[c[f"{n}.vec"]] + sum(math.prod(ext[a] for a in axes - {rows, beside}) for own, axes in used if own))
        return idle * (1 + _STREAMED / positions) * (1 + max(0.0, math.log2(2 * bytes_ / l2)))
    return min((t for t in steps if band_fits(t, ext[rows])), key=cost, default=0)


def of_rows(leaf, anchor, tiles, c) -> dict:
    """Copies in bands of rows where that is possible: few enough that little is copied twice, enough for every thread and for the second-level cache."""
    s, ext, roles = anchor
    n, threads, l2 = s.name, leaf.target["threads"], leaf.target["l2"]
    trials = [c | {f"{n}.copies": b} for b in banded.numbers(leaf.domains[f"{n}.copies"])]
    trials = [t for t in trials if limits.of_anchor(leaf, n, tiles, t) is None]
    staged = sum(4 * math.prod(o.layout.shape) for o in P.make(leaf.program, c, leaf.lanes).stage(n).operands.values() if o.kind == "staged")
    if not trials or not staged:
        return c
    rows, blocks = roles.spatial[-2], -(-ext[c[f"{n}.vec"]] // (c[f"{n}.lanes"] * c[f"{n}.vectors"]))
    loads = [(l, {a for i in l.args for a in i.axes()}) for l in s.body.loads()]
    if anchor.dense:  # all outputs of a band are computed from its copies, by one thread that reads all their weights
        if sum(anchor.nbytes(axes) for _, axes in loads if rows not in axes) > _WEIGHTS * l2:
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
        return (2 + copied) * math.ceil(work) / work + (staged / planes * copied / bands > l2 / 2)
    return min(trials, key=cost)


def of_tiles(leaf, anchor, c) -> dict:
    """The tiles in bands where there are too few blocks of vectors to keep all threads at work: few bands, but such that their data stay in the second-level cache."""
    s, ext, _ = anchor
    n, threads = s.name, leaf.target["threads"]
    axis = tiling.tile_axes(leaf.program, s, c[f"{n}.vec"])[0]
    rest = [a.name for a in s.axes if a.name not in (axis, c[f"{n}.vec"])]
    units = -(-ext[c[f"{n}.vec"]] // (c[f"{n}.lanes"] * c[f"{n}.vectors"])) * math.prod(ext[a] for a in rest)
    idle = lambda bands: -(-units * bands // threads) * threads / (units * bands)
    trials = [t for t in (c | {f"{n}.order": b} for b in banded.numbers(leaf.domains[f"{n}.order"])) if limits.of_anchor(leaf, n, {}, t) is None]
    if idle(1) <= _IDLE or not trials:
        return c
    data = anchor.bytes_along(axis)

    def cost(trial):
        bands = trial[f"{n}.order"]
        few = _FEW * bands / -(-ext[axis] // c[f"{n}.tile1"])  # in few tiles, a block's operand comes into the first cache for little work
        return idle(bands) * (1 + 0.1 * few) + 0.05 * (data / bands > leaf.target["l2"] / 2)
    return min(trials, key=cost)
