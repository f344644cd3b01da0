"""Machine code of scheduled functions by LLVM: one object file per kernel, called through TVM's FFI."""

from __future__ import annotations

import os
import re

import tvm
import tvm.s_tir.analysis
from tvm import s_tir
from tvm.ir.instrument import pass_instrument
from tvm.tirx import transform
from tvm.tirx.build import codegen_build

from ..targets.target import TRIPLES
from . import vector_math
from .border import restored

MATH = vector_math


def code(lowered, run, target: dict, program, planned: int, directory: str, symbol: str) -> dict:
    """Write `<directory>/<symbol>.o` and return the entry's fields about code. `planned`: bytes of temporaries where the batch is open."""
    functions = {f"{symbol}_run": restored(run)["main"]}
    if lowered.prepare is not None:
        functions[f"{symbol}_prepare"] = restored(lowered.prepare)["main"]
    loops = _Loops()
    with tvm.transform.PassContext(instruments=[loops]):
        module, finish = _lowered({n: f.with_attr("global_symbol", n) for n, f in functions.items()}, target_of(target))
    built = codegen_build(finish(module), tvm.target.Target(target_of(target) | loops.cautious()))
    path = os.path.join(directory, f"{symbol}.o")
    built.write_to_file(path, "o")
    return {
        "symbol": f"{symbol}_run", "prepare": {"symbol": f"{symbol}_prepare", "args": lowered.prepare_args} if lowered.prepare is not None else None,
        "workspace": planned if program.any_batch else loops.scratch(f"{symbol}_run"), "object": path,
    }


def _lowered(functions: dict, target: dict):
    """(functions as TVM's passes for a target leave them, the passes that come last)."""
    target = tvm.target.Target(target)
    passes, finish, _ = tvm.tirx.get_default_tir_pipeline(target)
    return passes(transform.BindTarget(target.with_host(target))(tvm.IRModule(functions))), finish()


@pass_instrument
class _Loops:
    """Looks at the functions while TVM lowers them: with every index a single number, and where temporaries that never live together share their memory."""

    def run_after_pass(self, module, info):
        if info.name == "tirx.FlattenBuffer":
            self.flat = module
        elif info.name == "tirx.StorageRewrite":
            self.shared = module

    def scratch(self, name: str) -> int:
        """Bytes of temporaries that one thread holds at most; a constant of the scheduled loops unless the batch is open."""
        sizes = s_tir.analysis.calculate_allocated_bytes(self.shared[name])
        return sum(int(size) for scopes in sizes.values() for size in scopes.values())

    def cautious(self) -> dict:
        """Options for code with remainders by powers of two: LLVM's own vectoriser takes i % 4 for i in some loops of more than 4 steps (compare llvm-project #156849).

        Loops over vectors, which schedules make, are none of its business.
        """
        simple = transform.StmtSimplify()(self.flat)  # only remainders that stay: not those that find a lane in a block of vectors
        divisors = {int(d) for f in simple.functions.values() for d in re.findall(r"% (\d+)", f.script())}
        return {"cl-opt": ["-vectorize-loops=false"]} if any(d & (d - 1) == 0 for d in divisors) else {}


def target_of(target: dict) -> dict:
    """What TVM needs to know of a target."""
    out = {"kind": "llvm", "mtriple": TRIPLES[target["family"]], "mcpu": target["mcpu"], "num-cores": target["threads"]}
    if target.get("attrs"):
        out["mattr"] = target["attrs"]
    return out
