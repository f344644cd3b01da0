"""The public functions of the package `convgen`. Rooms are imported when a function needs them."""

from __future__ import annotations

import os
from typing import Any, Iterable, Sequence

from .errors import ArgumentError


def operators() -> list[str]:
    """Names of the catalogue's operators and of those that installed packages offer (entry points `convgen.operators`)."""
    from . import references
    return references.names()


def operator(reference: str):
    """The Operator of a name, of `pkg.mod:op` or of `path/my_ops.py:op`.

    Calling it with dimensions, attributes and flags by keyword gives a Workload; it has `.summary`, `.formula`, `.citation`,
    `.dims`, `.attributes` and `.workloads()`. Raises ArgumentError for a name nobody knows, with the nearest ones.
    """
    from . import references
    return references.find(reference)


def workload(id: str, operators: Iterable = ()):
    """The Workload that an id names, for example `conv2d:n1,c64,o64,h56,w56,k3x3;padding=1:f32.f32.f32:nchw`.

    `operators`: Operators outside the catalogue that the id may mention by name. Raises ArgumentError naming the id and what is
    wrong with it.
    """
    from . import references
    from .lang import Operator, parse
    if not isinstance(id, str):
        raise ArgumentError(f"expected a workload id, got {type(id).__name__}")
    name = id.strip().partition(":")[0].partition("@")[0]
    own = {op.name: op for op in operators if isinstance(op, Operator)}
    return parse(id, own.get(name) or references.find(name))


def compile(workload, target="native", *, threads: int | None = None, logs=None):
    """A kernel for this Workload's shapes: its best record, else a good default; never a search.

    Returns a callable that takes the workload's tensors by keyword and gives the output: `convgen.compile(w)(**w.sample())`.
    target: a name or Target; threads: those of the kernel (default: usable here); logs: record folders that are read first, or False for the default whatever records
    there are. Kernels are cached on disk, so the second call costs a load. Raises TargetError if this machine cannot run the target, WorkerError if
    the kernel cannot be built.
    """
    from .exporting import compiled
    return compiled(workload, target, threads, logs)


def tune(workloads, target="native", seconds: float | None = None, trials: int | None = None, logs=None, seed: int = 0, retune: bool = False, **options: Any):
    """Search fast kernels for workloads on this machine; the same as `convgen.tune.search.tune`, which states the options.

    Returns a TuneResult whose `rows` hold times in µs and whose `str()` is a table.
    """
    from .tune.search import tune
    return tune(workloads, target, seconds=seconds, trials=trials, logs=logs, seed=seed, retune=retune, **options)


def export(workloads, path: str | os.PathLike, target: str | Sequence = "native", threads: int | Sequence[int] | None = None, logs=None,
           name: str | None = None, require: str = "any"):
    """Build a library at `path` that serves these workloads without a compiler.

    workloads: a Workload, several, or {layer name: Workload}. target, threads: one or several; every combination gets a kernel.
    name: the library's name in PyTorch (default: from the path). logs: record folders that are read first, or False: no records, every kernel is the default. require: "any" record will do, "near" refuses defaults, "tuned"
    accepts only records of the very workload and target.
    Returns an ExportReport: `rows` say where each record came from and how fast it is, `str()` is the table. Prints nothing.
    Raises ArgumentError, TargetError, WorkerError, or convgen.building.Unmet for `require`.
    """
    from .exporting import export
    return export(workloads, path, target, threads, logs, name, require)


def load(path: str | os.PathLike, **options: Any):
    """Open a library for serving; the same as `convgen.runtime.load`, which states the options. Needs no compiler."""
    from .runtime import load
    return load(path, **options)
