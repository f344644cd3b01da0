"""Which tiles of the output the default has, estimated from what their stages compute twice, read again and keep in cache."""

from __future__ import annotations

import itertools
import math

from convgen.emit import tiling
from convgen.lang import access, count
from convgen.lang.size import value_of

from ..knobs import BALANCE, overlapped
from . import tile

_HELD = 1.02  # time that holding no more than a call should (count.CALL) is worth
_STREAM = 1.5  # operations that take as long as reading one byte of transformed kernels from a cache
_BEYOND = 8  # and as writing and reading one byte that the second-level cache does not hold between two stages
_PARTS = 0.3  # time that storing parts of rows costs, as a share of the work of a transform


def default(leaf) -> dict:
    """The tiles that keep most between the stages in the second-level cache, at little work twice and with work for all threads."""
    trials = ({a: v for a, v in zip(leaf.cuts.sizes, sizes) if v} for sizes in itertools.product(*([*v[::-1], 0] for v in leaf.cuts.sizes.values())))
    cost = _transformed_cost if _transforms(leaf.program) else _cost
    return min((t for t in trials if len(t) <= 2), key=lambda tiles: cost(leaf, tiles) * _held(leaf, tiles))


def _repeated(leaf, tiles) -> float:
    """Time of the threads over that of the work without tiles: what tiles compute twice, or position by position, and threads that wait for the last tile."""
    trips, threads = leaf.cuts.trips(tiles), leaf.target["threads"]
    return leaf.cuts.executed(tiles) * _singly(leaf, tiles) * (-(-trips // threads) * threads / trips) if tiles else 1.0


def _singly(leaf, tiles) -> float:
    """Time of the sums over what it would be if none lacked a register tile, because tiles of the output may end at every position of it."""
    tested, stages = leaf.cuts.tested(tiles), [anchor.stage for anchor in leaf.anchors.values()]
    lost = sum(s.flops for s in stages if tested.get(s.name) and _spanned(leaf, s, tested[s.name]) <= tested[s.name])
    return 1 + (tile.TESTED - 1) * lost / sum(s.flops for s in stages)


def _spanned(leaf, s, tested) -> set:
    """The axes of a sum's register tile; vectors lie along an axis that tiles of the output do not cut, if there is one."""
    vecs = leaf.domains[f"{s.name}.vec"]
    return set(tiling.tile_axes(leaf.program, s, next((v for v in vecs if v not in tested), vecs[0]))) - {None}


def _cost(leaf, tiles) -> float:
    """Time as a multiple of what the work takes."""
    trips, fixed, l2 = leaf.cuts.trips(tiles), leaf.cuts.fixed_bytes(tiles), leaf.target["l2"]
    again = trips * fixed * (2 if fixed < l2 else 4) / max(1, leaf.program.flops) if tiles else 0.0  # an operation takes as long as half a byte
    spilled = max(0.0, math.log2(max(1, leaf.cuts.bytes(tiles)) / (0.75 * l2)))
    return (_repeated(leaf, tiles) + again + 0.03 * len(tiles)) * (1 + 0.12 * spilled)


def _transforms(program) -> bool:
    """Whether sums with constant coefficients, tile by tile, are among the stages."""
    return any(0 < access.period(s, a.name) < value_of(a.size) for s in program.run_stages for a in s.axes)


def _transformed_cost(leaf, tiles) -> float:
    """The same of stages with transforms in between: kernels are read for every tile, in order, and what a cache cannot hold is written and read."""
    program, target = leaf.program, leaf.target
    trips, held = leaf.cuts.trips(tiles), leaf.cuts.bytes(tiles)
    beyond = trips * max(0, held - 0.75 * target["l2"]) * (_BEYOND if not target["l3"] or held <= target["l3"] else 2 * _BEYOND)
    work = max(1, program.flops)
    repeated, traffic = _repeated(leaf, tiles), beyond / work
    if fetched(leaf):
        repeated = overlapped(repeated, BALANCE * leaf.cuts.streamed(tiles) / work)
    else:
        traffic += _STREAM * trips * leaf.cuts.fixed_bytes(tiles) / work
    inner = program.output.permutation(program.layout)[-1]
    rows = inner in program.output.spatial and program.run_stages[-1].axes[inner].name in tiles
    return repeated + traffic + 0.03 * len(tiles) + _PARTS * rows


def fetched(leaf) -> bool:
    """Whether prepared parameters come from memory whenever they are read: the last cache does not hold them beside what lies between the stages."""
    return 2 * leaf.cuts.fixed_bytes({}) > leaf.target["l3"] > 0


def _held(leaf, tiles) -> float:
    """A factor for tiles that hold more than a call should."""
    held = leaf.cuts.bytes(tiles) * (leaf.target["threads"] if tiles else 1)
    return _HELD if held > (count.CALL - 1) * count.border_bytes(leaf.program) else 1.0
