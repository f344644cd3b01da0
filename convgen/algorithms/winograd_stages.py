"""The stages of a sum over windows in Winograd's tiles: transforms of kernel, data and result, and one product for every point between them."""

from __future__ import annotations

from functools import cache

from ..lang import access, expr as E
from ..lang.program import Stage
from ..lang.size import value_of
from . import cook_toom
from .convolution import axis, table

_transforms = cache(cook_toom.transforms)  # in exact rationals: it takes longer than all the rest of a rewrite


def rewritten(program, stage, data, kernel, windows, tiles, blocked):
    """The program with `stage` computed in tiles of so many outputs, and blocks of so many taps, along each window; one of single outputs is left as it is.

    data, kernel, windows: as `convolution.match` finds them.
    """
    t = _Tiles(program, stage, data, windows, tiles, blocked)
    transformed = _of_kernel(t, kernel)
    data_stages = _of_data(t)
    product = _products(t, transformed[-1], data_stages[-1])
    stages = [*transformed, *data_stages, product, *_of_result(t, product)]
    return access.spliced(program, stage, stages, lambda index: E.Expr("load", index, "float", (stages[-1].name, None)))


class _Tiles:
    """How a stage's positions lie in tiles. What has an entry for each position that is tiled: its Window (`of`), outputs `m` and points `n` of a tile, taps of a
    block, the number of blocks and whether it is `one`; axes over blocks (by tap), tiles of outputs, tiles of data (`grid`) and points; and the matrices
    a, g, b. `left`: the Windows of other positions. `skipped`: (first, count) of the tiles of data that are left, where others hold only padding."""

    def __init__(self, program, stage, data, windows, tiles, blocked):
        self.program, self.stage, self.load, self.windows = program, stage, data, windows
        self.of = {w.position: w for w, size in zip(windows, tiles) if size > 1}
        self.left = {w.position: w for w in windows if w.position not in self.of}
        self.m, self.taps = ({w.position: size for w, size in zip(windows, sizes) if w.position in self.of} for sizes in (tiles, blocked))
        self.n = {p: self.m[p] + self.taps[p] - 1 for p in self.of}
        self.a, self.g, self.b = (dict(zip(self.of, matrices)) for matrices in zip(*(_transforms(self.m[p], self.taps[p]) for p in self.of)))
        self.extents = access.extents(stage)
        self.known = {x.name: x for x in [*stage.axes, *stage.reduce]}
        self.plain = [x for x in stage.axes if x.name not in self.of]
        self.blocks = {w.tap: axis(f"{w.tap}_block", -(-self.extents[w.tap] // self.taps[p])) for p, w in self.of.items()}
        self.count = {p: value_of(self.blocks[w.tap].size) for p, w in self.of.items()}
        self.one = {p: self.count[p] == 1 for p in self.of}
        self.tile = {p: axis(f"{p}_tile", -(-self.extents[p] // self.m[p])) for p in self.of}
        self.point = {p: axis(f"{p}_point", self.n[p]) for p in self.of}
        self.shift = {p: axis(f"{p}_shift", w.shifts) if w.shift is not None and w.shift.op != "axis" else w.shift for p, w in self.of.items()}
        # tiles of data: as many as outputs have, and one more for each further block (m divides a block's taps)
        self.grid = {p: self.tile[p] if self.one[p] else axis(f"{p}_grid", self.steps(p)) for p in self.of}
        self.skipped = _only_padding(self)
        self.grid |= {p: axis(f"{p}_grid", count) for p, (_, count) in self.skipped.items()}

    def steps(self, p) -> int:
        """Tiles of data along a position, those of nothing but padding included."""
        return value_of(self.tile[p].size) + (self.count[p] - 1) * (self.taps[p] // self.m[p])


def _only_padding(t) -> dict:
    """Position → (first, count) of the data tiles that hold more than zero padding, where others are left out.

    Not for the last position: a register tile runs along it, and conditions inside cost more than the products that they save.
    """
    padding = t.load.data[1]
    if padding is None or padding.mode != "zeros":
        return {}
    shape, found = t.program.shape(t.load.data[0]), {}
    for w in t.windows[:-1]:
        p = w.position
        if t.one.get(p, True):
            continue
        d = next(i for i, index in enumerate(t.load.args) if w.tap in index.axes())
        before = value_of(padding.amounts[d][0])
        first, last = max(0, -((t.n[p] - 1 - before) // t.m[p])), min(t.steps(p) - 1, (before + shape[d] - 1) // t.m[p])
        if last - first + 1 < t.steps(p):
            found[p] = (first, last - first + 1)
    return found


def _of_kernel(t, load) -> list:
    """The kernel's transform: reads parameters only, so it runs when they are bound."""
    stages, known = [], dict(t.known)
    for p, w in t.of.items():
        k = w.tap
        rest = [x for x in load.axes() if x != k]
        known |= {v.name: v for v in (t.point[p], t.blocks[k])}
        axes = [*(known[x] for x in rest), *([] if t.one[p] else [t.blocks[k]]), t.point[p]]
        tap = known[k] if t.one[p] else axis(k, t.taps[p])
        at = tap if t.one[p] else t.blocks[k] * t.taps[p] + tap
        value = E.substitute(load, {k: t.taps[p] - 1 - at} if w.backward else {} if t.one[p] else {k: at})
        if not t.one[p] and t.extents[k] % t.taps[p]:
            value = E.Expr("select", (at < t.extents[k], value, E.to_float(0.0)), "float")
        stages.append(Stage(f"{t.stage.name}_kernel_{p}", axes, [tap], "sum", table(t.g[p], t.point[p], tap) * value))
        load = E.Expr("load", stages[-1].axes, "float", (stages[-1].name, None))
    return stages


def _source(t) -> tuple:
    """(what the data transform reads, dim → position, the lines' number and the first of them for each position): tiles reach beyond the last output, where the data counts as padding."""
    load = t.load
    dims = {next(d for d, i in enumerate(load.args) if w.tap in i.axes()): w.position for w in t.windows}
    shape, padding = t.program.shape(load.data[0]), load.data[1]
    amounts = list(padding.amounts) if padding else [(0, 0)] * len(load.args)
    reach, first = {}, {}
    for d, p in dims.items():
        if p in t.left:
            first[p], reach[p] = 0, t.extents[p] + t.extents[t.left[p].tap] - 1
            continue
        w = t.of[p]
        reach[p] = t.steps(p) * t.m[p] + t.taps[p] - 1 + w.shifts - 1
        lo, hi = (value_of(v) for v in amounts[d])
        if w.plain:
            first[p], amounts[d] = 0, (lo, hi + reach[p] - (t.extents[p] + t.extents[w.tap] - 1))
        else:  # phases: where the lines begin, counted from the data's first element
            begin = w.first - (t.extents[w.tap] - 1) * w.backward - lo
            first[p], amounts[d] = max(0, begin), (max(0, -begin), max(0, begin + reach[p] - shape[d]))
    return E.Expr("load", load.args, "float", (load.data[0], E.Padding(amounts, padding.mode if padding else "zeros"))), dims, reach, first


def _of_data(t) -> list:
    """The data transform, one window after the other."""
    source, dims, reach, first = _source(t)
    moving = {*(w.position for w in t.windows), *(w.tap for w in t.windows), *(x for w in t.windows if w.shift is not None for x in w.shift.axes())}
    others = [x for x in source.axes() if x not in moving]
    stages, lines = [], {p: axis(f"{p}_line", reach[p]) for p in reach}
    for number, p in enumerate(t.of):
        earlier, later = list(t.of)[:number], [*list(t.of)[number + 1:], *t.left]
        step = axis(f"{p}_step", t.n[p])
        place = (t.grid[p] + t.skipped[p][0] if p in t.skipped else t.grid[p]) * t.m[p] + step
        if t.shift[p] is not None:
            place = place + t.shift[p]
        if number == 0:
            at = {p: place} | {q: lines[q] for q in later}
            value = E.Expr("load", [at[dims[i]] + first[dims[i]] if i in dims else x for i, x in enumerate(source.args)], "float", source.data)
        else:
            previous = stages[-1]
            value = E.Expr("load", [place if x.name == lines[p].name else x for x in previous.axes], "float", (previous.name, None))
        rest = [*(t.shift[q] for q in (*earlier, p) if t.shift[q] is not None), *(t.known[x] for x in others)]
        axes = [*(t.point[q] for q in earlier), t.point[p], *rest, *(t.grid[q] for q in earlier), t.grid[p], *(lines[q] for q in later)]
        stages.append(Stage(f"{t.stage.name}_data_{p}", axes, [step], "sum", table(t.b[p], t.point[p], step) * value))
    return stages


def _products(t, kernel, data):
    """One product for every point, or one short correlation over tiles where the window has several blocks."""
    moved = {t.grid[p].name: t.tile[p] + t.blocks[w.tap] * (t.taps[p] // t.m[p]) - t.skipped.get(p, (0,))[0] for p, w in t.of.items() if not t.one[p]}
    moved |= {f"{p}_line": next(index for index in t.load.args if w.tap in index.axes()) for p, w in t.left.items()}
    moved |= {t.shift[p].name: w.shift for p, w in t.of.items() if t.shift[p] is not None}
    product = E.Expr("load", kernel.axes, "float", (kernel.name, None)) * E.Expr("load", [moved.get(x.name, x) for x in data.axes], "float", (data.name, None))
    for p, (_, count) in t.skipped.items():
        at = moved[t.grid[p].name]
        product = E.Expr("select", ((at >= 0) & (at < count), product, E.to_float(0.0)), "float")
    axes = [*t.point.values(), *(x for x in t.plain if x.name not in t.left), *(t.tile.get(w.position, t.known[w.position]) for w in t.windows)]
    reduced = [t.blocks.get(x.name, x) for x in t.stage.reduce if x.name not in t.blocks or value_of(t.blocks[x.name].size) > 1]
    return Stage(f"{t.stage.name}_points", axes, reduced, "sum", product)


def _of_result(t, previous) -> list:
    """The result's transform, position by position: its coefficients repeat with every tile."""
    stages = []
    for number, p in enumerate(t.of):
        later = list(t.of)[number + 1:]
        axes = [*t.plain, *(t.known[q] for q in list(t.of)[:number]), *(t.tile[q] for q in later), *(t.point[q] for q in later), t.known[p]]
        value = E.Expr("load", [t.known[p] // E.lift(t.m[p]) if x is t.tile[p] else x for x in previous.axes], "float", (previous.name, None))
        previous = Stage(f"{t.stage.name}_result_{p}", axes if later else t.stage.axes, [t.point[p]], "sum", table(t.a[p], t.known[p] % E.lift(t.m[p]), t.point[p]) * value)
        stages.append(previous)
    return stages
