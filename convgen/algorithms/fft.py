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
    extents, name = access.extents(stage), stage.name
    taps, outputs, rows = extents[tap], extents[position], t.points // _LANES
    own = lambda suffix, extent: axis(f"{position}_{suffix}", extent)
    n1, n2, k1, k2 = own("n1", rows), own("n2", _LANES), own("k1", rows // 2 + 1), own("k2", _LANES)
    line, part, other = own("line", rows + 2), own("part", 2), own("other", 2)  # both parts of k1 side by side; real or imaginary; the same, summed over
    tile, block, row = own("tile", -(-outputs // t.hop)), axis(f"{tap}_block", t.blocks), own("row", t.hop // _LANES)
    known = {x.name: x for x in [*stage.axes, *stage.reduce]}
    plain = [x for x in stage.axes if x.name != position]

    # cos and -sin of 2 pi n1 k1 / N1; and for each k1 a matrix of complex numbers, as 2 x 2 blocks of real ones
    turn = line // E.lift(2) * n1 % E.lift(rows)
    real = Stage(f"{name}_real", [line, n1], [], None, _select(_equal(line % E.lift(2), 0), _cosine(turn, rows), _cosine(turn, rows, -1)))
    turn = n2 * (k1 + k2 * rows) % E.lift(t.points)
    sine = _cosine(turn, t.points, 1)
    both = Stage(f"{name}_complex", [k1, n2, k2, part, other], [], None, _select(_equal(part, other), _cosine(turn, t.points), _select(part < other, sine, -sine)))

    # the window's spectrum reads parameters only, so it is made when they are bound
    left = [known[x] for x in kernel.axes() if x != tap]
    step = n1 * _LANES + n2
    at = block * t.hop + step - t.early
    inside = (at >= 0) & (at < taps)
    if t.blocks > 1:
        inside = inside & ((step < t.hop) | (step < t.hop + 1) & _equal(block, t.blocks - 1))
    tapped = _select(inside, E.substitute(kernel, {tap: at}), E.to_float(0.0))
    half = Stage(f"{name}_kernel1", [*left, block, line, n2], [n1], "sum", _load(real, line, n1) * tapped)
    scale = _select(_equal(k1, 0) | _equal(k1, rows // 2), E.to_float(1 / t.points), E.to_float(2 / t.points))  # all other k1 stand for two
    spectrum = Stage(f"{name}_kernel2", [*left, block, k1, k2, part], [n2, other], "sum", scale * _load(both, k1, n2, k2, part, other) * _load(half, *left, block, k1 * 2 + other, n2))

    # the data's: tiles reach beyond the last output, where the data counts as padding
    padding = data.data[1]
    amounts = list(padding.amounts) if padding else [(0, 0)] * len(data.args)
    lo, hi = (value_of(v) for v in amounts[d])
    count = value_of(tile.size) + t.blocks - 1
    beyond = (count - 1) * t.hop + t.points - (outputs + taps - 1 + t.early)
    amounts[d] = (lo + t.early, hi + beyond)
    left_out = _only_padding(program, data, d, lo + t.early, t, count)
    grid = own("grid", count - sum(left_out))
    rest = [known[x] for x in data.axes() if x not in (position, tap)]
    index = [(grid + left_out[0]) * t.hop + step if i == d else x for i, x in enumerate(data.args)]
    source = E.Expr("load", index, "float", (data.data[0], E.Padding(amounts, padding.mode if padding else "zeros")))
    data1 = Stage(f"{name}_data1", [*rest, grid, line, n2], [n1], "sum", _load(real, line, n1) * source)
    data2 = Stage(f"{name}_data2", [k1, k2, *rest, part, grid], [n2, other], "sum", _load(both, k1, n2, k2, part, other) * _load(data1, *rest, grid, k1 * 2 + other, n2))

    # one complex product for each frequency, the kernel's conjugated; or a short correlation over tiles where the window has several blocks
    several = t.blocks > 1
    around = E.Padding([(0, 0)] * (len(rest) + 3) + [left_out]) if any(left_out) else None
    w = [_load(spectrum, *left, block if several else E.lift(0), k1, k2, E.lift(i)) for i in range(2)]
    x = [_load(data2, k1, k2, *rest, E.lift(i), tile + block if several else tile, padding=around) for i in range(2)]
    product = _select(_equal(part, 0), w[0] * x[0] + w[1] * x[1], w[0] * x[1] - w[1] * x[0])
    reduced = [v for v in stage.reduce if v.name != tap] + ([block] if several else [])
    points = Stage(f"{name}_points", [k1, k2, *plain, part, tile], reduced, "sum" if reduced else None, product)

    # and back, of each tile only the rows of outputs
    result2 = Stage(f"{name}_result2", [k1, n2, *plain, part, tile], [k2, other], "sum", _load(both, k1, n2, k2, other, part) * _load(points, k1, k2, *plain, other, tile))
    result1 = Stage(f"{name}_result1", [*plain, n2, tile, row], [k1, part], "sum", _load(real, k1 * 2 + part, row) * _load(result2, k1, n2, *plain, part, tile))

    def element(index):
        """Where output `index` lies."""
        where = dict(zip((a.name for a in stage.axes), index))
        p = where[position]
        return _load(result1, *(where[x.name] for x in plain), p % E.lift(_LANES), p // E.lift(t.hop), p % E.lift(t.hop) // E.lift(_LANES))
    return access.spliced(program, stage, [real, both, half, spectrum, data1, data2, points, result2, result1], element)


def _only_padding(program, data, d, before, t, count) -> tuple:
    """How many tiles of data hold nothing but zero padding, at the front and at the end."""
    if data.data[1] is not None and data.data[1].mode != "zeros":
        return 0, 0
    length = program.shape(data.data[0])[d]
    return max(0, -((t.points - 1 - before) // t.hop)), max(0, count - 1 - (before + length - 1) // t.hop)
