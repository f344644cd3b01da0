"""`convgen.export`: workloads to one library with a kernel per workload, target and thread count, and the report about them."""

from __future__ import annotations

import importlib
import os
import re
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Iterable, Mapping

from . import building
from .errors import ArgumentError, TargetError

_LIBRARY = "kernel.cvg"  # of a compiled kernel, inside its folder of the cache

_kernels: dict[str, Any] = {}  # those this process has loaded: code stays loaded, so each is loaded once

# Which origins of records each requirement accepts.
_ACCEPTED = {"any": ("exact", "near", "default"), "near": ("exact", "near"), "tuned": ("exact",)}


@dataclass(frozen=True)
class ReportRow:
    """One kernel of a library. `origin` is exact, near or default; times in µs, known where the workload was tuned on this target."""

    name: str | None
    workload: str
    target: str
    threads: int
    origin: str
    measured_us: float | None
    torch_us: float | None

    @property
    def slower(self) -> bool:
        """Whether PyTorch was faster when the record was made."""
        return self.measured_us is not None and self.torch_us is not None and self.torch_us < self.measured_us


@dataclass(frozen=True)
class ExportReport:
    """What `convgen.export` wrote: `path`, `sha256` of the library (pass it to `load(expect_sha256=...)`), one row per kernel."""

    path: str
    sha256: str
    rows: list[ReportRow] = field(default_factory=list)

    def to_json(self) -> dict:
        """The report as plain JSON."""
        return {"path": self.path, "sha256": self.sha256, "kernels": [asdict(row) | {"slower_than_torch": row.slower} for row in self.rows]}

    def __str__(self) -> str:
        head = ("workload", "target", "threads", "record", "µs", "vs torch", "")
        lines = [head] + [(f"{row.name}: {row.workload}" if row.name else row.workload, row.target, str(row.threads), row.origin,
                           "n/a" if row.measured_us is None else f"{row.measured_us:.4g}", _ratio(row), "slower than torch" if row.slower else "")
                          for row in self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        body = ["  ".join(cell.rjust(w) if i in (2, 4, 5) else cell.ljust(w) for i, (cell, w) in enumerate(zip(line, widths))).rstrip() for line in lines]
        return "\n".join([*body, f"{len(self.rows)} kernels in {self.path}, sha256 {self.sha256}"])


def _ratio(row: ReportRow) -> str:
    return f"{row.torch_us / row.measured_us:.2f}x" if row.torch_us and row.measured_us else "n/a"


def export(workloads, path, target, threads, logs, name, require) -> ExportReport:
    """See `convgen.api.export`."""
    from .targets import resolve, usable_threads
    from .tune.records import Store
    if require not in _ACCEPTED:
        raise ArgumentError(f"export: require must be one of {', '.join(_ACCEPTED)}, got {require!r}")
    if not isinstance(path, (str, os.PathLike)):
        raise ArgumentError(f"export: path must be a text or path, got {path!r}")
    if threads is not None and not _several(threads):
        raise ArgumentError("export: threads must be a positive int or several, got none")
    named = _named(workloads)
    targets = [resolve(spec) for spec in _several(target)]
    counts = [_count(n) for n in _several(threads)] if threads is not None else [None]
    store = Store.open(logs)
    variants = []
    for machine in targets:
        # How many threads a GPU runs is no fact of the target.
        machines = [machine] if machine.family == "cuda" else [machine.with_threads(n) if n else machine for n in dict.fromkeys(counts)]
        variants.append((machines[0], [(names, building.plan(w, m, store)) for m in machines for w, names in named.items()]))
    _require(require, [planned for _, plans in variants for _, planned in plans])
    with tempfile.TemporaryDirectory(prefix="convgen-export-") as scratch:
        built = [(machine, list(named), building.build([planned for _, planned in plans], scratch, usable_threads())) for machine, plans in variants]
        sha256 = write(path, name or identifier(path), built, scratch)
    rows = [ReportRow(", ".join(names) or None, entry["id"], machine.name, entry["threads"], entry["origin"], entry["measured_us"], entry["torch_us"])
            for (machine, plans), (_, _, entries) in zip(variants, built) for (names, _), entry in zip(plans, entries)]
    return ExportReport(str(path), sha256, rows)


def identifier(path) -> str:
    """A library's name in PyTorch from its file name: letters, digits and underscores."""
    name = re.sub(r"\W", "_", Path(path).name.partition(".")[0], flags=re.ASCII)
    return name if re.match(r"[A-Za-z_]", name) else f"lib_{name}"


def _named(workloads) -> dict[Any, list[str]]:
    """Workload → the layer names it stands for, in order; a workload that stands several times is built once."""
    if hasattr(workloads, "description"):
        workloads = [workloads]
    if isinstance(workloads, str) or not isinstance(workloads, Iterable):
        raise ArgumentError(f"export: expected Workloads or {{layer name: Workload}}, got {type(workloads).__name__}; convgen.workload(id) makes one from an id")
    pairs = list(workloads.items()) if isinstance(workloads, Mapping) else [(None, w) for w in workloads]
    named: dict[Any, list[str]] = {}
    for name, w in pairs:
        if not hasattr(w, "description"):
            raise ArgumentError(f"export: expected Workloads, got {type(w).__name__}; convgen.workload(id) makes one from an id")
        named.setdefault(w, []).extend([str(name)] if name and name != w.id else [])
    if not named:
        raise ArgumentError("export: there is no workload to export")
    return named


def _several(value) -> list:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _count(threads) -> int:
    if not isinstance(threads, int) or isinstance(threads, bool) or threads < 1:
        raise ArgumentError(f"export: threads must be a positive int or several, got {threads!r}")
    return threads


def _require(require: str, plans) -> None:
    short = [p for p in plans if p.found.origin not in _ACCEPTED[require]]
    if short:
        first = short[0]
        raise building.Unmet(f"export: require={require!r} is not met by {len(short)} of {len(plans)} kernels, first by {first.workload.id} for "
                             f"{first.target['name']} with {first.target['threads']} threads: {first.found.reason}")


def write(path, name: str, built, scratch) -> str:
    """Link `built`, a list of (Target, workloads, entries), into the library `path`; returns its sha256."""
    from .export.link import link_library
    from .runtime.manifest import read
    variants, signatures = {}, {}
    for machine, workloads, entries in built:
        objects = [entry | {file: os.path.join(scratch, entry[file]) for file in ("object", "source") if file in entry} for entry in entries]
        variants[machine.name] = (machine.to_json(), objects)
        for w in workloads:
            signatures.setdefault(w.operator, []).append(w.signature)
    link_library(variants, signatures, path, name)
    return read(path).sha256


def compiled(workload, target, threads, logs):
    """See `convgen.api.compile`."""
    from . import cache
    from .errors import LibraryError
    from .runtime.cpu import missing
    from .runtime.kernel import Kernel
    from .targets import resolve
    from .tune.records import Store
    if not hasattr(workload, "description"):
        raise ArgumentError(f"compile: expected a Workload, got {type(workload).__name__}; convgen.workload(id) makes one from an id")
    machine = resolve(target)
    machine = machine.with_threads(_count(threads)) if threads is not None else machine
    if machine.family == "cuda":
        _require_device(machine)
    elif missing(machine.features):
        raise TargetError(f"target {machine.name!r} cannot run here: this machine lacks {', '.join(missing(machine.features))}")
    planned = building.plan(workload, machine, Store.open(logs))
    key = planned.key
    if key in _kernels:
        return _kernels[key]

    def make(folder: Path) -> None:
        # Loading tvm_ffi takes seconds where it brings torch along: that passes while the worker loads the compiler.
        with ThreadPoolExecutor(1) as background, tempfile.TemporaryDirectory(prefix="convgen-compile-") as scratch:
            background.submit(importlib.import_module, "tvm_ffi")
            write(folder / _LIBRARY, "kernel", [(machine, [workload], building.build([planned], scratch))], scratch)

    try:
        kernel = Kernel.load(cache.entry(key, make) / _LIBRARY)
    except LibraryError:  # damaged on disk: make it once more
        cache.discard(key)
        kernel = Kernel.load(cache.entry(key, make) / _LIBRARY)
    return _kernels.setdefault(key, kernel)


def _require_device(machine) -> None:
    """Raises TargetError where no CUDA device could run the target's code, before anything is compiled."""
    from .runtime.variants import cuda_obstacle
    why = cuda_obstacle(machine.to_json())
    if why:
        raise TargetError(f"target {machine.name!r} cannot run here: {why}")
