"""Winograd for a dense convolution with small windows of stride 1: 2.25x to 5x fewer multiplications, for transforms of data, kernel and result.

Applies to a sum over channels and one or two windows (p + r, q + s) of 3 or 5 taps. Tiles of m outputs share n = m + taps - 1 points; the data transform,
one product per point (a matrix product over channels) and the result transform become stages of their own, the kernel's transform runs when bound.
Not a reordering of the same sum: the result is judged by the norm bound (relative L2 at most 2e-5), never bit by bit.
Source: Lavin and Gray, arXiv:1509.09308; transforms in `cook_toom`.
"""

from __future__ import annotations

from math import prod

from ..lang import access, expr as E
from ..lang.program import Stage
from ..lang.size import Size, value_of
from . import cook_toom

TILES = {3: (4, 2, 6), 5: (4, 2)}  # taps → outputs per tile
_CHANNELS = 16  # fewer do not pay for the transforms


def rewrites(program) -> dict:
    """Algorithm name → program, for every tile size that applies."""
    program = access.specialised(program)  # one group: the group map is gone
    stage = next((s for s in program.run_stages if s.combiner == "sum"), None)
    match = _match(program, stage) if stage is not None else None
    if match is None:
        return {}
    data, kernel, windows = match
    taps = {access.extents(stage)[k] for _, k in windows}
    if len(taps) != 1 or next(iter(taps)) not in TILES:
        return {}
    taps = next(iter(taps))
    return {f"winograd{m}": _rewrite(program, stage, data, kernel, windows, m, taps) for m in TILES[taps] if cook_toom.POINTS.get(m + taps - 2)}


def _match(program, stage):
    """(data load, kernel load, [(position, tap)]) of a dense convolution of stride and dilation 1, or None."""
    if stage.body.op != "*" or any(f.op != "load" for f in stage.body.args):
        return None
    params = [f for f in stage.body.args if program.tensor(f.data[0]) is not None and program.tensor(f.data[0]).kind == "param"]
    others = [f for f in stage.body.args if all(f is not p for p in params)]
    if len(params) != 1 or len(others) != 1:
        return None
    (kernel,), (data,) = params, others
    roles, extents = access.roles(stage), access.extents(stage)
    windows = []
    for index in data.args:
        terms = access.linear(index)
        tap = [n for n in index.axes() if n in roles.window]
        if not tap:
            if index.op != "axis":  # groups: every output channel would transform its own copy of the data
                return None
            continue
        if terms is None or len(terms[0]) != 2 or set(terms[0].values()) != {1}:
            return None
        windows.append((next(n for n in terms[0] if n not in tap), tap[0]))
    channels = prod(extents[c] for c in roles.channel)
    if not 1 <= len(windows) <= 2 or {k for _, k in windows} != set(roles.window) or channels < _CHANNELS or len({k for _, k in windows}) != len(windows):
        return None
    used = [n for a in kernel.args for n in a.axes()]
    positions = {p for p, _ in windows}
    if positions & set(used) or any(a.op != "axis" for a in kernel.args if set(a.axes()) & set(roles.window)):
        return None
    return data, kernel, windows


def _table(matrix, row, column):
    """Element [row][column] of a constant matrix as an expression."""
    width = len(matrix[0])
    return E.Expr("table", (row * width + column,), "float", tuple(float(v) for line in matrix for v in line))


def _axis(name, extent):
    return E.Axis(name, Size(int(extent), int(extent), []))


