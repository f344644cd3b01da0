"""What values an expression can take while each axis runs over its extent: for simplifying indices and for proving that reads stay inside."""

from __future__ import annotations

import math

from . import expr as E
from .size import value_of

_ANY = (-math.inf, math.inf)
_LIMITS = {"exp": (0.0, math.inf), "sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0), "erf": (-1.0, 1.0)}


def whole(extents) -> dict:
    """Axis name → (first, last) of axes that run over their extents."""
    return {name: (0, extent - 1) for name, extent in extents.items()}


def interval(e: E.Expr, ranges) -> tuple:
    """(least, greatest) possible value, infinite where it depends on data. `ranges`: axis name → (first, last)."""
    c = E.constant(e)
    if c is not None:
        return c, c
    if e.op == "axis":
        return ranges[e.data]
    if e.op == "load" or e.dtype == "bool":
        return _ANY
    if e.op == "select":
        (a, b), (c, d) = (interval(x, ranges) for x in e.args[1:])
        return min(a, c), max(b, d)
    parts = [interval(a, ranges) for a in e.args]
    if len(parts) == 1:
        return _unary(e.op, *parts[0])
    (a, b), (c, d) = parts
    if e.op == "+":
        return a + c, b + d
    if e.op == "-":
        return a - d, b - c
    if e.op == "*":
        ends = [x * y if x and y else 0 for x in (a, b) for y in (c, d)]
        return min(ends), max(ends)
    if e.op == "min":
        return min(a, c), min(b, d)
    if e.op == "max":
        return max(a, c), max(b, d)
    if e.op in ("//", "%") and c == d and 0 < c < math.inf:
        if math.isinf(a) or math.isinf(b):
            return _ANY if e.op == "//" else (0, c)
        if e.op == "//":
            return a // c, b // c
        return (a % c, b % c) if a // c == b // c else (0, c - 1)
    return _ANY


def _unary(op, a, b):
    if op == "neg":
        return -b, -a
    if op == "abs":
        return (0 if a <= 0 <= b else min(abs(a), abs(b))), max(abs(a), abs(b))
    if op in ("floor", "round"):
        step = math.floor if op == "floor" else round
        return (step(a) if math.isfinite(a) else a), (step(b) if math.isfinite(b) else b)
    if op in ("float", "int"):
        return a, b
    return _LIMITS.get(op, _ANY)


def simplify(e: E.Expr, extents) -> E.Expr:
    """The same expression without what these extents decide: group maps of one group, multipliers of one, kernels of one tap."""
    return _simple(e, whole(extents))


def _simple(e, ranges):
    if not e.args:
        return e
    args = [_simple(a, ranges) for a in e.args]
    if e.dtype == "int" and e.op in ("+", "-", "*", "//", "%"):
        (lo, hi), (c, d) = (interval(a, ranges) for a in args)
        if lo == hi and c == d and math.isfinite(lo):
            return E.Expr("const", (), "int", int(interval(E.Expr(e.op, args, "int"), ranges)[0])) if d or e.op not in ("//", "%") else e
        if e.op in ("+", "-") and c == d == 0 or e.op in ("*", "//") and c == d == 1:
            return args[0]
        if e.op == "+" and lo == hi == 0 or e.op == "*" and lo == hi == 1:
            return args[1]
        if e.op == "*" and (lo == hi == 0 or c == d == 0) or e.op == "//" and c == d and 0 <= lo <= hi < c or e.op == "%" and c == d == 1:
            return E.Expr("const", (), "int", 0)
        if e.op == "%" and c == d and 0 <= lo <= hi < c:
            return args[0]
    return E.Expr(e.op, args, e.dtype, e.data)


def outside(stage, sizes):
    """The first unconditional read of `stage` that can leave its tensor: (tensor, dimension, (least, greatest), size), or None.

    `sizes`: tensor name → shape. Padded dimensions continue everywhere, except that reflection turns around once only. What a `select`
    chooses between is guarded by its condition and not examined.
    """
    ranges = whole({a.name: value_of(a.size) for a in [*stage.axes, *stage.reduce]})
    for load in _unconditional(stage.body):
        name, padding = load.data
        for d, (index, n) in enumerate(zip(load.args, sizes[name])):
            lo, hi = interval(index, ranges)
            first, last = 0, n - 1
            if padding is not None and any(value_of(a) for a in padding.amounts[d]):
                if padding.mode != "reflect":
                    continue
                before = value_of(padding.amounts[d][0])
                first, last = before - (n - 1), before + 2 * (n - 1)
            if lo < first or hi > last:
                return name, d, (lo, hi), n
    return None


def _unconditional(e):
    if e.op == "load":
        yield e
    for a in e.args[:1] if e.op == "select" else e.args:
        yield from _unconditional(a)
