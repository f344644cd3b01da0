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
from functools import cache
from math import prod

from ..lang import access, expr as E
from ..lang.program import Stage
from ..lang.size import value_of
from . import cook_toom
from .convolution import axis, lean, match, table

TILES = {2: (4, 2, 6), 3: (4, 2, 6), 4: (4, 2), 5: (4, 2)}  # taps of a window that is one block → outputs per tile
BLOCKS = (4, 5)  # taps per block, and outputs per tile, of longer windows: the usual size, and one offered where it takes less work
_POINTS = {2: (5, 6, 8), 3: (5, 6, 7.5)}  # taps → at most so many in tiles of other shapes, to the power of the number of windows
_MEMORY = (4, 16)  # products that take as long as reading one number of a transformed kernel: from a cache, from main memory
_LONG = 9  # taps from which blocks pay for the transforms
_CHANNELS = 16  # fewer do not pay for the transforms of one block
_PHASES = 32  # nor fewer for those of phases, whose data may be transformed for each of them
_transforms = cache(cook_toom.transforms)  # in exact rationals: it takes longer than all the rest of a rewrite


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
        found = {m: p for m in sizes if (p := _rewrite(program, stage, data, kernel, windows, m, m)).flops < most and lean(p)}
        usual = next(iter(found.values()), None)
        return {f"{_name(m)}_blocks": p for m, p in found.items() if p is usual or p.flops < usual.flops}
    channels = prod(extents[c] for c in access.roles(stage).channel)
    together = all(w.plain for w in windows)  # else phases
    if len(taps) != 1 or min(taps) >= _LONG or channels < (_CHANNELS if together else _PHASES):
        return {}
    taps = next(iter(taps))
    outputs = tuple(extents[w.position] for w in windows)
    found = {m: p for m in tiles(outputs, taps) if lean(p := _rewrite(program, stage, data, kernel, windows, m, (taps,) * len(m)))}
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


