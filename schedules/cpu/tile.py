"""Which register tile the default has: multiply-adds for what they read, units of work for all threads, and stores that do not go number by number."""

from __future__ import annotations

import math

from convgen.emit import borders, plan as P, tiling
from convgen.lang import access, expr as E
from convgen.lang.cuts import tiles_of

from . import limits
from .domains import LINE, PAGE

TESTED = 4.0  # time of a tile that asks of every position whether it exists, over that of one that need not
SHORT = 4  # channels whose loop the compiler unrolls by itself
_TWICE = 0.5  # what is left of a row's tile that keeps vectors of two operands out of registers
_EVICTED = 0.5  # of a tile's time that it takes longer for every time that its lines would fill the sets that they fall into once more
_WHOLE = 200  # multiply-adds of a window up to which the compiler unrolls all its loops, keeps all weights, and loads rows long before they are needed
_SINGLY = 16  # multiply-adds that take as long as storing one vector number by number


def score(leaf, anchor, c) -> float:
    """How good the register tile of a choice is."""
    s, ext, _ = anchor
    t1, t2, v = (c[f"{s.name}.{k}"] for k in ("tile1", "tile2", "vectors"))
    vec = c[f"{s.name}.vec"]
    axes = tiling.tile_axes(leaf.program, s, vec)
    e1, e2 = (ext.get(a, 1) for a in axes)
    blocks = -(-ext[vec] // c[f"{s.name}.lanes"])
    waste = (-(-e1 // t1) * t1 / e1) * (-(-e2 // t2) * t2 / e2)
    if t2 > 1 and any(e.op == "select" and {axes[1]} & set(e.args[0].axes()) and E.is_const(e.args[2], 0.0) for e in s.body.walk()):
        waste *= 1.5  # a condition that differs from row to row of the tile is asked for every product
    waste *= -(-blocks // v) * v / blocks
    acc = t1 * t2 * v
    phased = axes[1] is not None and axes[1] == tiling.row_phase(leaf.program, s)
    free = leaf.side_by_side  # vectors that cost nothing
    if anchor.dense:
        reuse = _dense_reuse(leaf, anchor, c, axes, phased)
        free = free // t2 if phased else free
    elif anchor.roles.window:
        reuse, free = _window_reuse(leaf, anchor, c, axes), 1
    else:
        reuse = acc / (acc + v) * (1.0 if acc + t1 * v <= leaf.registers + 2 else 0.4)
    tested = leaf.cuts.tested(tiles_of(c)).get(s.name, ())
    if t1 > 1 and axes[0] in tested or t2 > 1 and axes[1] in tested:
        reuse /= TESTED
    if phased and t2 < e2:
        reuse *= 0.8  # phases apart cannot be stored from the tile
    units = -(-e1 // t1) * -(-e2 // t2) * -(-blocks // v) * math.prod(ext[a.name] for a in s.axes if a.name not in (*axes, vec))
    balance = min(1.0, units / (4 * leaf.target["threads"])) if not any(c[f"cut.{a}"] for a in leaf.cuts.sizes) else 1.0  # tiles of the output share the threads
    full = 8 if c[f"{s.name}.inner"] == "slide" else 12  # sums that hide latency; one that takes its taps in turn waits while others do
    return reuse * min(acc, full) / full * balance / waste ** 2 - 0.02 * (t2 > 1) - 0.01 * (v > free)


def _dense_reuse(leaf, anchor, c, axes, phased) -> float:
    """Multiply-adds per vector or number read: one vector per v, one number per pixel; two reads and two multiply-adds start per cycle."""
    s, _, roles = anchor
    t1, t2, v = (c[f"{s.name}.{k}"] for k in ("tile1", "tile2", "vectors"))
    reads = t1 + t2 * v if phased else t1 * t2 + v  # phases meet the same numbers
    if roles.window and c[f"{s.name}.vec"] in roles.spatial:  # vectors of data, and weights a number each: outputs side by side share the vectors
        reads = sum(_met(load, _sizes(anchor, c, axes)) for load in s.body.loads())
    return min(t1 * t2 * v / reads, leaf.reuse)


def _window_reuse(leaf, anchor, c, axes) -> float:
    """The same per vector of a window: unrolled taps of a row meet the same inputs, which stay in registers if tile and window fit; else each multiply-add loads its own."""
    program, (s, ext, roles), n = leaf.program, anchor, anchor.name
    if c[f"{n}.inner"] == "slide":
        return _sliding_reuse(leaf, anchor, c, axes)
    t1, acc, taps = c[f"{n}.tile1"], math.prod(c[f"{n}.{k}"] for k in ("tile1", "tile2", "vectors")), ext[roles.window[-1]]
    reads, slow = 0, 1.0 if acc <= leaf.registers // 2 else _TWICE if anchor.both(c[f"{n}.vec"]) else 0.9  # the compiler keeps what taps and rows share of either operand
    for load in s.body.loads():
        vectors = _met(load, _sizes(anchor, c, axes)) * _lines(load, c, n)
        along = [d for d, i in enumerate(load.args) if {axes[0], roles.window[-1]} <= set(i.axes())]
        if not along:
            reads += vectors * taps
            continue
        positions = t1 + taps - 1
        if c[f"{n}.padding"] == "skip" and borders.droppable(s, load):
            positions = min(positions, program.shape(load.data[0])[along[0]])
        row = vectors // t1 * positions
        fits = c[f"{n}.unroll"] and acc + row <= leaf.registers + 2
        reads += row if fits else vectors * taps
        kept = 1.0 if fits else 0.8
        if c[f"{n}.padding"] != "stage" and program.layout == "channels_last" and c[f"{n}.vec"] not in roles.spatial:
            kept = min(kept, _evicting(leaf, anchor, c, positions, math.prod(ext[w] for w in roles.window[:-1]) + c[f"{n}.tile2"] - 1))
        slow = min(slow, kept if fits or acc <= leaf.registers // 2 else kept / 2)  # the compiler spills large tiles
    return min(1.0, acc * taps / reads) * slow


def _sliding_reuse(leaf, anchor, c, axes) -> float:
    """The same where the tile moves over what it has loaded: each sum takes all its taps of the innermost loop before the next one begins."""
    s, ext, _ = anchor
    n, last = s.name, tiling.window_order(leaf.program, s, c)[-1]
    t1, acc, taps = c[f"{n}.tile1"], math.prod(c[f"{n}.{k}"] for k in ("tile1", "tile2", "vectors")), ext[last]
    every = math.prod(ext[a] for a in anchor.roles.window)
    whole = acc * every <= _WHOLE
    reads, held = 0, acc
    for load in s.body.loads():
        vectors = _met(load, _sizes(anchor, c, axes))
        moves = next((t[0] for i in load.args if {axes[0], last} <= set(i.axes()) and (t := access.linear(i)) is not None), None)
        if moves is None:
            reads += vectors * taps
            held += vectors * every if whole else taps
            continue
        step, apart = abs(moves[axes[0]]), abs(moves[last])
        positions = len({step * i + apart * k for i in range(t1) for k in range(taps)})
        held += min(positions, apart * (taps - 1) + 1)
        reads += vectors // t1 * positions * _lines(load, c, n)
    fits = held + 2 <= leaf.registers and not (whole and acc > leaf.registers // 4)
    slow = 0.4 if not fits else 1.0 if acc <= leaf.registers // 2 else 0.9
    return min(1.0, acc * taps / reads) * slow


def _lines(load, c, n) -> int:
    """Lines of memory that a vector takes: two if it is as long as one and begins anywhere, since it moves along a window."""
    moves = any(c[f"{n}.vec"] in i.axes() and len(i.axes()) > 1 for i in load.args)
    return 2 if moves and 4 * c[f"{n}.lanes"] >= LINE else 1


def _evicting(leaf, anchor, c, pixels, rows) -> float:
    """What is left of a tile's speed by where its pixels lie, at most 1. `pixels`: in a row of the window and tile; `rows`: of these.

    Pixels that lie powers of two apart share few sets of the first cache and evict each other before the next tile meets them; vectors side by side reach more sets.
    """
    n, l1 = anchor.name, leaf.target["l1"]
    width = max(LINE, 4 * c[f"{n}.lanes"] * c[f"{n}.vectors"])
    reached = l1 * min(1.0, width / math.gcd(4 * anchor.ext[c[f"{n}.vec"]], PAGE))
    lines = pixels * (rows if rows * pixels * LINE <= l1 / 3 else 1)  # a larger window comes anew for every tile anyway, row by row
    return 1 / (1 + _EVICTED * max(0.0, lines * width / reached - 1))


def _sizes(anchor, c, axes) -> dict:
    """Axis → (steps of the register tile, positions from one to the next, positions in all); along the vectors' axis steps are vectors."""
    n, vec = anchor.name, c[f"{anchor.name}.vec"]
    steps = {axes[0]: (c[f"{n}.tile1"], 1), axes[1]: (c[f"{n}.tile2"], 1), vec: (c[f"{n}.vectors"], c[f"{n}.lanes"])}
    return {a: (*step, anchor.ext[a]) for a, step in steps.items() if a is not None}


def _met(load, sizes) -> int:
    """How many different vectors or numbers of one read a tile meets: channels of a group, for example, share a vector of weights."""
    return math.prod(_different(load, axis, *size) for axis, size in sizes.items())


def _different(load, axis, steps, apart, extent) -> int:
    at = [access.on_axis(i, axis, extent) for i in load.args if axis in i.axes()]
    if any(values is None or apart > 1 and len(set(values[:apart])) == 1 for values in at):
        return steps  # of a number for each vector, every multiply-add has its own from memory
    met = [tuple(int(values[p]) for values in at) for p in range(0, extent, apart)]
    return max((len(set(met[i:i + steps])) for i in range(0, len(met), steps)), default=1)


def crowded(leaf, anchor, c) -> bool:
    """Whether the taps of a row meet in one body with so many numbers that the compiler, which keeps each for the next tap, runs out of registers."""
    s, ext, roles = anchor
    n = s.name
    if not c[f"{n}.unroll"] or c[f"{n}.vec"] in roles.spatial or not 1 < math.prod(ext[a] for a in roles.channel) <= SHORT:
        return False
    tile, last = tiling.tile_axes(leaf.program, s, c[f"{n}.vec"])[0], roles.window[-1]
    steps, taps = c[f"{n}.tile1"], ext[last]
    moves = [t[0] for t in (access.linear(i) for l in s.body.loads() for i in l.args if {tile, last} <= set(i.axes())) if t is not None]
    numbers = max((min(abs(m[tile]) * (steps - 1) + abs(m[last]) * (taps - 1) + 1, steps * taps) for m in moves), default=0) * c[f"{n}.tile2"]
    return steps * c[f"{n}.tile2"] * c[f"{n}.vectors"] + c[f"{n}.vectors"] + -(-numbers // leaf.numbers) > leaf.registers + 2


def stored(leaf, anchor, tiles, found) -> dict:
    """The best of the trials, (score, choice) each, once it is counted how its tiles are stored: as they are, in whole rows, or number by number."""
    n, best = anchor.name, (-math.inf, None)
    work = math.prod(anchor.ext[a.name] for a in anchor.stage.reduce)
    for value, c in sorted(found, key=lambda pair: -pair[0]):  # stable: among equals the first
        if value <= best[0]:
            break
        if c[f"{n}.store"] == "tile" and len(leaf.domains[f"{n}.store"]) > 1 and scattered(leaf, anchor, c):
            if limits.of_anchor(leaf, n, tiles, c | {f"{n}.store": "row"}) is None:
                c = c | {f"{n}.store": "row"}
            else:
                value *= work / (work + _SINGLY)
        if value > best[0]:
            best = (value, c)
    return best[1]


def scattered(leaf, anchor, c) -> bool:
    """Whether a tile would be stored number by number: its vectors lie across the output's rows and cannot be turned, or not as whole tiles."""
    program, (s, ext, _) = leaf.program, anchor
    inner, tile, vec = program.output.permutation(program.layout)[-1], c[f"{s.name}.tile1"], c[f"{s.name}.vec"]
    if len(s.axes) <= inner or s.axes[inner].name == vec:
        return False
    axis, phase = tiling.tile_axes(program, s, vec)
    if phase is not None and phase == tiling.row_phase(program, s):
        if c[f"{s.name}.tile2"] != ext[phase]:
            return True
        if vec == s.axes[inner - 1].name:  # phases interleave in whole vectors or whole rows
            return ext[vec] % c[f"{s.name}.lanes"] > 0 and ext[vec] > c[f"{s.name}.lanes"] * c[f"{s.name}.vectors"]
        tile *= ext[phase]
    part = ext.get(axis, 1) % tile or ext[vec] % (c[f"{s.name}.lanes"] * c[f"{s.name}.vectors"])
    return tile < 4 or part > 0 or P.make(program, c, leaf.lanes).turn is None
