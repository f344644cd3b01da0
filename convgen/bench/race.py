"""The race: every contestant of a workload prepared, checked, and timed in interleaved rounds; one workload after the other."""

from __future__ import annotations

import datetime
import os
import tempfile
from dataclasses import dataclass, field, replace
from typing import Any, Callable, Sequence

from ..errors import ArgumentError
from . import data, environment
from .contestants import METASCHEDULE, OPTIONAL, PEERS, TUNING_SECONDS, offered
from .field import Field, library
from .groups import FUSED, group
from .products import products
from .report import Result
from .stage import Stage

SECONDS = 8.0  # for each workload, shared by its contestants
ROUNDS = 15


@dataclass(frozen=True)
class Entry:
    """A workload with its layer name (or None), how often a network uses it, and how often each suite does where it stands in several."""

    workload: Any
    name: str | None = None
    count: int = 1
    suites: dict = field(default_factory=dict, compare=False)

    def plan(self) -> dict:
        """What reports must know of it before it is raced."""
        kind = group(self.workload)
        more = {"products": len(products(self.workload))} if kind == FUSED else {}
        return {"workload": self.workload.id, "group": kind, "layer": self.name, "count": self.count, "suites": self.suites, **more}


def run(workloads: Sequence, target="native", threads: int | None = None, seconds: float | None = None, logs=None, *, peers: Sequence[str] | None = None,
        rounds: int = ROUNDS, cold: bool = False, wait: float = 0.0, output: str | os.PathLike | None = None, resume: bool = False, seed: int = 0,
        counting: Sequence[str] = (), tuning_seconds: float | None = None, progress: Callable[[str], None] | None = None,
        contestants: Callable | None = None, stage: Stage | None = None) -> Result:
    """Race convgen against its peers on each workload.

    workloads: Workloads, or objects with `.workload`, `.name`, `.count` and perhaps `.suite`. target, threads (for every contestant), logs: as in
    `convgen.export`. seconds: of timing for each workload, shared by all contestants; preparing comes on top. peers: groups out of contestants.PEERS and
    OPTIONAL. rounds: interleaved rounds. cold: all caches flushed before every call. wait: seconds to wait before each workload for others to stop
    computing here; rows that were timed beside others are marked. output: file that each workload's rows are appended to as JSON lines; resume: what it
    holds of these conditions is not raced again. counting: peers that search and may be the best peer all the same. tuning_seconds: how long they search
    for each workload; None: as long as convgen did according to its record, TUNING_SECONDS where there is none. progress(text): told of each step.
    contestants(workload): another list of contestants, convgen's own included, instead of the usual ones.
    Returns a Result, also after Ctrl-C (then `.interrupted`). Raises ArgumentError, TargetError.
    """
    from ..targets import resolve
    entries = merged(workloads)
    if not entries:
        raise ArgumentError("bench: there is no workload to race")
    peers = PEERS if peers is None else tuple(peers)
    strange = sorted({*peers, *counting} - {*PEERS, *OPTIONAL})
    if strange:
        raise ArgumentError(f"bench: peers are {', '.join(PEERS + OPTIONAL)}, got {strange[0]!r}")
    if rounds < 1 or any(s is not None and s <= 0 for s in (seconds, tuning_seconds)):
        raise ArgumentError("bench: rounds and seconds must be positive")
    if resume and output is None:
        raise ArgumentError("bench: resuming needs the output file that rows are appended to")
    machine = resolve(target)
    machine = machine.with_threads(threads) if threads else machine
    tell = progress or (lambda text: None)
    same = {"threads": machine.threads, "cold": cold, "seed": seed, "target": machine.fingerprint}
    earlier = _earlier(output, same, entries) if resume else {}
    roof = environment.roofline(machine.threads)
    conditions = {"format": data.FORMAT, "date": datetime.date.today().isoformat(), **same, **environment.facts(), "roofline": roof.to_json() if roof else None}
    result = Result(plan=[entry.plan() for entry in entries])
    with stage or Stage(machine.threads) as stage, tempfile.TemporaryDirectory(prefix="convgen-bench-") as scratch:
        try:
            for number, entry in enumerate(entries, 1):
                w = entry.workload
                if w.id in earlier:
                    tell(f"[{number}/{len(entries)}] {w.id}: in {os.fspath(output)}")
                    result.rows += earlier[w.id]
                    continue
                tell(f"[{number}/{len(entries)}] {w.id}")
                contest = Field(stage, w, machine, scratch, seed, tell)
                if contestants:
                    rivals, build = contestants(w), None
                else:
                    own, build = library(w, machine, os.path.join(scratch, f"library{number}.cvg"), logs, f"bench{number}")
                    searching = tuning_seconds or (_searched(w, machine, logs) if METASCHEDULE in peers else TUNING_SECONDS)
                    rivals = [own, *offered(w, peers, counting, searching)]
                load = contest.run(rivals, seconds or SECONDS, rounds, machine.l3 if cold else 0, wait, build)
                rows = contest.rows(conditions | entry.plan(), load, roof, cold)
                result.rows += rows
                if output is not None:
                    data.append(output, rows)
        except KeyboardInterrupt:
            result.interrupted = True
    return result


def merged(workloads: Sequence) -> list[Entry]:
    """Workloads as entries; one that stands several times is raced once, with the sum of its counts."""
    found: dict = {}
    for w in workloads:
        new = Entry(w.workload, w.name, w.count, {w.suite: w.count} if getattr(w, "suite", None) else {}) if hasattr(w, "workload") else Entry(w)
        old = found.get(new.workload)
        if old:
            suites = {s: old.suites.get(s, 0) + new.suites.get(s, 0) for s in {**old.suites, **new.suites}}
            new = replace(old, name=old.name or new.name, count=old.count + new.count, suites=suites)
        found[new.workload] = new
    return list(found.values())


def _searched(workload, machine, logs) -> float:
    """Seconds that convgen's search for this very workload and target took."""
    from .. import building
    from ..tune.records import Store
    found = building.plan(workload, machine, Store.open(logs)).found
    return (found.record.get("searched_s") if found.step == "exact" else None) or TUNING_SECONDS


def _earlier(path, same: dict, entries) -> dict[str, list]:
    """Workload id → the rows that a file already holds of it under the same conditions; a race that an interruption cut off is removed from the file."""
    if not os.path.exists(path):
        return {}
    wanted, found = {e.workload.id: e for e in entries}, {}
    for row in data.keep_whole(path):
        entry = wanted.get(row["workload"])
        if entry is not None and all(row.get(name) == value for name, value in same.items()):
            found.setdefault(row["workload"], []).append(row | entry.plan())
    return found
