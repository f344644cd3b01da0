"""Convolution by a discrete Fourier transform in tiles, for windows of hundreds of taps and more along one axis.

Overlap-save: tiles of T points, each T/2 outputs further (more, where the whole window fits beside them). A longer window is cut into blocks of T/2 taps, so that every
frequency is a short correlation over tiles (uniformly partitioned convolution, folklore). With T = 16 N1, position 16 n1 + n2 and frequency k1 + N1 k2, the transform is two
products with constant matrices: over n1, real, of which k1 = 0..N1/2 suffice because the data is real; then for each k1 over n2, complex, with the twiddle factors merged
into the matrix (Monarch's order, arXiv:2311.05908; the inverse runs backwards through it, so that nothing is ever permuted). The inverse takes the same matrices,
transposed. n2 and k2 are whole vectors everywhere. The window's spectrum is made when bound: 2.1 to 2.3 floats for each tap of full blocks, and 80 to 310 KB of matrices, whatever the layer.
Not a reordering of the same sum: the result is judged by the norm bound (relative L2 at most 2e-5), never bit by bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..lang import access, expr as E
from ..lang.program import Stage
from ..lang.size import value_of
from .convolution import axis, lean, match, table

POINTS = (256, 1024)  # of a tile: the fewer, the cheaper the transforms; the more, the fewer blocks
_LANES = 16  # positions n2
_SHORTEST = 128  # taps


@dataclass
class _Tiles:
    """How a window lies in tiles of so many points: `hop` outputs each, `blocks` blocks of taps of which the first begins with `early` taps of zero."""

    points: int
    hop: int
    blocks: int
    early: int

    @staticmethod
    def of(points, taps, before):
        """`before`: positions of zeros ahead of the data, None where something else is there."""
        if taps <= points // 2 + 1:
            return _Tiles(points, (points - taps + 1) // _LANES * _LANES, 1, 0)
        hop = points // 2  # blocks of as many taps, the last of one more
        blocks = -(-(taps - 1) // hop)
        early = -before % hop if before is not None else 0  # then a tile of data is padding as a whole or hardly at all
        return _Tiles(points, hop, blocks, early if taps + early <= blocks * hop + 1 else 0)


def rewrites(program) -> dict:
    """Algorithm name → program, for every tile size that applies and whose spectra of the windows are not too large (`lean`)."""
    program = access.specialised(program)
    stage = next((s for s in program.run_stages if s.combiner == "sum"), None)
    matched = match(program, stage) if stage is not None else None
    if matched is None or len(matched[2]) != 1 or not matched[2][0].plain:
        return {}
    data, kernel, (window,) = matched
    position, tap = window.position, window.tap
    taps, padding = access.extents(stage)[tap], data.data[1]
    if taps < _SHORTEST or padding is not None and padding.mode in ("reflect", "value"):  # tiles reach further beyond the data than a reflection may
        return {}
    d = next(i for i, index in enumerate(data.args) if tap in index.axes())
    before = value_of(padding.amounts[d][0]) if padding is not None else 0
    tiles = [_Tiles.of(points, taps, before if padding is None or padding.mode == "zeros" else None) for points in POINTS]
    return {f"fft{t.points}": p for t in tiles if lean(p := _rewrite(program, stage, data, kernel, d, position, tap, t))}


def _cosine(j, points, quarters=0):
    """cos(2 pi j / points - quarters pi / 2) of an index 0 <= j < points, from two short tables."""
    low = 1 << points.bit_length() // 2
    row = lambda f, steps, step, at: table([[f(2 * math.pi * i * step / points) for i in range(steps)]], E.lift(0), at)
    coarse = lambda shift: row(lambda angle: math.cos(angle - shift * math.pi / 2), points // low, low, j // E.lift(low))
    return coarse(quarters) * row(math.cos, low, 1, j % E.lift(low)) - coarse(quarters + 1) * row(math.sin, low, 1, j % E.lift(low))


def _equal(a, b):
    return E.compare("==", a, b)


def _select(condition, a, b):
    return E.Expr("select", (condition, a, b), a.dtype)


def _load(stage, *index, padding=None):
    return E.Expr("load", index, "float", (stage.name, padding))


def _rewrite(program, stage, data, kernel, d, position, tap, t):
    """The program with `stage` computed in tiles `t`; the window runs along dim `d` of the data."""
    f = _Frequencies(stage, position, tap, t)
    half, spectrum = _of_kernel(f, kernel)
    data1, data2, left_out = _of_data(f, program, data, d)
    points = _products(f, spectrum, data2, left_out)
    result2, result1 = _of_result(f, points)

    def element(index):
        """Where output `index` lies."""
        where = dict(zip((a.name for a in stage.axes), index))
        p = where[position]
        return _load(result1, *(where[x.name] for x in f.plain), p % E.lift(_LANES), p // E.lift(t.hop), p % E.lift(t.hop) // E.lift(_LANES))
    return access.spliced(program, stage, [f.real, f.both, half, spectrum, data1, data2, points, result2, result1], element)


class _Frequencies:
    """The axes that stages of one rewrite share, and the two constant matrices."""

    def __init__(self, stage, position, tap, t):
        self.stage, self.position, self.tap, self.t = stage, position, tap, t
        self.extents, self.known = access.extents(stage), {x.name: x for x in [*stage.axes, *stage.reduce]}
        self.plain = [x for x in stage.axes if x.name != position]
        rows, own = t.points // _LANES, self.own
        self.n1, self.n2, self.k1, self.k2 = own("n1", rows), own("n2", _LANES), own("k1", rows // 2 + 1), own("k2", _LANES)
        self.line, self.part, self.other = own("line", rows + 2), own("part", 2), own("other", 2)  # both parts of k1 side by side; real or imaginary; the same, summed over
        self.tile, self.block, self.row = own("tile", -(-self.extents[position] // t.hop)), axis(f"{tap}_block", t.blocks), own("row", t.hop // _LANES)
        # cos and -sin of 2 pi n1 k1 / N1; and for each k1 a matrix of complex numbers, as 2 x 2 blocks of real ones
        turn = self.line // E.lift(2) * self.n1 % E.lift(rows)
        self.real = Stage(f"{stage.name}_real", [self.line, self.n1], [], None, _select(_equal(self.line % E.lift(2), 0), _cosine(turn, rows), _cosine(turn, rows, -1)))
        turn = self.n2 * (self.k1 + self.k2 * rows) % E.lift(t.points)
        sine, entry = _cosine(turn, t.points, 1), [self.k1, self.n2, self.k2, self.part, self.other]
        self.both = Stage(f"{stage.name}_complex", entry, [], None, _select(_equal(self.part, self.other), _cosine(turn, t.points), _select(self.part < self.other, sine, -sine)))

    def own(self, suffix, extent):
        """An axis of the rewrite's."""
        return axis(f"{self.position}_{suffix}", extent)


