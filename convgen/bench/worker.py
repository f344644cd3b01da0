"""The process of one or several contestants, `python -m convgen.bench.worker`: prepares, checks and times them on request."""

from __future__ import annotations

import contextlib
import gc
import importlib
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..errors import WorkerError
from ..tune import timing
from ..workers.child import serve
from .case import NotOffered, Ready, make

# Relative L2 error against the reference that a correct contestant stays below: Winograd in float32; storage of half types.
# Integers: exact, but oneDNN may round a result to its neighbour.
TOLERANCE = {"float32": 2e-5, "float16": 2e-3, "bfloat16": 1.5e-2, "uint8": 1e-3, "int32": 0.0}
LONG = 0.02  # seconds; a call that takes longer needs no warming up
WARM_SECONDS = 0.05

_ready: dict[str, Ready] = {}
_calls: dict[str, int] = {}
_flush: dict[int, object] = {}


def workload_of(id: str, reference: str | None):
    """The Workload of an id; `reference` finds the operator where it is in no catalogue."""
    from .. import api, references
    return api.workload(id, [references.find(reference)] if reference else ())


def case_of(workload: str, reference: str | None, seed: int, threads: int, folder: str):
    """The Case of an id."""
    return make(workload_of(workload, reference), threads, folder, seed)


@lru_cache(1)
def _case(workload: str, reference: str | None, seed: int, threads: int):
    """The contestants of a process share their tensors."""
    return case_of(workload, reference, seed, threads, tempfile.gettempdir())


def _quiet():
    """No gradients; torch is not even imported for contestants that do without."""
    torch = sys.modules.get("torch")
    return torch.inference_mode() if torch else contextlib.nullcontext()


def reference(workload: str, path: str, reference: str | None = None, seed: int = 0, threads: int = 1) -> dict:
    """Write the exact result to `path`: by the operator's PyTorch formulation on float64 tensors, or, where it has none or computes with integers, by the oracle."""
    import torch
    torch.set_num_threads(threads)
    case = _case(workload, reference, seed, threads)
    w = case.workload
    if w.has_baseline and not w.program.integral:
        with torch.inference_mode():
            result = w.baseline(**{k: v.double().contiguous() for k, v in case.tensors.items()}).numpy()
        source = "PyTorch in float64"
    else:
        result, source = w.reference(**case.tensors), "the description's oracle"
    np.save(path, np.asarray(result, np.float64))
    return {"source": source}


def build(key: str, peer: str, options: dict, workload: str, reference: str | None = None, seed: int = 0, threads: int = 1) -> float:
    """Make a contestant ready, its first call included; the seconds that took. Raises WorkerError("absent") if it does not take part.

    Others may compute meanwhile.
    """
    begun = time.monotonic()
    module, _, function = peer.partition(":")
    folder = Path(tempfile.mkdtemp(dir=".")).resolve()  # the worker's own directory, removed with it
    case = replace(_case(workload, reference, seed, threads), folder=folder)
    with _quiet():
        try:
            _ready[key] = getattr(importlib.import_module(module), function)(case, **options)
        except NotOffered as reason:
            raise WorkerError("absent", str(reason)) from None
        _ready[key].call()
    return time.monotonic() - begun


def check(key: str, expected: str, dtype: str) -> dict:
    """Compare a contestant's output with the reference and time it roughly, while nothing else runs. Raises WorkerError("wrong") if it differs."""
    ready = _ready[key]
    with _quiet():
        error = difference(ready.result(ready.call()), np.load(expected)) if ready.result else None
        limit = TOLERANCE[dtype]
        if error is not None and not error <= limit:
            del _ready[key]
            raise WorkerError("wrong", f"its output differs from the reference: relative L2 error {error:.2e}, allowed {limit:.0e}")
        once = timing.sample(ready.call, 1)
        spent = once
        while spent < WARM_SECONDS:
            last = timing.sample(ready.call, 1)
            once, spent = min(once, last), spent + last
    _calls[key] = max(1, min(1000, round(timing.SAMPLE_SECONDS / max(once, 1e-9))))
    gc.freeze()  # what is alive now stays: looking through it before every round took longer than the round
    return {"error": error and float(f"{error:.3g}"), "once_us": once * 1e6, "output": ready.output, **ready.columns}


def difference(result, expected: np.ndarray) -> float:
    """Relative L2 error; infinite for another shape or values that are no numbers."""
    result = np.asarray(result)
    if result.shape != expected.shape:
        raise WorkerError("wrong", f"its output has the shape {result.shape}, expected {expected.shape}")
    with np.errstate(over="ignore", invalid="ignore"):
        error = float(np.linalg.norm((result.astype(np.float64) - expected).ravel()) / max(float(np.linalg.norm(expected.ravel())), 1e-300))
    return error if error == error else float("inf")


def turn(key: str, seconds: float, once_us: float, l3: int = 0, threads: int = 1) -> dict:
    """One round: {"median_us", "least_us", "calls"}. l3: bytes of the last cache, flushed before every call; 0 for warm caches."""
    ready = _ready[key]
    calls, before, times = (1, _flusher(l3, threads), []) if l3 else (_calls[key], None, [])
    gc.collect()
    gc.disable()
    try:
        with _quiet():
            if once_us * 1e-6 < LONG:
                timing.sample(ready.call, 1)  # brings its own data and threads back, untimed
            clock = timing.time.perf_counter
            end = clock() + seconds
            while not times or clock() < end:
                times.append(timing.sample(ready.call, calls, before))
    finally:
        gc.enable()
    return {"median_us": timing.quartiles(times)[1] * 1e6, "least_us": min(times) * 1e6, "calls": calls * len(times)}


def _flusher(l3: int, threads: int):
    """Writes three times the last cache's size, on as many threads as compute, since every processor has caches of its own."""
    if l3 not in _flush:
        pool, junk = ThreadPoolExecutor(threads), [np.zeros(3 * l3 // 8) for _ in range(threads)]
        _flush[l3] = lambda: list(pool.map(lambda v: np.add(v, 1.0, out=v), junk))
    return _flush[l3]


def drop() -> None:
    """Forget the contestants of the last workload."""
    _ready.clear()
    _calls.clear()
    _case.cache_clear()
    gc.unfreeze()
    if "torch._dynamo" in sys.modules:  # else what it compiled for this workload counts against the next one's limit of recompilations
        sys.modules["torch._dynamo"].reset()
    gc.collect()


COMMANDS = {"reference": reference, "build": build, "check": check, "turn": turn, "drop": drop, "overhead": "convgen.bench.overhead:measured"}

if __name__ == "__main__":
    # One module object: peers import this module by name, and must see the same tables.
    serve({name: command if isinstance(command, str) else f"convgen.bench.worker:{name}" for name, command in COMMANDS.items()}, default_kind="failed")