def _rewrite(program, stage, data, kernel, windows, tiles, blocked):
    """The program with `stage` computed in tiles of so many outputs, and blocks of so many taps, along each window; one of single outputs is left as it is."""
    of = {w.position: w for w, size in zip(windows, tiles) if size > 1}
    left = {w.position: w for w in windows if w.position not in of}
    m, taps = ({w.position: size for w, size in zip(windows, sizes) if w.position in of} for sizes in (tiles, blocked))
    n = {p: m[p] + taps[p] - 1 for p in m}
    a, g, b = zip(*(_transforms(m[p], taps[p]) for p in m))
    a, g, b = (dict(zip(m, matrices)) for matrices in (a, g, b))
    extents = access.extents(stage)
    name = stage.name
    blocks = {w.tap: axis(f"{w.tap}_block", -(-extents[w.tap] // taps[p])) for p, w in of.items()}
    count = {p: value_of(blocks[w.tap].size) for p, w in of.items()}
    one = {p: count[p] == 1 for p in of}
    tile = {p: axis(f"{p}_tile", -(-extents[p] // m[p])) for p in of}
    # tiles of data: as many as outputs have, and one more for each further block (m divides a block's taps)
    grid = {p: tile[p] if one[p] else axis(f"{p}_grid", value_of(tile[p].size) + (count[p] - 1) * (taps[p] // m[p])) for p in of}
    skipped = _only_padding(program, data, windows, grid, one, m, n)
    for p, (_, tiles_left) in skipped.items():
        grid[p] = axis(f"{p}_grid", tiles_left)
    point = {p: axis(f"{p}_point", n[p]) for p in of}
    known = {x.name: x for x in [*stage.axes, *stage.reduce]}
    stages = []

    # the kernel's transform: reads parameters only, so it runs when they are bound
    load = kernel
    for p, w in of.items():
        k = w.tap
        rest = [x for x in load.axes() if x != k]
        known |= {v.name: v for v in (point[p], blocks[k])}
        axes = [*(known[x] for x in rest), *([] if one[p] else [blocks[k]]), point[p]]
        tap = known[k] if one[p] else axis(k, taps[p])
        at = tap if one[p] else blocks[k] * taps[p] + tap
        value = E.substitute(load, {k: taps[p] - 1 - at} if w.backward else {} if one[p] else {k: at})
        if not one[p] and extents[k] % taps[p]:
            value = E.Expr("select", (at < extents[k], value, E.to_float(0.0)), "float")
        stages.append(Stage(f"{name}_kernel_{p}", axes, [tap], "sum", table(g[p], point[p], tap) * value))
        load = E.Expr("load", stages[-1].axes, "float", (stages[-1].name, None))
    kernel_load = load

    # the data transform, one window after the other; tiles reach beyond the last output, where the data counts as padding
    dims = {next(d for d, i in enumerate(data.args) if w.tap in i.axes()): w.position for w in windows}
    shape = program.shape(data.data[0])
    padding = data.data[1]
    amounts = list(padding.amounts) if padding else [(0, 0)] * len(data.args)
    reach, first = {}, {}
    for d, p in dims.items():
        if p in left:
            first[p], reach[p] = 0, extents[p] + extents[left[p].tap] - 1
            continue
        w = of[p]
        reach[p] = (value_of(tile[p].size) + (count[p] - 1) * (taps[p] // m[p])) * m[p] + taps[p] - 1 + w.shifts - 1
        lo, hi = (value_of(v) for v in amounts[d])
        if w.plain:
            first[p], amounts[d] = 0, (lo, hi + reach[p] - (extents[p] + extents[w.tap] - 1))
        else:  # phases: where the lines begin, counted from the data's first element
            begin = w.first - (extents[w.tap] - 1) * w.backward - lo
            first[p], amounts[d] = max(0, begin), (max(0, -begin), max(0, begin + reach[p] - shape[d]))
    source = E.Expr("load", data.args, "float", (data.data[0], E.Padding(amounts, padding.mode if padding else "zeros")))
    shift = {p: axis(f"{p}_shift", w.shifts) if w.shift is not None and w.shift.op != "axis" else w.shift for p, w in of.items()}
    moving = {*(w.position for w in windows), *(w.tap for w in windows), *(x for w in windows if w.shift is not None for x in w.shift.axes())}
    others = [x for x in source.axes() if x not in moving]
    lines = {p: axis(f"{p}_line", reach[p]) for p in reach}
    for number, p in enumerate(of):
        earlier, later = list(of)[:number], [*list(of)[number + 1:], *left]
        step = axis(f"{p}_step", n[p])
        place = (grid[p] + skipped[p][0] if p in skipped else grid[p]) * m[p] + step
        if shift[p] is not None:
            place = place + shift[p]
        if number == 0:
            at = {p: place} | {q: lines[q] for q in later}
            value = E.Expr("load", [at[dims[i]] + first[dims[i]] if i in dims else x for i, x in enumerate(source.args)], "float", source.data)
        else:
            previous = stages[-1]
            value = E.Expr("load", [place if x.name == lines[p].name else x for x in previous.axes], "float", (previous.name, None))
        rest = [*(shift[q] for q in (*earlier, p) if shift[q] is not None), *(known[x] for x in others)]
        axes = [*(point[q] for q in earlier), point[p], *rest, *(grid[q] for q in earlier), grid[p], *(lines[q] for q in later)]
        stages.append(Stage(f"{name}_data_{p}", axes, [step], "sum", table(b[p], point[p], step) * value))
    moved = {grid[p].name: tile[p] + blocks[w.tap] * (taps[p] // m[p]) - skipped.get(p, (0,))[0] for p, w in of.items() if not one[p]}
    moved |= {lines[p].name: data.args[next(d for d in dims if dims[d] == p)] for p in left}
    moved |= {shift[p].name: w.shift for p, w in of.items() if shift[p] is not None}
    data_load = E.Expr("load", [moved.get(x.name, x) for x in stages[-1].axes], "float", (stages[-1].name, None))
    product = kernel_load * data_load
    for p, (_, tiles_left) in skipped.items():
        at = moved[grid[p].name]
        product = E.Expr("select", ((at >= 0) & (at < tiles_left), product, E.to_float(0.0)), "float")

    # one product per point, or one short correlation over tiles where the window has several blocks
    plain = [x for x in stage.axes if x.name not in tile]
    axes = [*point.values(), *(x for x in plain if x.name not in left), *(tile.get(w.position, known[w.position]) for w in windows)]
    reduced = [blocks.get(x.name, x) for x in stage.reduce if x.name not in blocks or value_of(blocks[x.name].size) > 1]
    stages.append(Stage(f"{name}_points", axes, reduced, "sum", product))

    # the result's transform, position by position: its coefficients repeat with every tile
    for number, p in enumerate(of):
        previous = stages[-1]
        later = list(of)[number + 1:]
        axes = [*plain, *(known[q] for q in list(of)[:number]), *(tile[q] for q in later), *(point[q] for q in later), known[p]]
        value = E.Expr("load", [known[p] // E.lift(m[p]) if x is tile[p] else x for x in previous.axes], "float", (previous.name, None))
        stages.append(Stage(f"{name}_result_{p}", axes if later else stage.axes, [point[p]], "sum", table(a[p], known[p] % E.lift(m[p]), point[p]) * value))
    return access.spliced(program, stage, stages, lambda index: E.Expr("load", index, "float", (stages[-1].name, None)))


def _only_padding(program, data, windows, grid, one, m, n) -> dict:
    """Position → (first, count) of the data tiles that hold more than zero padding, where others are left out.

    Not for the last position: a register tile runs along it, and conditions inside cost more than the products that they save.
    """
    padding = data.data[1]
    if padding is None or padding.mode != "zeros":
        return {}
    shape, found = program.shape(data.data[0]), {}
    for w in windows[:-1]:
        p = w.position
        if one.get(p, True):
            continue
        d = next(i for i, index in enumerate(data.args) if w.tap in index.axes())
        before = value_of(padding.amounts[d][0])
        first, last = max(0, -((n[p] - 1 - before) // m[p])), min(value_of(grid[p].size) - 1, (before + shape[d] - 1) // m[p])
        if last - first + 1 < value_of(grid[p].size):
            found[p] = (first, last - first + 1)
    return found
