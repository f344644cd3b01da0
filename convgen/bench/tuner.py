"""TVM's own tuner on the plain form of an operator, in a process of its own: `python -m convgen.bench.tuner` answers one request. It loads the compiler.

Nothing here chooses for it: the space is MetaSchedule's automatic one for CPUs, constants may be repacked ahead as our parameters are, and the engine decides
how many candidates it measures in its time.
"""

from __future__ import annotations

import time

from ..workers.child import import_without_torch, serve

PER_ROUND = 64  # candidates that the engine proposes at once, its own default; the time limit is looked at after each round
TRIALS = 1 << 20


def fast_build(mod, target, _params):
    """MetaSchedule's build of a candidate without its import of all tensor intrinsics, which takes 20 s per worker."""
    import tvm
    from tvm.s_tir.transform import RemoveWeightLayoutRewriteBlock
    return tvm.driver.build(RemoveWeightLayoutRewriteBlock(skip_tensor_rewrite=True)(mod), target=target)


def tune(workload: str, reference: str | None, target: dict, seconds: float, folder: str, trials: int | None = None, strategy: str = "evolutionary", seed: int = 0) -> dict:
    """Search for `seconds` (at least one round) or `trials`; write the best as a shared library.

    Returns {"library", "steps", "seconds", "trials"}; steps are [function, names of its arguments, [name, shape, dtype] of its results], the last one the call
    itself, those before it for constants only. Raises RuntimeError where no candidate could be measured.
    """
    tvm = import_without_torch("tvm")
    from tvm.ir.utils import derived_object
    from tvm.s_tir import meta_schedule as ms

    from ..emit.machine import target_of
    from ..emit.plain import plain
    from .worker import workload_of
    form = plain(workload_of(workload, reference).program)
    device = tvm.target.Target(target_of(target))
    module = tvm.IRModule({"main": form.run.with_attr({"global_symbol": "main", "tirx.noalias": True, "layout_free_buffers": form.constants})})
    begun, counted = time.monotonic(), [0]

    @derived_object
    class Limit(ms.measure_callback.PyMeasureCallback):
        def apply(self, task_scheduler, task_id, measure_candidates, builder_results, runner_results):
            counted[0] += len(runner_results)
            if time.monotonic() - begun > seconds:
                raise _TimeIsOver

    callbacks = [ms.measure_callback.AddToDatabase(), ms.measure_callback.RemoveBuildArtifact(), ms.measure_callback.UpdateCostModel(), Limit()]
    database = ms.database.MemoryDatabase()
    try:
        ms.tune_tir(module, device, folder, trials or TRIALS, num_trials_per_iter=min(PER_ROUND, trials or TRIALS), database=database, strategy=strategy, seed=seed,
                    space=ms.space_generator.PostOrderApply(sch_rules="llvm", postprocs="llvm", mutator_probs="llvm"), measure_callbacks=callbacks,
                    builder=ms.builder.LocalBuilder(f_build=fast_build), num_tuning_cores="logical")
    except Exception:
        if time.monotonic() - begun <= seconds:  # else it is the limit, in the words of the engine
            raise
    best = ms.tir_integration.compile_tir(database, module, device)
    if best is None:
        raise RuntimeError(f"none of {counted[0]} candidates could be measured")
    searched = time.monotonic() - begun
    functions, steps = _split(tvm, form, best.mod["main"])
    if form.prepare is not None:
        names = [name for name, _, _ in form.prepare_args[:form.prepared]]
        functions["prepare"] = form.prepare
        steps.insert(0, ["prepare", names, form.prepare_args[form.prepared:]])
    library = f"{folder}/tuned.so"
    module = tvm.IRModule({name: f.with_attr("global_symbol", name) for name, f in functions.items()})
    tvm.compile(module, device).export_library(library)
    return {"library": library, "steps": steps, "seconds": searched, "trials": counted[0]}


class _TimeIsOver(Exception):
    pass


def _split(tvm, form, function):
    """(functions by name, steps): what repacks constants apart from what runs per call."""
    from tvm import relax
    builder = relax.BlockBuilder()
    given = [relax.Var(name, relax.TensorType(shape, dtype)) for name, shape, dtype in form.run_args[:-1]]
    *_, (_, shape, dtype) = form.run_args
    with builder.function("whole", given):
        with builder.dataflow():
            called = builder.emit(relax.call_tir(builder.add_func(function.without_attr("global_symbol"), "main"), given, relax.TensorType(shape, dtype)))
            result = builder.emit_output(called)
        builder.emit_func_output(result)
    module = relax.transform.SplitLayoutRewritePreproc()(builder.get())
    functions, steps, names = {}, [], {}
    for block in module["whole"].body.blocks:
        for bound in block.bindings:
            variable, value = bound.var, bound.value
            if isinstance(value, relax.Var):
                names[variable] = names.get(value, value.name)
            elif isinstance(value, relax.TupleGetItem):
                names[variable] = f"{value.tuple_value.name}.{value.index}"
            else:  # a call
                gvar, operands = value.args
                functions[gvar.name_hint] = module[gvar]
                types = value.ty.fields if isinstance(value.ty, relax.TupleType) else None
                made = [(f"{variable.name}.{i}", t) for i, t in enumerate(types)] if types else [(variable.name, value.ty)]
                results = [[name, [int(n) for n in t.shape.values], str(t.dtype)] for name, t in made]
                steps.append([gvar.name_hint, [names.get(v, v.name) for v in operands.fields], results])
    return functions, steps


if __name__ == "__main__":
    serve({"tune": tune}, default_kind="failed")
