"""From workloads to compiled kernels: which record serves each, its build in a worker process, and what is known of its speed."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import logging
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Sequence

from .errors import ArgumentError, Error, WorkerError

_log = logging.getLogger("convgen")

# Rooms whose source decides what a kernel is. In a checkout they change without a new version.
_COMPILER_ROOMS = ("lang", "algorithms", "emit", "schedules")


class Unmet(Error):
    """`export(require=...)` asked for better records than there are."""


@dataclass(frozen=True)
class Planned:
    """One kernel to build: a Workload, a target's JSON, and the record (or default) that its look-up found."""

    workload: Any
    target: dict
    found: Any  # convgen.tune.lookup.Found

    @property
    def symbol(self) -> str:
        """Prefix of the kernel's symbols: different for every kernel that may share a library."""
        text = json.dumps([self.workload.id, self.target, self.found.choice], sort_keys=True)
        return f"cg_{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    @property
    def key(self) -> str:
        """Identity of the compiled kernel in the cache: description, target, choice, and everything that compiles it."""
        text = json.dumps([self.workload.description, self.target, self.found.choice, compiler()], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def speed(self) -> dict:
        """What the record says of the kernel's time here: µs of kernel and PyTorch, known only for the very workload and target."""
        record = self.found.record if self.found.step == "exact" else None
        return {"measured_us": record["median_us"] if record else None, "torch_us": record.get("torch_us") if record else None}


def plan(workload, target, store) -> Planned:
    """Look the workload up. `target` is a Target, `store` a convgen.tune.records.Store."""
    from .lang.visible import hidden_size
    from .schedules import space
    from .tune.identity import description_hash
    from .tune.lookup import look_up
    hidden = hidden_size(workload.program)
    if hidden:
        raise ArgumentError(f"{workload.operator}: no tensor shows the size {hidden}, so a call could not state it; make it an attribute of the operator")
    description, machine = workload.description, target.to_json()
    return Planned(workload, machine, look_up(store, description, description_hash(description), machine, space(description, machine)))


def build(plans: Sequence[Planned], directory: str | Path, workers: int = 1) -> list[dict]:
    """Kernel entries whose objects lie in `directory`, one per plan, with their record's origin and times.

    A recorded choice that cannot be built any more falls back to the default, with a warning; a default that cannot be built
    raises WorkerError. Raises ModuleNotFoundError where the compiler is not installed.
    """
    from .emit.service import shared_service
    if importlib.util.find_spec("tvm") is None:
        raise ModuleNotFoundError("building kernels needs apache-tvm: pip install 'convgen[tune]'", name="tvm")
    service = shared_service(workers)

    def jobs(wanted):
        return [{"description": p.workload.description, "target": p.target, "choice": p.found.choice, "directory": str(directory), "symbol": p.symbol} for p in wanted]

    plans = list(plans)
    outcomes = service.build_many(jobs(plans))
    again = [i for i, outcome in enumerate(outcomes) if isinstance(outcome, WorkerError) and plans[i].found.choice is not None]
    for i in again:
        _log.warning("%s: its record cannot be built (%s: %s), the default schedule is used", plans[i].workload.id, outcomes[i].kind, outcomes[i])
        plans[i] = _default(plans[i])
    for i, outcome in zip(again, service.build_many(jobs(plans[i] for i in again)) if again else []):
        outcomes[i] = outcome
    for planned, outcome in zip(plans, outcomes):
        if isinstance(outcome, WorkerError):
            raise WorkerError(outcome.kind, f"{planned.workload.id}: cannot build its kernel for {planned.target['name']}: {outcome}")
    return [entry | {"origin": p.found.origin, "record": p.found.source, **p.speed()} for p, entry in zip(plans, outcomes)]


def _default(planned: Planned) -> Planned:
    from .tune.lookup import Found
    return Planned(planned.workload, planned.target, Found(None, "default", "its record cannot be built"))


@cache
def compiler() -> str:
    """Versions and sources of what turns a description into code; a compiled kernel is valid for one such state."""
    state = [f"{name} {_version(name)}" for name in ("convgen", "apache-tvm", "apache-tvm-ffi")]
    import convgen
    for folder in map(Path, convgen.__path__):
        for room in _COMPILER_ROOMS:
            for file in sorted((folder / room).rglob("*.py")):
                facts = file.stat()
                state.append(f"{file.relative_to(folder)} {facts.st_size} {facts.st_mtime_ns}")
    return hashlib.sha256("\n".join(state).encode()).hexdigest()


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "absent"