def _of_kernel(f, kernel) -> tuple:
    """The window's spectrum reads parameters only, so it is made when they are bound."""
    t, rows = f.t, f.t.points // _LANES
    left = [f.known[x] for x in kernel.axes() if x != f.tap]
    step = f.n1 * _LANES + f.n2
    at = f.block * t.hop + step - t.early
    inside = (at >= 0) & (at < f.extents[f.tap])
    if t.blocks > 1:
        inside = inside & ((step < t.hop) | (step < t.hop + 1) & _equal(f.block, t.blocks - 1))
    tapped = _select(inside, E.substitute(kernel, {f.tap: at}), E.to_float(0.0))
    half = Stage(f"{f.stage.name}_kernel1", [*left, f.block, f.line, f.n2], [f.n1], "sum", _load(f.real, f.line, f.n1) * tapped)
    scale = _select(_equal(f.k1, 0) | _equal(f.k1, rows // 2), E.to_float(1 / t.points), E.to_float(2 / t.points))  # all other k1 stand for two
    turned = scale * _load(f.both, f.k1, f.n2, f.k2, f.part, f.other) * _load(half, *left, f.block, f.k1 * 2 + f.other, f.n2)
    return half, Stage(f"{f.stage.name}_kernel2", [*left, f.block, f.k1, f.k2, f.part], [f.n2, f.other], "sum", turned)


def _of_data(f, program, data, d) -> tuple:
    """The data's spectrum in two stages, and how many of its tiles are left out at the front and at the end. Tiles reach beyond the last output, where the data counts as padding."""
    t, padding = f.t, data.data[1]
    amounts = list(padding.amounts) if padding else [(0, 0)] * len(data.args)
    lo, hi = (value_of(v) for v in amounts[d])
    count = value_of(f.tile.size) + t.blocks - 1
    beyond = (count - 1) * t.hop + t.points - (f.extents[f.position] + f.extents[f.tap] - 1 + t.early)
    amounts[d] = (lo + t.early, hi + beyond)
    left_out = _only_padding(program, data, d, lo + t.early, t, count)
    grid = f.own("grid", count - sum(left_out))
    rest = [f.known[x] for x in data.axes() if x not in (f.position, f.tap)]
    index = [(grid + left_out[0]) * t.hop + (f.n1 * _LANES + f.n2) if i == d else x for i, x in enumerate(data.args)]
    source = E.Expr("load", index, "float", (data.data[0], E.Padding(amounts, padding.mode if padding else "zeros")))
    data1 = Stage(f"{f.stage.name}_data1", [*rest, grid, f.line, f.n2], [f.n1], "sum", _load(f.real, f.line, f.n1) * source)
    turned = _load(f.both, f.k1, f.n2, f.k2, f.part, f.other) * _load(data1, *rest, grid, f.k1 * 2 + f.other, f.n2)
    return data1, Stage(f"{f.stage.name}_data2", [f.k1, f.k2, *rest, f.part, grid], [f.n2, f.other], "sum", turned), left_out


def _products(f, spectrum, data, left_out):
    """One complex product for each frequency, the kernel's conjugated; or a short correlation over tiles where the window has several blocks."""
    several = f.t.blocks > 1
    around = E.Padding([(0, 0)] * (len(data.axes) - 1) + [left_out]) if any(left_out) else None
    place = {f.block.name: f.block if several else E.lift(0)}
    at = {f"{f.position}_grid": f.tile + f.block if several else f.tile}
    w = [_load(spectrum, *(E.lift(i) if x is f.part else place.get(x.name, x) for x in spectrum.axes)) for i in range(2)]
    x = [_load(data, *(E.lift(i) if v is f.part else at.get(v.name, v) for v in data.axes), padding=around) for i in range(2)]
    product = _select(_equal(f.part, 0), w[0] * x[0] + w[1] * x[1], w[0] * x[1] - w[1] * x[0])
    reduced = [v for v in f.stage.reduce if v.name != f.tap] + ([f.block] if several else [])
    return Stage(f"{f.stage.name}_points", [f.k1, f.k2, *f.plain, f.part, f.tile], reduced, "sum" if reduced else None, product)


def _of_result(f, points) -> tuple:
    """And back, of each tile only the rows of outputs."""
    turned = _load(f.both, f.k1, f.n2, f.k2, f.other, f.part) * _load(points, f.k1, f.k2, *f.plain, f.other, f.tile)
    result2 = Stage(f"{f.stage.name}_result2", [f.k1, f.n2, *f.plain, f.part, f.tile], [f.k2, f.other], "sum", turned)
    rows = _load(f.real, f.k1 * 2 + f.part, f.row) * _load(result2, f.k1, f.n2, *f.plain, f.part, f.tile)
    return result2, Stage(f"{f.stage.name}_result1", [*f.plain, f.n2, f.tile, f.row], [f.k1, f.part], "sum", rows)


def _only_padding(program, data, d, before, t, count) -> tuple:
    """How many tiles of data hold nothing but zero padding, at the front and at the end."""
    if data.data[1] is not None and data.data[1].mode != "zeros":
        return 0, 0
    length = program.shape(data.data[0])[d]
    return max(0, -((t.points - 1 - before) // t.hop)), max(0, count - 1 - (before + length - 1) // t.hop)
