"""What came of a candidate, and the record of it."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from ..errors import WorkerError
from .lookup import dtypes_of


@dataclass
class Trial:
    """A candidate that ran. `verified` lists the oracles that a thorough check passed ("" = only the quick one).

    Candidates are ranked by `least_us`: whatever else runs on the machine only ever adds time.
    """

    choice: dict
    median_us: float
    spread_us: float
    least_us: float
    number: int
    ratio: float = 0.0
    verified: str = ""
    built: object = None
    digest: str | None = None


def measured_line(task, trial: Trial, repeats: int) -> dict:
    """The record of a trial of a `task.Task`."""
    description = task.description
    record = {**_identity(task), "choice": trial.choice, "kind": "ok", "median_us": round(trial.median_us, 3),
              "spread_us": round(trial.spread_us, 3), "min_us": round(trial.least_us, 3), "repeats": repeats, "error": float(f"{trial.ratio:.3g}"),
              "verified": trial.verified, "flops": task.workload.flops, "bytes": task.workload.bytes,
              "dims": description["dims"], "attributes": description.get("attributes", {}),
              "layout": description.get("layout"), "dtypes": dtypes_of(description),
              "versions": task.context.environment.versions()}
    if trial.built is not None and "memory" in trial.built.entry:
        record["memory"] = trial.built.entry["memory"]
    if task.torch is not None:
        record |= {"torch_us": round(task.torch["median_us"], 3), "torch_min_us": round(task.torch["min_us"], 3)}
    return record


def failed_line(task, choice: dict, error: WorkerError) -> dict:
    """The record of a candidate that failed, in compact form."""
    return {**_identity(task), "choice": choice, "kind": error.kind, "message": str(error)[:200]}


def _identity(task) -> dict:
    target, description = task.context.target, task.description
    return {"operator": description["operator"], "workload": task.workload.id, "description": task.hash,
            "target": target["fingerprint"], "family": target["family"], "isa": target.get("isa"),
            "microarchitecture": target.get("microarchitecture"), "threads": target.get("threads"), "space": task.space.version,
            "seed": task.context.seed, "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"), **task.context.origin}
