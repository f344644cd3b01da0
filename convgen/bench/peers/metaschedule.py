"""TVM's MetaSchedule: searched for a given time on the plain form of the operator, constants repacked ahead as it likes, run by TVM's own thread pool."""

from __future__ import annotations

import ctypes
import importlib.util
from pathlib import Path

import torch

from ...lang.sampling import to_numpy
from ...targets import resolve
from ...tune.measure import measuring_environment
from ...workers import Worker
from ..case import Case, NotOffered, Ready
from ..field import reference_of

BEYOND = 500.0  # seconds at most beyond the search: loading the compiler, the round in progress when the time is over, linking


def tuned(case: Case, seconds: float, trials: int | None = None, strategy: str = "evolutionary") -> Ready:
    """The best kernel found in `seconds`, or among `trials` candidates."""
    missing = [name for name in ("tvm", "cloudpickle", "psutil", "xgboost") if importlib.util.find_spec(name) is None]
    if missing:
        raise NotOffered(f"{missing[0]} is not installed")
    if case.workload.program.any_batch:
        raise NotOffered("its batch is open")
    worker = Worker("convgen.bench.tuner", env=measuring_environment(case.threads), memory=0, timeout_kind="timeout")
    try:
        found = worker.request({"cmd": "tune", "workload": case.workload.id, "reference": reference_of(case.workload), "folder": str(case.folder), "seconds": seconds,
                                "trials": trials, "strategy": strategy, "target": resolve("native").with_threads(case.threads).to_json()}, seconds + BEYOND)
    finally:
        worker.close()
    return _loaded(case, found)


def _loaded(case: Case, found: dict) -> Ready:
    import tvm_ffi
    torch.set_num_threads(case.threads)
    # Parallel loops call into TVM's runtime, which is no part of what an exported library links to.
    root = Path(importlib.util.find_spec("tvm").origin).parent
    ctypes.CDLL(str(next(root.rglob("libtvm_runtime.so"))), ctypes.RTLD_GLOBAL)
    library = tvm_ffi.load_module(found["library"])
    layout, specs = case.workload.layout, {t.name: t for t in case.workload.program.tensors}
    values = {n: t.permute(specs[n].permutation(layout)).contiguous() for n, t in case.tensors.items()}
    *preparing, (name, arguments, ((_, shape, dtype),)) = found["steps"]
    for function, given, results in preparing:
        made = [torch.empty(size, dtype=getattr(torch, kind)) for _, size, kind in results]
        library[function](*(values[n] for n in given), *made)
        values |= dict(zip([result for result, _, _ in results], made))
    run, given, dtype = library[name], [values[n] for n in arguments], getattr(torch, dtype)
    order = case.workload.program.output.permutation(layout)
    back = [order.index(d) for d in range(len(order))]

    def call():
        result = torch.empty(shape, dtype=dtype)
        run(*given, result)
        return result
    return Ready(call, lambda y: to_numpy(y.permute(back)), columns={"facts": {"seconds": round(found["seconds"], 1), "trials": found["trials"]}})
