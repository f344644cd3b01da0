"""What rewrites share: which stages transforms apply to, how much memory they may take, and the axes and constant matrices that they are written with."""

from __future__ import annotations

from dataclasses import dataclass

from ..lang import access, expr as E
from ..lang.count import PREPARED, given_bytes, prepared_bytes
from ..lang.size import Size


@dataclass(eq=False)
class Window:
    """One window: the data is read at `position + tap + first + shift`, or, `backward`, at `position - tap` and so on.

    `first` is a number, `shift` an expression of other output axes (phases) that takes every value from 0 to `shifts` - 1; None if it is always 0.
    """

    position: str
    tap: str
    backward: bool = False
    first: int = 0
    shift: object = None
    shifts: int = 1

    @property
    def plain(self) -> bool:
        return not self.backward and self.first == 0 and self.shift is None


def match(program, stage):
    """(data load, kernel load, its Windows) of a convolution of stride and dilation 1, or None."""
    if stage.body.op != "*" or any(f.op != "load" for f in stage.body.args):
        return None
    params = [f for f in stage.body.args if f.data[0] in program.constants]
    others = [f for f in stage.body.args if all(f is not p for p in params)]
    if len(params) != 1 or len(others) != 1:
        return None
    (kernel,), (data,) = params, others
    roles = access.roles(stage)
    windows = []
    for index in data.args:
        if not set(index.axes()) & set(roles.window):
            terms = access.linear(index)
            if terms is None or list(terms[0].values()) != [1]:  # groups: every output channel would transform its own copy of the data
                return None
            continue
        window = _window(stage, roles, index)
        if window is None:
            return None
        windows.append(window)
    if not 1 <= len(windows) <= 2 or {w.tap for w in windows} != set(roles.window) or len({w.tap for w in windows}) != len(windows):
        return None
    used = [n for a in kernel.args for n in a.axes()]
    if {w.position for w in windows} & set(used) or any(e.op == "load" for a in kernel.args for e in a.walk()):
        return None
    plain = all(w.plain for w in windows)  # else phases, whose taps lie apart
    return None if plain and any(a.op != "axis" for a in kernel.args if set(a.axes()) & set(roles.window)) else (data, kernel, windows)


def _window(stage, roles, index):
    """The Window that an index of the data runs through, or None."""
    moving, rest = {}, []
    for sign, term in _terms(index):
        if term.op == "axis" and term.data in [*roles.spatial, *roles.window]:
            moving[term.data] = moving.get(term.data, 0) + sign
        elif set(term.axes()) <= set(roles.plain) and not term.loads():
            rest.append((sign, term))
        else:
            return None
    positions, taps = ([n for n in moving if n in names] for names in (roles.spatial, roles.window))
    if len(positions) != 1 or len(taps) != 1 or moving[positions[0]] != 1 or moving[taps[0]] not in (1, -1):
        return None
    other = E.lift(0)
    for sign, term in rest:
        other = other + term if sign > 0 else other - term
    names = other.axes()
    if len(names) > 1:
        return None
    phase = next((a for a in stage.axes if a.name in names), None)
    values = access.on_axis(other, phase.name if names else "", access.extents(stage)[phase.name] if names else 1)
    if values is None or len({*values}) != max(values) - min(values) + 1:
        return None
    first, shifts = int(min(values)), len({*values})
    shift = None if shifts == 1 else phase if list(values) == [first + i for i in range(shifts)] else other - first
    return Window(positions[0], taps[0], moving[taps[0]] < 0, first, shift, shifts)


def _terms(e, sign=1):
    """(sign, term) of a sum."""
    if e.op in ("+", "-"):
        return [*_terms(e.args[0], sign), *_terms(e.args[1], sign if e.op == "+" else -sign)]
    return [(sign, e)]


def lean(program) -> bool:
    """Whether what a rewrite makes of the parameters takes at most PREPARED times their memory.

    More would be taken by large tiles of short windows (7x7 outputs of 2x2 taps: 16 times), by phases of fewer taps than the stride, whose kernels are mostly
    zeros, and by many transforms of parameters of two bytes, whose results have four. Constant matrices (fft) do not count: they do not grow with the parameters.
    """
    return prepared_bytes(program) <= PREPARED * given_bytes(program)


def table(matrix, row, column):
    """Element [row][column] of a constant matrix as an expression."""
    width = len(matrix[0])
    return E.Expr("table", (row * width + column,), "float", tuple(float(v) for line in matrix for v in line))


def axis(name, extent):
    """A new axis of this extent, whatever the sizes of the workload."""
    return E.Axis(name, Size(int(extent), int(extent), []))
