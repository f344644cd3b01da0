"""Work and least traffic of a program, from its stages."""

from __future__ import annotations

import math

from . import expr as E

BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "int32": 4, "int64": 8, "int8": 1, "uint8": 1}
_COUNTED = {"+", "-", "*", "/", "min", "max", "exp", "sigmoid", "tanh", "erf", "sqrt", "abs"}


def stage_flops(stage) -> int:
    """Floating-point operations of one stage: those of its body, and one per combined element. Index arithmetic is not work."""
    points = math.prod(stage.shape) * math.prod(E.value_of(a.size) for a in stage.reduce)
    per_point = sum(1 for e in stage.body.walk() if e.dtype == "float" and e.op in _COUNTED) + (1 if stage.combiner else 0)
    return points * per_point


def flops(program) -> int:
    """Work of one call. Stages that run when parameters are bound are not part of a call."""
    return sum(stage_flops(s) for s in program.run_stages)


def least_bytes(program) -> int:
    """Traffic of one call when every input, prepared parameter and output moves once."""
    bound = {s.name: s for s in program.bind_stages}
    read = {e.data[0] for s in program.run_stages for e in s.body.loads()}
    total = math.prod(program.output.shape) * BYTES[program.output.dtype]
    for t in program.tensors:
        if t.name in read:
            total += math.prod(t.shape) * BYTES[t.dtype]
    return total + sum(math.prod(s.shape) * BYTES[program.acc_dtype] for n, s in bound.items() if n in read)
