"""The float64 oracle: a program evaluated with numpy, stage by stage, without TVM.

Sums of products go through einsum over the factors' own axes (one call per window tap); everything else is evaluated on the full grid.
Beside each value it can carry the magnitude sum that bounds a reordered or rounded evaluation (condition-aware error bound).
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from ..errors import ArgumentError
from . import expr as E
from .size import value_of

_LIMIT = 1 << 24  # elements of one full-grid temporary


def evaluate(program, tensors, magnitudes=False):
    """(y, S, n). S and n are None without `magnitudes`. Raises ArgumentError for a missing or misshapen tensor."""
    values, mags, counts = {}, {}, {}
    for t in program.tensors:
        if t.name not in tensors:
            raise ArgumentError(f"{program.operator}: tensor {t.name} of shape {t.shape} is missing")
        a = np.asarray(tensors[t.name]).astype(np.float64)
        if a.shape != tuple(t.shape):
            raise ArgumentError(f"{program.operator}: {t.name} must have shape {tuple(t.shape)}, got {a.shape}")
        values[t.name], mags[t.name], counts[t.name] = a, np.abs(a) if magnitudes else None, 0
    for stage in program.stages:
        run = _Stage(stage, values, mags if magnitudes else None)
        values[stage.name], mags[stage.name] = run.result()
        own = math.prod(value_of(a.size) for a in stage.reduce) if stage.combiner == "sum" else 1
        counts[stage.name] = own + max((counts[e.data[0]] for e in stage.body.loads()), default=0)
    last = program.stages[-1].name
    return values[last], (mags[last] if magnitudes else None), (counts[last] if magnitudes else None)


class _Stage:
    def __init__(self, stage, values, mags):
        self.stage, self.values, self.mags = stage, values, mags
        self.out = [a.name for a in stage.axes]
        self.extent = {a.name: value_of(a.size) for a in [*stage.axes, *stage.reduce]}

    def result(self):
        s = self.stage
        factors = _factors(s.body) if s.combiner == "sum" else None
        looped, inner = self._split_reduction(factors)
        shape = tuple(self.extent[a] for a in self.out)
        total = mag = None
        if s.combiner == "sum":
            total, mag = np.zeros(shape), np.zeros(shape) if self.mags is not None else None
        for point in itertools.product(*(range(self.extent[a]) for a in looped)):
            fixed = dict(zip(looped, point))
            v, m = self._product(factors, inner, fixed) if factors else self._grid(inner, fixed)
            if s.combiner == "sum":
                total += v
                if mag is not None:
                    mag += m
            elif s.combiner in ("max", "min"):
                pick = np.maximum if s.combiner == "max" else np.minimum
                total = v if total is None else pick(total, v)
                mag = m if mag is None else np.maximum(mag, m)
            else:
                total, mag = v, m
        return np.broadcast_to(total, shape).copy(), (np.broadcast_to(mag, shape).copy() if mag is not None else None)

    def _split_reduction(self, factors):
        """Reduced axes to loop in Python (window taps, and whatever would not fit) and those reduced inside one numpy call."""
        names = [a.name for a in self.stage.reduce]
        if factors:
            mixed = set()
            for load in self.stage.body.loads():
                for index in load.args:
                    used = index.axes()
                    if len(used) > 1 or any(e.op in ("load", "select") for e in index.walk()):
                        mixed |= set(used)
            return [n for n in names if n in mixed], [n for n in names if n not in mixed]
        looped, inner, size = [], list(names), math.prod(self.extent[a] for a in self.out)
        while inner and size * math.prod(self.extent[n] for n in inner) > _LIMIT:
            looped.append(inner.pop(0))
        return looped, inner

    def _product(self, factors, inner, fixed):
        letters = {n: chr(ord("a") + i) for i, n in enumerate([*self.out, *inner])}
        operands, mag_operands, subs = [], [], []
        for f in factors:
            own = [n for n in letters if n in f.axes()]
            v, m = self._eval(f, own, fixed)
            shape = tuple(self.extent[n] for n in own)
            operands.append(np.broadcast_to(v, shape))
            if m is not None:
                mag_operands.append(np.broadcast_to(m, shape))
            subs.append("".join(letters[n] for n in own))
        # an output axis that no factor mentions is broadcast
        present = [n for n in self.out if any(letters[n] in s for s in subs)]
        spec = ",".join(subs) + "->" + "".join(letters[n] for n in present)
        shape = tuple(self.extent[n] if n in present else 1 for n in self.out)
        scale = math.prod(self.extent[n] for n in inner if not any(letters[n] in s for s in subs))
        v = np.einsum(spec, *operands, optimize=True).reshape(shape) * scale
        m = np.einsum(spec, *mag_operands, optimize=True).reshape(shape) * scale if self.mags is not None else None
        return v, m

    def _grid(self, inner, fixed):
        order = [*self.out, *inner]
        v, m = self._eval(self.stage.body, order, fixed)
        shape = tuple(self.extent[n] for n in order)
        v = np.broadcast_to(v, shape)
        m = np.broadcast_to(m, shape) if m is not None else None
        if inner:
            axes = tuple(range(len(self.out), len(order)))
            op = {"sum": np.sum, "max": np.max, "min": np.min}[self.stage.combiner]
            v = op(v, axis=axes)
            m = (np.sum if self.stage.combiner == "sum" else np.max)(m, axis=axes) if m is not None else None
        return v, m

    # -- expressions: (value, magnitude) on a grid whose dims are `order`, axes in `fixed` being scalars ---------------------
    def _eval(self, e, order, fixed):
        op = e.op
        if op == "axis":
            if e.data in fixed:
                return np.int64(fixed[e.data]), None
            shape = [1] * len(order)
            shape[order.index(e.data)] = -1
            return np.arange(self.extent[e.data]).reshape(shape), None
        if op == "const":
            return (np.float64(e.data), np.float64(abs(e.data))) if e.dtype == "float" else (np.int64(e.data), None)
        if op == "size":
            return np.int64(e.data[1]), None
        if op == "load":
            return self._load(e, order, fixed)
        parts = [self._eval(a, order, fixed) for a in e.args]
        v = [p[0] for p in parts]
        value = _VALUE[op](*v)
        if e.dtype != "float" or self.mags is None:
            return value, None
        return value, _magnitude(op, value, v, [p[1] for p in parts])

    def _load(self, e, order, fixed):
        name, padding = e.data
        array = self.values[name]
        index, valid = [], None
        for d, a in enumerate(e.args):
            i = np.asarray(self._eval(a, order, fixed)[0]).astype(np.int64)
            n = array.shape[d]
            if padding is not None:
                lo, hi = (value_of(p) for p in padding.amounts[d])
                if lo or hi:
                    i = i - lo
                    i, ok = _pad_index(i, n, padding.mode)
                    if ok is not None:
                        valid = ok if valid is None else valid & ok
            index.append(np.clip(i, 0, n - 1))  # the unread side of a select may point outside
        picked = array[tuple(index)]
        mag = self.mags[name][tuple(index)] if self.mags is not None else None
        if valid is not None:
            picked = np.where(valid, picked, 0.0)
            mag = np.where(valid, mag, 0.0) if mag is not None else None
        return picked, mag


def _pad_index(i, n, mode):
    if mode == "replicate":
        return np.clip(i, 0, n - 1), None
    if mode == "circular":
        return np.mod(i, n), None
    if mode == "reflect":
        i = np.abs(i)
        return np.where(i > n - 1, 2 * (n - 1) - i, i), None
    return i, (i >= 0) & (i < n)


def _factors(body):
    """The factors of a product, or None if the body is something else or too simple to need einsum."""
    if body.op == "*":
        return _factors_of(body)
    return [body] if body.op == "load" else None


def _factors_of(e):
    return [*_factors_of(e.args[0]), *_factors_of(e.args[1])] if e.op == "*" else [e]


def _erf(x):
    try:
        from scipy.special import erf
        return erf(x)
    except ImportError:
        return np.vectorize(math.erf, otypes=[np.float64])(x)


_VALUE = {
    "+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide, "//": np.floor_divide, "%": np.mod, "min": np.minimum, "max": np.maximum,
    "==": np.equal, "!=": np.not_equal, "<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal,
    "and": np.logical_and, "or": np.logical_or, "not": np.logical_not, "neg": np.negative, "abs": np.abs, "exp": np.exp,
    "sigmoid": lambda v: 1.0 / (1.0 + np.exp(-v)), "tanh": np.tanh, "erf": _erf, "sqrt": np.sqrt, "floor": np.floor,
    "float": lambda v: np.asarray(v).astype(np.float64), "int": lambda v: np.asarray(v).astype(np.int64), "select": np.where,
}


def _magnitude(op, value, v, m):
    """How large the intermediate terms behind a value are: the factor that a relative rounding error of each step is multiplied by."""
    m = [np.abs(x) if y is None else y for x, y in zip(v, m)]
    if op in ("+", "-"):
        return m[0] + m[1]
    if op == "*":
        return m[0] * m[1]
    if op == "/":
        return (m[0] + np.abs(value) * m[1]) / np.abs(v[1])
    if op in ("min", "max"):
        return np.maximum(m[0], m[1])
    if op == "select":
        return np.where(v[0], m[1], m[2])
    if op in ("exp", "sigmoid"):
        return value * (1 + m[0])
    if op in ("tanh", "erf"):
        return np.abs(value) + m[0]
    if op == "sqrt":
        return value + m[0] / (2 * np.maximum(value, 1e-300))
    if op == "floor":
        return np.abs(value)
    return m[0]
