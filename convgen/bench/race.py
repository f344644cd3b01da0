"""The race: every contestant of a workload prepared, checked, and timed in interleaved rounds."""

from __future__ import annotations

import datetime
import inspect
import os
import statistics
import tempfile
from dataclasses import dataclass
from typing import Any, Callable, Sequence

from ..errors import ArgumentError, Error, WorkerError
from ..tune.timing import quartiles
from . import environment
from .contestants import OURS, PEERS, Contestant, offered, ours
from .load import Watch, await_quiet
from .report import Result, append
from .stage import Stage

SECONDS = 8.0  # for each workload, shared by its contestants
ROUNDS = 15
FEW = 3  # rounds of a contestant that is hopeless
HOPELESS = 12.0  # times the fastest
PREPARE_TIMEOUT, TURN_TIMEOUT = 600.0, 300.0
FORMAT = 1


@dataclass(frozen=True)
class Entry:
    """A workload with the layer name (or None) and how often a network uses it."""

    workload: Any
    name: str | None = None
    count: int = 1


@dataclass
class _Runner:
    """A contestant in a race: its prepared state, its rounds, or why it has none."""

    contestant: Contestant
    key: str
    generation: int = 0
    prepared: dict | None = None
    failure: tuple[str, str] | None = None  # kind, reason
    medians: list = None
    leasts: list = None
    calls: int = 0

    @property
    def running(self) -> bool:
        return self.failure is None


def run(workloads: Sequence, target="native", threads: int | None = None, seconds: float | None = None, logs=None, *, peers: Sequence[str] | None = None,
        rounds: int = ROUNDS, cold: bool = False, wait: float = 0.0, output: str | os.PathLike | None = None, suite: str | None = None, seed: int = 0,
        progress: Callable[[str], None] | None = None, contestants: Callable | None = None, stage: Stage | None = None) -> Result:
    """Race convgen against its peers on each workload.

    workloads: Workloads, or objects with `.workload`, `.name`, `.count`. target, threads (for every contestant), logs: as in `convgen.export`. seconds:
    of timing for each workload, shared by all contestants; preparing comes on top. peers: groups out of contestants.PEERS. rounds: interleaved
    rounds. cold: all caches flushed before every call. wait: seconds to wait before each workload for others to stop
    computing here; rows that were timed beside others are marked. output: file that each workload's rows are appended to as JSON lines. progress(text): told
    of each step. contestants(workload): another list of contestants, convgen's own included, instead of the usual ones.
    Returns a Result, also after Ctrl-C (then `.interrupted`). Raises ArgumentError, TargetError.
    """
    from ..targets import resolve
    entries = merged(workloads)
    if not entries:
        raise ArgumentError("bench: there is no workload to race")
    peers = PEERS if peers is None else tuple(peers)
    strange = sorted(set(peers) - set(PEERS))
    if strange:
        raise ArgumentError(f"bench: peers are {', '.join(PEERS)}, got {strange[0]!r}")
    if rounds < 1 or seconds is not None and seconds <= 0:
        raise ArgumentError("bench: rounds and seconds must be positive")
    machine = resolve(target)
    machine = machine.with_threads(threads) if threads else machine
    tell = progress or (lambda text: None)
    roof = environment.roofline(machine.threads)
    conditions = {"format": FORMAT, "suite": suite, "date": datetime.date.today().isoformat(), "threads": machine.threads, "cold": cold, "seed": seed,
                  "target": machine.fingerprint, **environment.facts(), "roofline": roof.to_json() if roof else None}
    result = Result()
    with stage or Stage(machine.threads) as stage, tempfile.TemporaryDirectory(prefix="convgen-bench-") as scratch:
        try:
            for number, entry in enumerate(entries, 1):
                tell(f"[{number}/{len(entries)}] {entry.workload.id}")
                field = _Race(stage, entry.workload, machine, scratch, seed, tell)
                rivals = contestants(entry.workload) if contestants else [field.build(number, logs), *offered(entry.workload, peers)]
                load = field.run(rivals, seconds or SECONDS, rounds, machine.l3 if cold else 0, wait)
                rows = field.rows(conditions | {"layer": entry.name, "count": entry.count}, load, roof, cold)
                result.rows += rows
                if output is not None:
                    append(output, rows)
        except KeyboardInterrupt:
            result.interrupted = True
    return result


def merged(workloads: Sequence) -> list[Entry]:
    """Workloads as entries; one that stands several times is raced once, with the sum of its counts."""
    found: dict = {}
    for w in workloads:
        new = Entry(w.workload, w.name, w.count) if hasattr(w, "workload") else Entry(w)
        old = found.get(new.workload)
        found[new.workload] = Entry(new.workload, old.name or new.name, old.count + new.count) if old else new
    return list(found.values())


