"""Compile one candidate. This module imports TVM and belongs in worker processes."""

from __future__ import annotations

import os
import re

import tvm
import tvm.s_tir.analysis
from tvm import s_tir

from .. import algorithms, schedules
from ..errors import EmitError
from ..lang.program import Program
from . import lower, plan

ALIGNMENT = 64


def build_kernel(description: dict, target: dict, choice: dict | None, directory: str, symbol: str) -> dict:
    """Write `<directory>/<symbol>.o` and return the kernel entry that libraries store.

    `choice` None means the space's default. Raises EmitError for a choice outside the space, or one that TVM cannot schedule.
    """
    described = Program.from_json(description)
    space = schedules.space(description, target)
    choice = space.default() if choice is None else choice
    reason = space.valid(choice)
    if reason is not None:
        raise EmitError(f"{described.id}: {reason}")
    program = space.program(choice)
    made = plan.make(program, choice, target["lanes"]["float32"])
    planned = plan.staged_bytes(made)  # before lowering makes the batch symbolic
    lowered = lower.lower(made, symbol)
    try:
        run = schedules.apply(lowered.run, lowered.blocks, choice, target)
    except (RuntimeError, ValueError) as e:
        raise EmitError(f"{program.id}: TVM refuses the schedule: {_first_line(e)}") from e
    functions = {f"{symbol}_run": run["main"]}
    if lowered.prepare is not None:
        functions[f"{symbol}_prepare"] = lowered.prepare["main"]
    module = tvm.IRModule({n: f.with_attr("global_symbol", n) for n, f in functions.items()})
    compiled = tvm.compile(module, tvm.target.Target(target_of(target)))
    path = os.path.join(directory, f"{symbol}.o")
    _write_object(compiled, path)
    return {
        "id": program.id, "operator": program.operator,
        "dims": {n: {"min": 1} if n == "N" and program.any_batch else v for n, v in program.dims.items()},
        "attributes": program.attributes, "layout": program.layout, "dtypes": {t.name: t.dtype for t in program.tensors}, "output_dtype": program.output.dtype,
        "symbol": f"{symbol}_run", "args": lowered.args, "align": ALIGNMENT,
        "prepare": {"symbol": f"{symbol}_prepare", "args": lowered.prepare_args} if lowered.prepare is not None else None,
        "workspace": planned if program.any_batch else _scratch(run), "target": target["name"], "features": target["features"], "threads": target["threads"], "choice": choice,
        "oracle": algorithms.oracle(choice["algorithm"]), "origin": "default", "measured_us": None, "torch_us": None, "object": path, "hash": described.hash,
    }


def _scratch(module) -> int:
    """Bytes of temporaries that one thread holds at most; a constant of the scheduled loops unless the batch is open."""
    for name in ("LowerInitBlock", "PlanAndUpdateBufferAllocationLocation", "ConvertBlocksToOpaque", "CompactBufferAllocation", "LowerMatchBuffer", "LowerOpaqueBlock"):
        module = getattr(s_tir.transform, name)()(module)
    sizes = s_tir.analysis.calculate_allocated_bytes(module["main"])
    return sum(int(size) for scopes in sizes.values() for size in scopes.values())


def target_of(target: dict) -> dict:
    """What TVM needs to know of a target."""
    out = {"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": target["mcpu"], "num-cores": target["threads"]}
    if target.get("attrs"):
        out["mattr"] = target["attrs"]
    return out


def _write_object(compiled, path):
    """The module's object code, position independent, as one file."""
    mod = compiled.mod if hasattr(compiled, "mod") else compiled
    mod.write_to_file(path, "o") if hasattr(mod, "write_to_file") else mod.save(path, "o")


def _first_line(e) -> str:
    lines = [l.strip() for l in str(e).splitlines() if re.search(r"[Ee]rror|[Cc]heck failed", l)]
    return (lines or [str(e).strip().splitlines()[-1] if str(e).strip() else type(e).__name__])[0][:200]
