"""The float64 oracle: a program evaluated with numpy, stage by stage, without TVM.

Integers below 2^53 are exact in it, and one float32 operation is float64's result rounded to float32, so `single` describes float32 bit by bit.
Sums of products whose factors are read at affine indices go through `products`; others through einsum over the factors' own axes (one call per window tap);
everything else is evaluated on the full grid.
Beside each value it can carry a bound (carry.py).
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from ..errors import ArgumentError
from . import access, expr as E
from .products import Operand, plain, sum_of_products
from .ranges import simplify
from .size import value_of

_LIMIT = 1 << 24  # elements of one full-grid temporary
_REPEATED = 1 << 22  # elements of a factor that is written out because groups share what it reads; above, taps are taken one after another


def evaluate(program, tensors, carry=None):
    """(y, bound, n): the float64 result, what `carry` says of each element, and the number of accumulations behind one.

    Raises ArgumentError for a missing, unknown or misshapen tensor.
    """
    values, carried, counts = {}, {}, {}
    unknown = [name for name in tensors if program.tensor(name) is None]
    if unknown:
        raise ArgumentError(f"{program.operator}: there is no tensor {unknown[0]}; it takes {', '.join(t.name for t in program.tensors)}")
    for t in program.tensors:
        if t.name not in tensors:
            raise ArgumentError(f"{program.operator}: tensor {t.name} of shape {tuple(t.shape)} is missing")
        a = np.asarray(tensors[t.name]).astype(np.float64)
        if a.shape != tuple(t.shape):
            raise ArgumentError(f"{program.operator}: {t.name} must have shape {tuple(t.shape)}, got {a.shape}")
        values[t.name], carried[t.name], counts[t.name] = a, carry.tensor(a) if carry else None, 0
    for stage in program.stages:
        values[stage.name], carried[stage.name] = _Stage(stage, values, carried, carry).result()
        own = math.prod(value_of(a.size) for a in stage.reduce) if stage.combiner == "sum" else 1
        counts[stage.name] = own + max((counts[e.data[0]] for e in stage.body.loads()), default=0)
    last = program.stages[-1].name
    return values[last], carried[last], counts[last]


class _Stage:
    """One stage's evaluation: chunks of output axes outside, window taps next, numpy inside."""

    def __init__(self, stage, values, carried, carry):
        self.values, self.carried, self.carry, self.combiner = values, carried, carry, stage.combiner
        self.out, self.reduce = [a.name for a in stage.axes], [a.name for a in stage.reduce]
        self.extent = access.extents(stage)
        self.body = simplify(stage.body, self.extent)
        self.factors = E.factors(self.body) if stage.combiner == "sum" and self.body.op in ("*", "load") else None

    def result(self):
        shape = tuple(self.extent[a] for a in self.out)
        value, carried = np.empty(shape), np.empty(shape) if self.carry else None
        chunked, rest = [], list(self.out)
        while not self.factors and len(rest) > 1 and self._points(rest) > _LIMIT:
            chunked.append(rest.pop(0))
        for point in itertools.product(*(range(self.extent[a]) for a in chunked)):
            v, m = self._block(rest, dict(zip(chunked, point)))
            value[point] = v
            if carried is not None:
                carried[point] = 0.0 if m is None else m
        return value, carried

    def _points(self, names):
        return math.prod(self.extent[n] for n in names)

    def _block(self, out, fixed):
        if self.factors and (found := self._windows(out)):
            return found
        looped, inner = self._split_reduction(out)
        total = carried = None
        for point in itertools.product(*(range(self.extent[a]) for a in looped)):
            at = fixed | dict(zip(looped, point))
            v, m = self._product(out, inner, at) if self.factors else self._grid(out, inner, at)
            total = v if total is None else _COMBINE[self.combiner](total, v)
            if m is not None:
                carried = m if carried is None else _COMBINE["sum" if self.combiner == "sum" else "max"](carried, m)
        return total, carried

    def _windows(self, out):
        """(value, carried) by strided views of the factors, or None if one of them is read in another way or there is nothing to add up."""
        operands = [self._operand(f) for f in self.factors]
        if not all(operands) or not all(self.extent.values()):
            return None
        present = [n for n in out if any(n in spec(v).axes for v, _, spec in operands)]  # an output axis that no factor mentions is broadcast
        repeated = self._points([n for n in self.reduce if not any(n in spec(v).axes for v, _, spec in operands)])

        def total(arrays):
            found = sum_of_products([spec(array) for array, (_, _, spec) in zip(arrays, operands)], present, self.extent)
            return None if found is None else found.reshape([self.extent[n] if n in present else 1 for n in out]) * repeated
        values, carried = [v for v, _, _ in operands], [m for _, m, _ in operands]
        value = total(values)
        if value is None or not self.carry:
            return None if value is None else (value, None)
        return value, sum(total(p) for p in self.carry.products(values, carried))

    def _operand(self, f):
        """(values, carried, what makes an Operand of either) of a factor, None if its indices are not affine."""
        if f.op != "load":
            own = [n for n in self.extent if n in f.axes()]
            if self._points(own) > _LIMIT or any(len(i.axes()) > 1 for load in f.loads() for i in load.args):
                return None
            v, m = self._eval(f, own, {})
            shape = tuple(self.extent[n] for n in own)
            return np.broadcast_to(v, shape), None if m is None else np.broadcast_to(m, shape), lambda array: plain(array, own)
        dims, indices, repeats = [], [], 1
        for d, index in enumerate(f.args):
            linear = access.linear(index)
            if linear is not None:
                terms, start = linear
                ends = [m * (self.extent[n] - 1) for n, m in terms.items()]
                least = sum(min(0, end) for end in ends)
                reads = start + np.arange(least, sum(max(0, end) for end in ends) + 1)
            elif len(index.axes()) == 1 and not index.loads():
                terms, least = {index.axes()[0]: 1}, 0
                reads = self._eval(index, index.axes(), {})[0]
                repeats *= len(reads) // len(np.unique(reads))
            else:
                return None
            dims.append((terms, -least))
            indices.append(reads.reshape([-1 if k == d else 1 for k in range(len(f.args))]))
        if repeats > 1 and math.prod(i.size for i in indices) > _REPEATED:
            return None
        values, carried = self._read(f, indices)
        return values, carried, lambda array: Operand(array, tuple(dims))

    def _split_reduction(self, out):
        """Reduced axes to loop in Python (window taps, and whatever would not fit) and those reduced inside one numpy call."""
        if self.factors:
            mixed = set()
            for load in self.body.loads():
                for index in load.args:
                    used = index.axes()
                    if len(used) > 1 or any(e.op in ("load", "select") for e in index.walk()):
                        mixed |= set(used)
            return [n for n in self.reduce if n in mixed], [n for n in self.reduce if n not in mixed]
        looped, inner = [], list(self.reduce)
        while inner and self._points([*out, *inner]) > _LIMIT:
            looped.append(inner.pop(0))
        return looped, inner

    def _product(self, out, inner, fixed):
        letters = {n: chr(ord("a") + i) for i, n in enumerate([*out, *inner])}
        values, carried, subscripts = [], [], []
        for f in self.factors:
            own = [n for n in letters if n in f.axes()]
            v, m = self._eval(f, own, fixed)
            shape = tuple(self.extent[n] for n in own)
            values.append(np.broadcast_to(v, shape))
            carried.append(None if m is None else np.broadcast_to(m, shape))
            subscripts.append("".join(letters[n] for n in own))
        used = set("".join(subscripts))
        present = [n for n in out if letters[n] in used]  # an output axis that no factor mentions is broadcast
        spec = ",".join(subscripts) + "->" + "".join(letters[n] for n in present)
        shape = tuple(self.extent[n] if n in present else 1 for n in out)
        repeated = self._points([n for n in inner if letters[n] not in used])

        def total(operands):
            return np.einsum(spec, *operands, optimize=True).reshape(shape) * repeated
        return total(values), sum(total(p) for p in self.carry.products(values, carried)) if self.carry else None

    def _grid(self, out, inner, fixed):
        order = [*out, *inner]
        shape = tuple(self.extent[n] for n in order)
        v, m = self._eval(self.body, order, fixed)
        if self.carry and self.combiner == "sum":
            m = self.carry.summand(v, m)
        v, m = np.broadcast_to(v, shape), None if m is None else np.broadcast_to(m, shape)
        if inner:
            axes = tuple(range(len(out), len(order)))
            v = {"sum": np.sum, "max": np.max, "min": np.min}[self.combiner](v, axis=axes)
            m = None if m is None else (np.sum if self.combiner == "sum" else np.max)(m, axis=axes)
        return v, m

    # -- expressions: (value, carried) on a grid whose dims are `order`, axes in `fixed` being scalars ---------------------------------
    def _eval(self, e, order, fixed):
        if e.op == "axis":
            if e.data in fixed:
                return np.int64(fixed[e.data]), None
            shape = [1] * len(order)
            shape[order.index(e.data)] = -1
            return np.arange(self.extent[e.data]).reshape(shape), None
        if e.op == "const":
            return (np.float64(e.data), self.carry.constant(e.data) if self.carry else None) if e.dtype == "float" else (np.int64(e.data), None)
        if e.op == "size":
            return np.int64(e.data[1]), None
        if e.op == "load":
            return self._load(e, order, fixed)
        if e.op == "table":
            value = np.asarray(e.data, np.float64)[self._eval(e.args[0], order, fixed)[0]]
            return value, self.carry.constant(value) if self.carry else None
        parts = [self._eval(a, order, fixed) for a in e.args]
        v = [p[0] for p in parts]
        value = VALUE[e.op](*v)
        if e.dtype != "float" or self.carry is None or e.op == "float":
            return value, None
        return value, self.carry.operation(e.op, value, v, [p[1] for p in parts])

    def _load(self, e, order, fixed):
        return self._read(e, [np.asarray(self._eval(a, order, fixed)[0]).astype(np.int64) for a in e.args])

    def _read(self, e, indices):
        """What a load gives for arrays of indices, which broadcast."""
        name, padding = e.data
        array, carried = self.values[name], self.carried[name]
        index, valid = [], None
        for d, i in enumerate(indices):
            n = array.shape[d]
            if padding is not None:
                lo, hi = (value_of(p) for p in padding.amounts[d])
                if lo or hi:
                    i, ok = _pad_index(i - lo, n, padding.mode)
                    if ok is not None:
                        valid = ok if valid is None else valid & ok
            index.append(np.clip(i, 0, n - 1))  # the unread side of a select may point outside
        index = tuple(index)
        picked, bound = array[index], None if carried is None else carried[index]
        if valid is not None:
            outside = 0.0 if padding.fill is None else self._eval(padding.fill, [], {})[0]
            picked = np.where(valid, picked, outside)
            bound = None if bound is None else np.where(valid, bound, 0.0)
        return picked, bound


