"""Work and least traffic of a program, from its stages."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from . import access, expr as E
from .ranges import simplify

BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "int32": 4, "int64": 8, "uint16": 2, "int8": 1, "uint8": 1}
INDEXABLE = 2**31 - 2**16  # elements of one tensor at most: kernels count them in 32 bits, a block of threads beyond the last one included
CALL = 3.0  # bytes that a call should hold at most, over those of its inputs and output: these themselves, and temporaries
PREPARED = 8.0  # bytes of prepared parameters at most, over those of the parameters as given: a network's weights have to stay in memory
_COUNTED = {"+", "-", "*", "/", "min", "max", "exp", "sigmoid", "tanh", "erf", "sqrt", "abs"}


def stage_flops(stage) -> int:
    """Operations of one stage on elements, floating-point or integer. Index arithmetic is not work.

    An operation counts once per point of the axes it depends on, a combination once per element. Terms that a condition on axes alone makes zero (the
    taps of a transposed convolution between two inputs) are not work; taps in the padding are, as everywhere in the literature.
    """
    extents = access.extents(stage)
    body = simplify(stage.body, extents)
    every = tuple(extents)
    work = Fraction(math.prod(extents.values()) if stage.combiner else 0)
    for e in [*(e for e in body.walk() if e.dtype == "float"), *_on_integers(body)]:
        if e.op in _COUNTED:
            axes = every if stage.combiner and e is body else e.axes()
            work += math.prod(extents[a] for a in axes)
    return int(work * (_nonzero(body, extents) if stage.combiner == "sum" else 1))


def _on_integers(e):
    """Nodes that compute with elements of integer tensors."""
    if e.op != "load" and e.loads():
        if e.dtype == "int":
            yield e
        for a in e.args:
            yield from _on_integers(a)


def _nonzero(body, extents) -> Fraction:
    """The part of the iteration space where no factor of a product is a select that chooses the constant zero."""
    share = Fraction(1)
    for e in E.factors(body):
        if e.op == "select" and E.is_const(e.args[2], 0.0) and not e.args[0].loads():
            holds = _condition(e.args[0], extents)
            share *= Fraction(int(np.count_nonzero(holds)), holds.size)
    return share


def _condition(e, extents):
    """The condition on the grid of the axes it mentions."""
    from .oracle import VALUE
    order = e.axes()

    def value(x):
        if x.op == "axis":
            return np.arange(extents[x.data]).reshape([-1 if n == x.data else 1 for n in order])
        return np.asarray(E.constant(x)) if not x.args else VALUE[x.op](*(value(a) for a in x.args))
    return np.broadcast_to(value(e), tuple(extents[n] for n in order))


def flops(program) -> int:
    """Work of one call. Stages that run when parameters are bound are not part of a call."""
    return sum(s.flops for s in program.run_stages)


def border_bytes(program) -> int:
    """Bytes of the inputs and the output of one call."""
    tensors = [(t.shape, t.dtype) for t in program.tensors if t.kind == "input"] + [(program.output.shape, program.output.dtype)]
    return sum(math.prod(shape) * BYTES[dtype] for shape, dtype in tensors)


def given_bytes(program) -> int:
    """Bytes of the parameters as they are given."""
    return sum(math.prod(t.shape) * BYTES[t.dtype] for t in program.tensors if t.kind == "param")


def prepared_bytes(program) -> int:
    """Bytes of parameters that calls read, as given or as stages made of them when they are bound. Tables that no parameter enters are none."""
    found = {t.name: math.prod(t.shape) * BYTES[t.dtype] for t in program.tensors if t.kind == "param"}
    for s in program.bind_stages:
        if any(e.data[0] in found for e in s.body.loads()):
            found[s.name] = math.prod(s.shape) * 4
    return sum(found.get(name, 0) for name in _read(program))


def _read(program) -> set:
    """Names of the tensors and stages that a call reads."""
    return {e.data[0] for s in program.run_stages for e in s.body.loads()}


def least_bytes(program) -> int:
    """Traffic of one call when every input, prepared parameter and output moves once."""
    bound, read = {s.name: s for s in program.bind_stages}, _read(program)
    total = math.prod(program.output.shape) * BYTES[program.output.dtype]
    for t in program.tensors:
        if t.name in read:
            total += math.prod(t.shape) * BYTES[t.dtype]
    return total + sum(math.prod(s.shape) * 4 for n, s in bound.items() if n in read)
