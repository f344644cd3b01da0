"""Machine code of scheduled functions by LLVM: one object file per kernel, called through TVM's FFI."""

from __future__ import annotations

import os
import re

import tvm
import tvm.s_tir.analysis
from tvm import s_tir
from tvm.tirx import transform

from ..targets.target import TRIPLES
from . import vector_math
from .border import restored

MATH = vector_math


def code(lowered, run, target: dict, program, planned: int, directory: str, symbol: str) -> dict:
    """Write `<directory>/<symbol>.o` and return the entry's fields about code. `planned`: bytes of temporaries where the batch is open."""
    functions = {f"{symbol}_run": restored(run)["main"]}
    if lowered.prepare is not None:
        functions[f"{symbol}_prepare"] = restored(lowered.prepare)["main"]
    module = tvm.IRModule({n: f.with_attr("global_symbol", n) for n, f in functions.items()})
    built = tvm.compile(module, tvm.target.Target(target_of(target) | _cautious(functions.values())))
    path = os.path.join(directory, f"{symbol}.o")
    _write_object(built, path)
    return {
        "symbol": f"{symbol}_run", "prepare": {"symbol": f"{symbol}_prepare", "args": lowered.prepare_args} if lowered.prepare is not None else None,
        "workspace": planned if program.any_batch else _scratch(run), "object": path,
    }


def _cautious(functions) -> dict:
    """Options for code with remainders by powers of two: LLVM's own vectoriser takes i % 4 for i in some loops of more than 4 steps (compare llvm-project #156849).

    Loops over vectors, which schedules make, are none of its business.
    """
    module = _without_blocks(tvm.IRModule({f"f{i}": f for i, f in enumerate(functions)}))
    simple = transform.StmtSimplify()(transform.FlattenBuffer()(module))  # only remainders that stay: not those that find a lane in a block of vectors
    divisors = {int(d) for f in simple.functions.values() for d in re.findall(r"% (\d+)", f.script())}
    return {"cl-opt": ["-vectorize-loops=false"]} if any(d & (d - 1) == 0 for d in divisors) else {}


def _scratch(module) -> int:
    """Bytes of temporaries that one thread holds at most; a constant of the scheduled loops unless the batch is open."""
    sizes = s_tir.analysis.calculate_allocated_bytes(_without_blocks(module)["main"])
    return sum(int(size) for scopes in sizes.values() for size in scopes.values())


def _without_blocks(module):
    """Scheduled functions as plain loops."""
    for name in ("LowerInitBlock", "PlanAndUpdateBufferAllocationLocation", "ConvertBlocksToOpaque", "CompactBufferAllocation", "LowerMatchBuffer", "LowerOpaqueBlock"):
        module = getattr(s_tir.transform, name)()(module)
    return module


def target_of(target: dict) -> dict:
    """What TVM needs to know of a target."""
    out = {"kind": "llvm", "mtriple": TRIPLES[target["family"]], "mcpu": target["mcpu"], "num-cores": target["threads"]}
    if target.get("attrs"):
        out["mattr"] = target["attrs"]
    return out


def _write_object(built, path):
    """The module's object code, position independent, as one file."""
    mod = built.mod if hasattr(built, "mod") else built
    mod.write_to_file(path, "o") if hasattr(mod, "write_to_file") else mod.save(path, "o")
