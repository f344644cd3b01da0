"""Winograd for convolutions of stride 1: fewer multiplications, for transforms of data, kernel and result.

Applies to a sum over windows (p + r, q + s), with or without channels. Tiles of m outputs share n = m + taps - 1 points; the data transform, one product per
point (over channels, a matrix product) and the result transform become stages of their own, the kernel's transform runs when bound. A window of 2 to 5 taps is
one block. Longer windows are cut into blocks of m taps: every point is then itself a correlation over tiles, of as many taps as there are blocks, and 2-D
kernels from 9x9 need 2x to 5x fewer multiplications even without channels to share the transforms (depthwise). Beside a long window, a short one is left as it is.
Phases of a transposed convolution (`phases`) are such sums whose windows lie apart: data is transformed once for all phases that read at the same places.
Not a reordering of the same sum: the result is judged by the norm bound (relative L2 at most 2e-5), never bit by bit.
Source: Lavin and Gray, arXiv:1509.09308; transforms in `cook_toom`. Nested blocks: the 1-D decomposition of a long filter into short ones, folklore.
"""

from __future__ import annotations

import itertools
from math import prod

from ..lang import access
from .convolution import lean, match
from .winograd_stages import rewritten

TILES = {2: (4, 2, 6), 3: (4, 2, 6), 4: (4, 2), 5: (4, 2)}  # taps of a window that is one block → outputs per tile
BLOCKS = (4, 5)  # taps per block, and outputs per tile, of longer windows: the usual size, and one offered where it takes less work
_POINTS = {2: (5, 6, 8), 3: (5, 6, 7.5)}  # taps → at most so many in tiles of other shapes, to the power of the number of windows
_MEMORY = (4, 16)  # products that take as long as reading one number of a transformed kernel: from a cache, from main memory
_LONG = 9  # taps from which blocks pay for the transforms
_CHANNELS = 16  # fewer do not pay for the transforms of one block
_PHASES = 32  # nor fewer for those of phases, whose data may be transformed for each of them


def rewrites(program) -> dict:
    """Algorithm name → program, for every tile size that applies and whose transformed kernels are not too large (`lean`)."""
    program = access.specialised(program)  # one group: the group map is gone
    stage = next((s for s in program.run_stages if s.combiner == "sum"), None)
    matched = match(program, stage) if stage is not None else None
    if matched is None:
        return {}
    data, kernel, windows = matched
    extents = access.extents(stage)
    taps = {extents[w.tap] for w in windows}
    if max(taps) >= _LONG and all(w.plain for w in windows):
        sizes = [tuple(b if extents[w.tap] >= _LONG else 1 for w in windows) for b in BLOCKS]
        most = program.flops if 1 in sizes[0] else float("inf")
        found = {m: p for m in sizes if (p := rewritten(program, stage, data, kernel, windows, m, m)).flops < most and lean(p)}
        usual = next(iter(found.values()), None)
        return {f"{_name(m)}_blocks": p for m, p in found.items() if p is usual or p.flops < usual.flops}
    channels = prod(extents[c] for c in access.roles(stage).channel)
    together = all(w.plain for w in windows)  # else phases
    if len(taps) != 1 or min(taps) >= _LONG or channels < (_CHANNELS if together else _PHASES):
        return {}
    taps = next(iter(taps))
    outputs = tuple(extents[w.position] for w in windows)
    found = {m: p for m in tiles(outputs, taps) if lean(p := rewritten(program, stage, data, kernel, windows, m, (taps,) * len(m)))}
    if not together:  # phases take turns along the output's rows: what a tile has beyond them keeps the others from being stored together
        found = {m: p for m, p in found.items() if outputs[-1] % m[-1] == 0} or found
    return {_name(m): p for m, p in found.items()}


def tiles(outputs: tuple, taps: int) -> list:
    """Outputs per tile along each window: the usual squares, then tiles of other shapes that fit so many `outputs` better (14 in two steps of 7, not four of 4).

    The best of each size (_POINTS) is offered if it saves an eighth of the products of every square of that size, unless another tile's products and
    transformed kernels together take less time, whatever memory these come from. With those sizes none of 3 taps is less accurate than F(6,3) in all directions;
    the error of F(7,2) is a fifth larger.
    """
    usual = [(m,) * len(outputs) for m in TILES.get(taps, ())]
    if taps not in _POINTS:
        return usual
    points = lambda tile: prod(m + taps - 1 for m in tile)
    products = lambda tile: points(tile) * prod(-(-n // m) for n, m in zip(outputs, tile))

    def times(tile):
        pairs = [sorted((products(tile), slow * points(tile))) for slow in _MEMORY]
        return [3 * longer + shorter for shorter, longer in pairs]  # a third of the shorter one is not hidden behind the other
    found = []
    for most in (p ** len(outputs) for p in _POINTS[taps]):
        fit = [t for t in itertools.product(range(2, 8), repeat=len(outputs)) if t not in usual and points(t) <= most]
        best = min(fit, key=lambda t: (products(t), points(t), [-m for m in t]))
        if best not in found and all(8 * products(best) <= 7 * products(u) for u in usual if points(u) <= most):
            found.append(best)
    better = lambda t, than: all(x < y for x, y in zip(times(t), times(than)))
    return usual + [t for t in found if not any(better(o, t) for o in usual + found)]


def _name(tile: tuple) -> str:
    """winograd4 for tiles of 4 outputs along every window, winograd2x4 for tiles of 2 by 4."""
    return "winograd" + "x".join(str(m) for m in (tile if len(set(tile)) > 1 else tile[:1]))
