"""Which record serves a workload: exact, same machine with other threads, same architecture (GPUs and ARM), same family, nearest
shape, else the default."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from .records import Store

ORIGINS = {"exact": "exact", "threads": "near", "architecture": "near", "family": "near", "shape": "near", "default": "default"}


@dataclass
class Found:
    """A record (None for the default choice), how near it is, and why this one.

    `step` is exact, threads, architecture, family, shape or default; `origin` the coarser word that libraries show, `source` a
    sentence that says where the choice came from; `reason` also says what was refused on the way.
    """

    record: dict | None
    step: str
    source: str
    refused: str = ""

    @property
    def reason(self) -> str:
        """The whole sentence."""
        return self.source + self.refused

    @property
    def origin(self) -> str:
        """exact, near or default."""
        return ORIGINS[self.step]

    @property
    def choice(self) -> dict | None:
        """Knobs to build with; None means the space's default."""
        return self.record["choice"] if self.record else None


def look_up(store: Store, description: dict, description_hash: str, target: dict, space) -> Found:
    """The best usable record for a workload on a target; every step's refusals are part of the reason.

    `target` is the target's JSON, `space` gives `version` and `valid(choice)` and thereby has the last word on a record's knobs.
    """
    groups = store.records(target["family"], description["operator"])
    refused: list[str] = []
    for step, fits in _STEPS:
        if step == "architecture" and target["family"] in _ONE_ARCHITECTURE:
            continue
        candidates = []
        for order, group in enumerate(groups):
            usable = _usable([r for r in group if r["description"] == description_hash and fits(r, description, target)], space, refused)
            candidates += [(order, record) for record in _winners(usable)]
        if candidates:
            order, record = min(candidates, key=lambda c: _preference(step, c, description, target))
            return Found(record, step, _explain(step, record, target), _refusals(refused))
    return Found(None, "default", "no record fits this workload, the default schedule is used", _refusals(refused))


def _same_workload(record, description, target):
    return record["workload"] == description["id"]


def _exact(record, description, target):
    return _same_workload(record, description, target) and record["target"] == target["fingerprint"]


def _other_threads(record, description, target):
    return _same_workload(record, description, target) and _same_machine(record, target)


def _same_machine(record, target):
    return (record.get("microarchitecture"), record.get("isa")) == (target.get("microarchitecture"), target.get("isa"))


def _same_architecture(record, description, target):
    return _same_workload(record, description, target) and record.get("isa") == target.get("isa")


def _similar(record, description, target):
    """Another shape of the same structure: the same description, layout, dtypes and kinds of dims."""
    return (record.get("layout") == description.get("layout") and record.get("dtypes") == dtypes_of(description)
            and isinstance(record.get("dims"), dict) and set(record["dims"]) == set(description["dims"])
            and all(isinstance(v, int) and v > 0 for v in record["dims"].values()))


_STEPS = (("exact", _exact), ("threads", _other_threads), ("architecture", _same_architecture), ("family", _same_workload), ("shape", _similar))
# Where the instruction set says little of the machine: records of AVX2 and AVX-512 serve each other if the space allows them.
_ONE_ARCHITECTURE = ("x86",)


def _usable(records: list[dict], space, refused: list[str]) -> list[dict]:
    kept = []
    for record in records:
        if record["kind"] != "ok" or not record["verified"]:
            continue
        if record["space"] != space.version:
            reason = f"it is of schedule space {record['space']}, now {space.version}"
        else:
            reason = space.valid(record["choice"])
        if reason is None:
            kept.append(record)
        else:
            refused.append(f"{record['workload']} on {record['target']}: {reason}")
    return kept


def _winners(records: list[dict]) -> list[dict]:
    """Per workload and target of one folder: the last final (it raced its predecessors), else the fastest verified trial."""
    best: dict[tuple, dict] = {}
    for record in records:
        key = (record["workload"], record["target"])
        held = best.get(key)
        if held is None or record.get("final") or (not held.get("final") and least_of(record) < least_of(held)):
            best[key] = record
    return list(best.values())


def least_of(record: dict) -> float:
    """The undisturbed time of a record: its least sample, where it is stated."""
    least = record.get("min_us")
    return least if isinstance(least, (int, float)) and least > 0 else record["median_us"]


def _preference(step: str, candidate: tuple[int, dict], description: dict, target: dict):
    order, record = candidate
    threads = abs(math.log2(max(1, record.get("threads", 1)) / max(1, target.get("threads", 1))))
    return (_distance(record, description) if step == "shape" else 0.0, record["target"] != target["fingerprint"],
            not _same_machine(record, target), _apart(record, target), threads, order, record["median_us"])


def _apart(record: dict, target: dict) -> float:
    """How far the record's architecture is from the target's: compute capabilities by their numbers, others are the same or not."""
    here, there = target.get("isa"), record.get("isa")
    if here == there or target["family"] in _ONE_ARCHITECTURE:
        return 0.0
    numbers = [re.fullmatch(r"sm_(\d+)\w?", str(isa)) for isa in (here, there)]
    return abs(int(numbers[0][1]) - int(numbers[1][1])) if all(numbers) else 1000.0


def _distance(record: dict, description: dict) -> float:
    """How far two shapes are apart: doublings, summed over the dims, and one for every attribute that differs."""
    here, there = description.get("attributes", {}), record.get("attributes", {})
    differing = sum(there.get(name) != value for name, value in here.items()) if isinstance(there, dict) else len(here)
    return differing + sum(abs(math.log2(value / max(1, description["dims"][name]))) for name, value in record["dims"].items())


def _explain(step: str, record: dict, target: dict) -> str:
    machine = "card" if target["family"] == "cuda" else "core"
    return {
        "exact": f"tuned for this workload on {record['target']}",
        "threads": f"tuned for this workload on this processor with {record.get('threads')} threads instead of {target.get('threads')}",
        "architecture": f"tuned for this workload on {record['target']}, another {machine} with {record.get('isa')}",
        "family": f"tuned for this workload on {record['target']}, another machine of the family",
        "shape": f"tuned for the nearest shape {record['workload']} on {record['target']}",
    }[step]


def _refusals(refused: list[str]) -> str:
    if not refused:
        return ""
    more = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
    return f"; not usable: {refused[0]}{more}"


def dtypes_of(description: dict) -> dict:
    """Dtype per tensor, the accumulator and the output; part of what makes two shapes comparable."""
    dtypes = {t["name"]: t["dtype"] for t in description.get("tensors", [])}
    return {**dtypes, "accumulator": description.get("acc_dtype"), "output": description.get("output", {}).get("dtype")}
