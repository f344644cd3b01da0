"""Compile one candidate. This module imports TVM and belongs in worker processes."""

from __future__ import annotations

import importlib
import json
import re
from functools import lru_cache

from .. import algorithms, schedules
from ..errors import EmitError
from ..lang.program import Program
from . import limits, lower, memory, plan, simt

ALIGNMENT = 64
_PLANS = {"cuda": simt.make}  # family → plan of a choice; others have vectors
_CODE = {"cuda": "cuda"}  # family → module that makes code of scheduled functions; others are machines that LLVM knows


def build_kernel(description: dict, target: dict, choice: dict | None, directory: str, symbol: str) -> dict:
    """Write a kernel's code as files `<directory>/<symbol>.*` and return the kernel entry that libraries store.

    `choice` None means the space's default. Raises EmitError for a choice outside the space, or one that TVM cannot schedule.
    """
    described, choice, made, planned, family, lowered, run = _scheduled(description, target, choice, symbol)
    program = made.program
    code, peak = family.code(lowered, run, target, program, directory, symbol)
    peak = planned if peak is None else peak
    most = limits.most_samples(lowered.shapes, code.get("launches", [])) if program.any_batch else None
    if most is not None and most < program.dims["N"]:
        raise EmitError(f"{described.id}: the kernel would take at most {most} samples")
    return {
        "id": program.id, "operator": program.operator,
        "dims": {n: {"min": 1, "max": most} if n == "N" and program.any_batch else v for n, v in program.dims.items()},
        "attributes": program.attributes, "layout": program.layout, "dtypes": {t.name: t.dtype for t in program.tensors}, "output_dtype": program.output.dtype,
        "args": lowered.args, "align": ALIGNMENT, "target": target["name"], "features": target["features"], "threads": target["threads"], "choice": choice,
        "oracle": algorithms.oracle(choice["algorithm"]), "origin": "default", "measured_us": None, "torch_us": None, "hash": described.hash,
        "workspace": sum(peak.values()), "memory": _held(made, choice, target, peak),
    } | code


def memory_of(description: dict, target: dict, choice: dict) -> dict:
    """The entry's "memory" of a kernel for a processor, without making its code. Raises EmitError as `build_kernel` does."""
    _, choice, made, planned, family, lowered, run = _scheduled(description, target, choice, "counted")
    peak = family.temporaries(lowered, run, target, "counted")
    return _held(made, choice, target, planned if peak is None else peak)


def _scheduled(description, target, choice, symbol):
    """(workload, choice, plan, its temporaries, the family's module, what was lowered, its scheduled function)."""
    described, space = _space(json.dumps(description), json.dumps(target))
    choice = space.default() if choice is None else choice
    reason = space.valid(choice)
    if reason is not None:
        raise EmitError(f"{described.id}: {reason}")
    program = space.program(choice)
    made = _PLANS[target["family"]](program, choice) if target["family"] in _PLANS else plan.make(program, choice, target["lanes"]["float32"])
    planned = plan.staged(made)  # before lowering makes the batch symbolic
    family = importlib.import_module(f".{_CODE.get(target['family'], 'machine')}", __package__)
    try:
        lowered = lower.lower(made, symbol, family.MATH)
        run = schedules.apply(lowered.run, lowered.blocks, choice, target)
    except (RuntimeError, ValueError) as e:
        raise EmitError(f"{program.id}: TVM refuses the schedule: {_first_line(e)}") from e
    return described, choice, made, planned, family, lowered, run


def _held(made, choice, target, peak) -> dict:
    return memory.held(made, choice, 1 if target["family"] == "cuda" else target["threads"], peak)


@lru_cache(maxsize=2)
def _space(description: str, target: str) -> tuple:
    """(Program, Space) of JSON texts; the candidates of one workload come one after the other."""
    described = json.loads(description)
    return Program.from_json(described), schedules.space(described, json.loads(target))


def _first_line(e) -> str:
    lines = [l.strip() for l in str(e).splitlines() if re.search(r"[Ee]rror|[Cc]heck failed", l)]
    return (lines or [str(e).strip().splitlines()[-1] if str(e).strip() else type(e).__name__])[0][:200]