def _pad_index(i, n, mode):
    if mode == "replicate":
        return np.clip(i, 0, n - 1), None
    if mode == "circular":
        return np.mod(i, n), None
    if mode == "reflect":
        i = np.abs(i)
        return np.where(i > n - 1, 2 * (n - 1) - i, i), None
    return i, (i >= 0) & (i < n)


def _sigmoid(v):
    e = np.exp(-np.abs(v))  # never overflows
    return np.where(v >= 0, 1.0, e) / (1.0 + e)


_COMBINE = {"sum": np.add, "max": np.maximum, "min": np.minimum}
VALUE = {
    "+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide, "//": np.floor_divide, "%": np.mod, "min": np.minimum, "max": np.maximum,
    "==": np.equal, "!=": np.not_equal, "<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal,
    "and": np.logical_and, "or": np.logical_or, "not": np.logical_not, "neg": np.negative, "abs": np.abs, "exp": np.exp,
    "sigmoid": _sigmoid, "tanh": np.tanh, "erf": np.vectorize(math.erf, otypes=[np.float64]), "sqrt": np.sqrt, "floor": np.floor, "round": np.rint, "single": lambda v: np.asarray(v, np.float32).astype(np.float64),
    "float": lambda v: np.asarray(v).astype(np.float64), "int": lambda v: np.asarray(v).astype(np.int64), "select": np.where,
}
