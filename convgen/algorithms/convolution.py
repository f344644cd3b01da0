"""What transforms share: which stages they can rewrite, and the axes and constant matrices that they are written with."""

from __future__ import annotations

from ..lang import access, expr as E
from ..lang.size import Size


def match(program, stage):
    """(data load, kernel load, [(position, tap)]) of a convolution of stride and dilation 1, or None."""
    if stage.body.op != "*" or any(f.op != "load" for f in stage.body.args):
        return None
    constant = {t.name for t in program.tensors if t.kind == "param"} | {s.name for s in program.bind_stages}
    params = [f for f in stage.body.args if f.data[0] in constant]
    others = [f for f in stage.body.args if all(f is not p for p in params)]
    if len(params) != 1 or len(others) != 1:
        return None
    (kernel,), (data,) = params, others
    roles = access.roles(stage)
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
    if not 1 <= len(windows) <= 2 or {k for _, k in windows} != set(roles.window) or len({k for _, k in windows}) != len(windows):
        return None
    used = [n for a in kernel.args for n in a.axes()]
    positions = {p for p, _ in windows}
    if positions & set(used) or any(a.op != "axis" for a in kernel.args if set(a.axes()) & set(roles.window)):
        return None
    return data, kernel, windows


def table(matrix, row, column):
    """Element [row][column] of a constant matrix as an expression."""
    width = len(matrix[0])
    return E.Expr("table", (row * width + column,), "float", tuple(float(v) for line in matrix for v in line))


def axis(name, extent):
    """A new axis of this extent, whatever the sizes of the workload."""
    return E.Axis(name, Size(int(extent), int(extent), []))
