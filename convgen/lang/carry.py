"""What the oracle can carry beside each value: the magnitude of its terms, or how rounding errors grow.

`Magnitude` M: what the value would be if every term had the same sign; no partial sum in any order exceeds it.
`Rounding` R: first-order error in units of one rounding. Inputs are exact (None), every rounded operation adds its own value's size, and errors of
the operands arrive multiplied by the derivative. For a convolution R = sum |w| |x|, the classical condition of a sum of products; stages in
sequence, divisions and bilinear weights add what they must, so that c·min(n, 4 sqrt n)·u·R bounds an evaluation in any order.
"""

from __future__ import annotations

import math

import numpy as np

from . import access
from .ranges import interval, whole


class Magnitude:
    """Carries M; see the module. Only meaningful for programs whose arithmetic is exact on integers."""

    def tensor(self, a):
        return np.abs(a)

    def constant(self, c):
        return np.abs(np.float64(c))

    def operation(self, op, value, v, m):
        """M of op(v...), from the operands' values `v` and magnitudes `m` (None for an index)."""
        m = [np.abs(x) if y is None else y for x, y in zip(v, m)]
        if op in ("+", "-"):
            return m[0] + m[1]
        if op == "*":
            return m[0] * m[1]
        if op in ("min", "max"):
            return np.maximum(m[0], m[1])
        if op == "select":
            return np.where(v[0], m[1], m[2])
        return m[0]

    def products(self, values, carried):
        """Lists of factors whose products add up to M of a product."""
        return [carried]

    def summand(self, value, m):
        """M of a term that is added up."""
        return m


def most(program, tensors) -> float:
    """An upper bound of every M of a program without evaluating it, from the largest element of each tensor; infinite where that is not enough to know."""
    found = {t.name: float(np.max(np.abs(tensors[t.name]), initial=0.0)) for t in program.tensors}
    for stage in program.stages:
        extents = access.extents(stage)
        terms = math.prod(extents[a.name] for a in stage.reduce) if stage.combiner == "sum" else 1
        found[stage.name] = terms * _most(stage.body, found, whole(extents))
    return max(found[s.name] for s in program.stages)


def _most(e, found, ranges) -> float:
    if e.op == "load":
        fill = e.data[1].fill if e.data[1] is not None else None
        return max(found[e.data[0]], found[fill.data[0]] if fill is not None else 0.0)
    if e.op in ("const", "table"):
        return float(np.max(np.abs(e.data)))
    if e.dtype == "int":
        return float(max(map(abs, interval(e, ranges))))
    m = [_most(a, found, ranges) for a in (e.args[1:] if e.op == "select" else e.args)]
    if e.op in ("+", "-"):
        return m[0] + m[1]
    if e.op == "*":
        return m[0] * m[1] if all(m) else 0.0
    return max(m) if e.op in ("min", "max", "select", "neg", "abs", "float") else math.inf


class Rounding:
    """Carries R; see the module."""

    def tensor(self, a):
        return None

    def constant(self, c):
        return None if np.all(np.float32(c) == c) else np.abs(np.float64(c))

    def operation(self, op, value, v, m):
        """R of op(v...), from the operands' values `v` and errors `m` (None where exact)."""
        m = [0.0 if x is None else x for x in m]
        if op in ("+", "-"):
            return m[0] + m[1] + np.maximum(np.abs(v[0]), np.abs(v[1]))  # the larger operand, so that chains may be added in any order
        if op == "*":
            return np.abs(v[0]) * m[1] + np.abs(v[1]) * m[0] + np.abs(value)
        if op == "/":
            return (m[0] + np.abs(value) * m[1]) / np.abs(v[1]) + np.abs(value)
        if op in ("min", "max"):
            return np.maximum(m[0], m[1])
        if op == "select":
            return np.where(v[0], m[1], m[2])
        if op == "exp":
            return value * (m[0] + 1)
        if op == "sigmoid":
            return value * ((1 - value) * m[0] + 1)
        if op == "tanh":
            return (1 - value * value) * m[0] + np.abs(value)
        if op == "erf":
            return 2 / math.sqrt(math.pi) * np.exp(-v[0] * v[0]) * m[0] + np.abs(value)
        if op == "sqrt":
            return m[0] / (2 * np.maximum(value, 1e-300)) + value
        if op == "single":  # the rounding of the operation below, which counted it, or of an integer
            return np.maximum(m[0], np.abs(value))
        if op in ("floor", "round"):  # a step, taken the same way by whatever uses its fraction
            return np.zeros_like(value)
        return m[0]

    def products(self, values, carried):
        size = [np.abs(v) for v in values]
        own = [size] * max(1, len(values) - 1)
        return own + [[*size[:i], m, *size[i + 1:]] for i, m in enumerate(carried) if m is not None]

    def summand(self, value, m):
        return np.abs(value) + (0.0 if m is None else m)
