"""Which tiles the tensor cores may take of a sum of 16-bit products (the knob `<stage>.tensor`), and which one to take unmeasured. Pure Python."""

from __future__ import annotations

import math

from convgen.emit import matrix, plan as P
from convgen.emit.matrix import EDGE, Tile

_SHAPES = ((32, 32), (64, 32), (32, 64), (64, 64), (128, 32), (128, 64), (64, 128), (128, 128))  # rows × columns of a block
_TERMS = (32, 64, 16)
_WARPS = ((2, 2), (1, 2), (2, 1), (2, 4), (4, 2), (4, 1), (1, 4))  # down × across
_FRAGMENTS = 8  # of sums per warp: 8 registers each, beside those of data and weights
_AHEAD = 64  # elements of the next slices in one thread's registers
_USEFUL = 0.25  # the share of a tile's products that must be useful: ordinary multiply-adds are at least four times slower
RATE = 8  # about how many ordinary multiply-adds pass in the time of one: peaks of A100 and H100 differ by 15, and part of that is lost


def tiles(program, stage, target: dict) -> list:
    """Values of the knob, the best expected one first; empty where the stage is no product of matrices that becomes the output."""
    product, (anchor, store) = matrix.find(program, stage), P.epilogue_of(program)
    results = {s.name for s in program.run_stages if s is not stage}
    if product is None or anchor is not stage or store is not None and any(load.data[0] in results for load in store.body.loads()):
        return []  # TVM moves a store that waits for other results, too, to none of its producers
    sizes = product.sizes(stage)
    found = [Tile(r, c, t, *w, ahead) for r, c in _SHAPES for t in _TERMS for w in _WARPS for ahead in (True, False)]
    data, out = (run(program, stage, product)[1] for run in (matrix.run_of_data, matrix.run_of_output))
    found = [t for t in found if _fits(t, sizes, data, out, target)]
    return [str(t) for t in sorted(found, key=lambda t: _time(t, sizes, target))]


def worthwhile(program, stage, value: str) -> bool:
    """Whether a tile is expected to be faster than ordinary arithmetic: where most of it is not fill."""
    tile, sizes = Tile.of(value), matrix.find(program, stage).sizes(stage)
    return math.prod(n / (-(-n // step) * step) for n, step in zip(sizes, (tile.rows, tile.columns, tile.terms))) >= _USEFUL


def saved(program, choice: dict) -> int:
    """Ordinary operations that the tensor cores of a choice take off a program, their own (fill included) counted at RATE."""
    total = 0
    for stage in program.run_stages:
        if choice.get(f"{stage.name}.tensor"):
            tile = Tile.of(choice[f"{stage.name}.tensor"])
            filled = [-(-n // step) * step for n, step in zip(matrix.find(program, stage).sizes(stage), (tile.rows, tile.columns, tile.terms))]
            total += stage.flops - 2 * math.prod(filled) // RATE
    return total


def shared_bytes(tile: Tile) -> int:
    """Shared memory of a block: slices of data and weights, or later the sums in their place."""
    skewed = lambda n: n + 8
    return max(2 * (max(tile.rows * skewed(tile.terms), tile.terms * skewed(tile.rows)) + tile.terms * skewed(tile.columns)),
               4 * max(tile.rows * (tile.columns + 4), tile.columns * (tile.rows + 4)))


def _fits(tile: Tile, sizes, data, out, target) -> bool:
    """Whether fragments divide among the warps, copies (`data`, `out` elements at once) among the threads, and everything fits; more than the matrices have is not tried."""
    warps = tile.down * tile.across
    if tile.rows % (EDGE * tile.down) or tile.columns % (EDGE * tile.across) or (tile.rows // tile.down) * (tile.columns // tile.across) > _FRAGMENTS * EDGE * EDGE:
        return False
    threads = warps * target["limits"]["warp"]
    if tile.ahead and (sizes[2] <= tile.terms or tile.terms * (tile.rows + tile.columns) // threads > _AHEAD):
        return False
    even = all(elements % (threads * width) == 0 for elements, width in ((tile.rows * tile.terms, data), (tile.terms * tile.columns, 8), (tile.rows * tile.columns, out)))
    within = all(step == least or step < 2 * n for step, n, least in zip((tile.rows, tile.columns, tile.terms), sizes, (32, 32, 16)))
    return even and within and threads <= target["limits"]["threads_per_block"] and shared_bytes(tile) <= target["limits"]["shared_per_block"]


def _time(tile: Tile, sizes, target) -> tuple:
    """An estimate never measured: rounds of blocks over the multiprocessors, times products and loads of one; slices fetched ahead, four warps and longer slices are preferred among equals."""
    rows, columns, terms = sizes
    blocks = -(-rows // tile.rows) * -(-columns // tile.columns)
    slices = -(-terms // tile.terms)
    one = slices * tile.terms * (tile.rows * tile.columns + 32 * (tile.rows + tile.columns))
    return -(-blocks // target["limits"]["sms"]) * one, not tile.ahead, abs(tile.down * tile.across - 4), -tile.terms, abs(tile.down - tile.across)