class _Race:
    """One workload's race."""

    def __init__(self, stage: Stage, workload, machine, scratch: str, seed: int, tell):
        self.stage, self.workload, self.machine, self.scratch, self.seed, self.tell = stage, workload, machine, scratch, seed, tell
        self.runners: list[_Runner] = []
        self.build_failure: tuple[str, str] | None = None

    def build(self, number: int, logs) -> Contestant:
        """Export the workload's library, as a user would."""
        import convgen
        path = os.path.join(self.scratch, f"library{number}.cvg")
        try:
            convgen.export([self.workload], path, self.machine, logs=logs, name=f"bench{number}")
        except ArgumentError:
            raise
        except Error as error:
            self.build_failure = ("failed", f"no library: {error}")
        return ours(path)

    def run(self, contestants: Sequence[Contestant], seconds: float, rounds: int, flush: int, wait: float = 0.0):
        """Prepare, check and time all; returns the load of the machine while it was timed."""
        self.runners = [_Runner(c, f"{i}", medians=[], leasts=[]) for i, c in enumerate(contestants)]
        for runner in self.runners:
            if runner.contestant.name == OURS and self.build_failure:
                runner.failure = self.build_failure
        self.expected = os.path.join(self.scratch, "expected.npy")
        try:
            self._ask("referee", PREPARE_TIMEOUT, "reference", path=self.expected, **self._case())
        except WorkerError as error:
            for runner in self.runners:
                runner.failure = runner.failure or ("failed", f"no reference to check it against: {error}")
        for process in dict.fromkeys(c.process for c in contestants):
            self._try(None, process, TURN_TIMEOUT, "drop")
        for runner in self.runners:
            self._prepare(runner)
        if wait and not await_quiet(wait, self.machine.threads, self.stage.groups()):
            self.tell(f"  others are still computing here after {wait:g} s")
        watch = Watch(self.stage.groups())
        self._rounds(seconds, rounds, flush)
        return watch.stop()

    def _case(self) -> dict:
        return {"workload": self.workload.id, "reference": reference_of(self.workload), "seed": self.seed, "threads": self.machine.threads}

    def _ask(self, process, timeout, command, **arguments):
        return self.stage.ask(process, timeout, command, **arguments)

    def _try(self, runner: _Runner | None, process: str, timeout: float, command: str, **arguments):
        """The answer, or None after noting the failure."""
        try:
            return self._ask(process, timeout, command, **arguments)
        except WorkerError as error:
            if runner is not None:
                runner.failure = (error.kind, " ".join(str(error).split()))
            return None

    def _prepare(self, runner: _Runner) -> None:
        if not runner.running:
            return
        contestant = runner.contestant
        self.tell(f"  {contestant.name}")
        runner.prepared = self._try(runner, contestant.process, PREPARE_TIMEOUT, "prepare", key=runner.key, peer=contestant.peer, options=contestant.options,
                                    expected=self.expected, **self._case())
        runner.generation = self.stage.generation(contestant.process)

    def _rounds(self, seconds: float, rounds: int, flush: int) -> None:
        for turn in range(rounds):
            active = [r for r in self.runners if r.running]
            if not active:
                return
            fastest = min(r.prepared["once_us"] for r in active)
            share = seconds / rounds / len(active)
            for step in range(len(active)):  # nobody always follows the same neighbour
                runner = active[(turn + step) % len(active)]
                if turn >= FEW and statistics.median(runner.medians) > HOPELESS * fastest:
                    continue
                self._turn(runner, share, flush)

    def _turn(self, runner: _Runner, seconds: float, flush: int) -> None:
        process = runner.contestant.process
        if runner.generation != self.stage.generation(process):  # another contestant brought their process down
            self._prepare(runner)
            if not runner.running:
                return
        timed = self._try(runner, process, TURN_TIMEOUT, "turn", key=runner.key, seconds=seconds, once_us=runner.prepared["once_us"], l3=flush, threads=self.machine.threads)
        if timed:
            runner.medians.append(timed["median_us"])
            runner.leasts.append(timed["least_us"])
            runner.calls += timed["calls"]

    def rows(self, conditions: dict, load, roof, cold: bool) -> list[dict]:
        """One row per contestant, for reports and files."""
        w = self.workload
        floor = roof.seconds(w.flops, w.bytes, cold) * 1e6 if roof else None
        busy = load.busy(self.machine.threads) if load else None
        rows = []
        for r in self.runners:
            row = {"workload": w.id, "contestant": r.contestant.name, "ours": r.contestant.name == OURS, "counts": r.contestant.counts, "ok": r.running,
                   "kind": None if r.running else r.failure[0], "reason": None if r.running else r.failure[1], "flops": w.flops, "bytes": w.bytes,
                   "roofline_us": floor, "busy": busy, "load": load.to_json() if load else None, **conditions}
            if r.running:
                low, middle, high = quartiles(r.medians)
                row |= {"median_us": middle, "spread_us": high - low, "least_us": min(r.leasts), "rounds_us": [round(v, 3) for v in r.medians], "calls": r.calls,
                        "error": r.prepared["error"], "output": r.prepared["output"], **({"facts": r.prepared["facts"]} if r.prepared["facts"] else {})}
            rows.append(row)
        return rows


def reference_of(workload) -> str | None:
    """How a worker finds an operator that is in no catalogue: `path/my_ops.py:op`."""
    from ..ops import table
    op = workload.op
    if table.is_catalogued(op):
        return None
    return f"{os.path.abspath(inspect.getsourcefile(op.fn))}:{op.name}"