def _rewrite(program, stage, data, kernel, windows, m, taps):
    a, g, b = cook_toom.transforms(m, taps)
    n = m + taps - 1
    extents = access.extents(stage)
    name = stage.name
    tile = {p: _axis(f"{p}_tile", -(-extents[p] // m)) for p, _ in windows}
    point = {p: _axis(f"{p}_point", n) for p, _ in windows}
    known = {x.name: x for x in [*stage.axes, *stage.reduce]}
    stages = []

    # the kernel's transform: reads parameters only, so it runs when they are bound
    load = kernel
    for p, k in windows:
        axes = [known.get(x, point.get(x.removesuffix("_point"))) for x in load.axes() if x != k]
        stages.append(Stage(f"{name}_kernel_{p}", [*axes, point[p]], [known[k]], "sum", _table(g, point[p], known[k]) * load))
        load = E.Expr("load", stages[-1].axes, "float", (stages[-1].name, None))
    kernel_load = load

    # the data transform, one window after the other; tiles reach beyond the last output, where the data counts as padding
    dims = {next(d for d, i in enumerate(data.args) if k in i.axes()): (p, k) for p, k in windows}
    padding = data.data[1]
    amounts = list(padding.amounts) if padding else [(0, 0)] * len(data.args)
    reach = {}
    for d, (p, _) in dims.items():
        reach[p] = value_of(tile[p].size) * m + taps - 1
        beyond = reach[p] - (extents[p] + taps - 1)
        lo, hi = (value_of(v) for v in amounts[d])
        amounts[d] = (lo, hi + beyond)
    source = E.Expr("load", data.args, "float", (data.data[0], E.Padding(amounts, padding.mode if padding else "zeros")))
    others = [x for x in source.axes() if x not in {v for w in windows for v in w}]
    lines = {p: _axis(f"{p}_line", reach[p]) for p, _ in windows}
    for number, (p, _) in enumerate(windows):
        later = [q for q, _ in windows[number + 1:]]
        step = _axis(f"{p}_step", n)
        place = {p: tile[p] * m + step}
        earlier = [q for q, _ in windows[:number]]
        if number == 0:
            d = {v[0]: i for i, v in dims.items()}
            index = [place[p] if i == d[p] else (lines[dims[i][0]] if i in dims else x) for i, x in enumerate(source.args)]
            value = E.Expr("load", index, "float", source.data)
        else:
            previous = stages[-1]
            value = E.Expr("load", [place[p] if x.name == lines[p].name else x for x in previous.axes], "float", (previous.name, None))
        rest = [known[x] for x in others]
        axes = [*(point[q] for q in earlier), point[p], *rest, *(tile[q] for q in earlier), tile[p], *(lines[q] for q in later)]
        stages.append(Stage(f"{name}_data_{p}", axes, [step], "sum", _table(b, point[p], step) * value))
    data_load = E.Expr("load", stages[-1].axes, "float", (stages[-1].name, None))

    # one product per point
    plain = [x for x in stage.axes if x.name not in tile]
    axes = [*(point[p] for p, _ in windows), *plain, *(tile[p] for p, _ in windows)]
    stages.append(Stage(f"{name}_points", axes, [x for x in stage.reduce if x.name not in {k for _, k in windows}], "sum", kernel_load * data_load))

    # the result's transform
    inner = {p: _axis(f"{p}_inner", m) for p, _ in windows}
    for number, (p, _) in enumerate(windows):
        previous = stages[-1]
        later = [point[q] for q, _ in windows[number + 1:]]
        done = [inner[q] for q, _ in windows[:number]]
        axes = [*plain, *(tile[q] for q, _ in windows), *later, *done, inner[p]]
        stages.append(Stage(f"{name}_result_{p}", axes, [point[p]], "sum", _table(a, inner[p], point[p]) * E.Expr("load", previous.axes, "float", (previous.name, None))))

    last = stages[-1]

    def joined(index):
        at = dict(zip([x.name for x in stage.axes], index))
        place = {tile[p].name: at[p] // E.lift(m) for p, _ in windows} | {inner[p].name: at[p] % E.lift(m) for p, _ in windows}
        return E.Expr("load", [place.get(x.name, at.get(x.name)) for x in last.axes], "float", (last.name, None))
    return access.spliced(program, stage, stages, joined)
