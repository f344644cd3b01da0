"""Machine code of scheduled functions by LLVM: one object file per kernel, called through TVM's FFI."""

from __future__ import annotations

import os
import re

import tvm
from tvm.ir.instrument import pass_instrument
from tvm.tirx import transform
from tvm.tirx.build import codegen_build

from ..targets.target import TRIPLES
from . import vector_math
from .allocated import at_peak
from .border import restored
from .compact import SKIPPED, compacted
from .stack import on_stack

MATH = vector_math


def code(lowered, run, target: dict, program, directory: str, symbol: str) -> tuple:
    """Write `<directory>/<symbol>.o` and return the entry's fields about code, and the temporaries of a call at its peak, name → bytes; None where the batch is open."""
    module, loops = _finished(lowered, run, target, symbol)
    built = codegen_build(module, tvm.target.Target(target_of(target) | loops.cautious()))
    path = os.path.join(directory, f"{symbol}.o")
    built.write_to_file(path, "o")
    prepare = {"symbol": f"{symbol}_prepare", "args": lowered.prepare_args} if lowered.prepare is not None else None
    return {"symbol": f"{symbol}_run", "prepare": prepare, "object": path}, at_peak(module[f"{symbol}_run"], target["threads"])


def temporaries(lowered, run, target: dict, symbol: str) -> dict | None:
    """Those of a call at its peak, as `code` returns them, without machine code."""
    return at_peak(_finished(lowered, run, target, symbol)[0][f"{symbol}_run"], target["threads"])


def _finished(lowered, run, target, symbol):
    """(the module of a kernel's functions when all of TVM's passes are through and tiles of sums are on the stack, what was seen on the way)."""
    functions = {f"{symbol}_run": restored(run)["main"]}
    if lowered.prepare is not None:
        functions[f"{symbol}_prepare"] = restored(lowered.prepare)["main"]
    module, loops = compacted({n: f.with_attr("global_symbol", n) for n, f in functions.items()}), _Loops()
    with tvm.transform.PassContext(instruments=[loops], disabled_pass=SKIPPED):
        module, finish = _lowered(module, target_of(target))
    return on_stack(finish(module), 4 * target["lanes"]["float32"] * target["vector_registers"]), loops


def _lowered(module, target: dict):
    """(a module as TVM's passes for a target leave them, the passes that come last)."""
    target = tvm.target.Target(target)
    passes, finish, _ = tvm.tirx.get_default_tir_pipeline(target)
    return passes(transform.BindTarget(target.with_host(target))(module)), finish()


@pass_instrument
class _Loops:
    """Looks at the functions while TVM lowers them: with every index a single number."""

    def run_after_pass(self, module, info):
        if info.name == "tirx.FlattenBuffer":
            self.flat = module

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
