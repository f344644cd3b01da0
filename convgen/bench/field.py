"""The field of one race: the contestants of a workload, prepared together, then timed in interleaved rounds one process at a time."""

from __future__ import annotations

import inspect
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Sequence

from .. import schedules
from ..errors import ArgumentError, Error, WorkerError
from ..tune.timing import quartiles
from .contestants import OURS, Contestant, ours
from .load import Watch, await_quiet
from .stage import Stage

FEW = 3  # rounds of a contestant that is hopeless
HOPELESS = 12.0  # times the fastest
PREPARE_TIMEOUT, TURN_TIMEOUT = 600.0, 300.0


@dataclass
class _Runner:
    """A contestant in a race: its prepared state, its rounds, or why it has none."""

    contestant: Contestant
    key: str
    generation: int = 0
    seconds: float | None = None  # of its preparation
    prepared: dict | None = None
    failure: tuple[str, str] | None = None  # kind, reason
    medians: list = field(default_factory=list)
    leasts: list = field(default_factory=list)
    calls: int = 0

    @property
    def running(self) -> bool:
        return self.failure is None

    def fail(self, error: WorkerError) -> None:
        self.failure = (error.kind, " ".join(str(error).split()))


class Field:
    """One workload's race. `machine`: a Target with the threads of all contestants; `tell(text)` is told of each step."""

    def __init__(self, stage: Stage, workload, machine, scratch: str, seed: int, tell):
        self.stage, self.workload, self.machine, self.scratch, self.seed, self.tell = stage, workload, machine, scratch, seed, tell
        self.runners: list[_Runner] = []
        self.expected = os.path.join(scratch, "expected.npy")

    def run(self, contestants: Sequence[Contestant], seconds: float, rounds: int, flush: int, wait: float = 0.0, build=None):
        """Prepare, check and time all; returns the load of the machine while it was timed.

        build(): makes what the contestant named convgen loads, beside the others' preparation; raises Error. flush: bytes of the last cache, for cold rounds.
        """
        self.runners = [_Runner(c, f"{i}") for i, c in enumerate(contestants)]
        self._prepare(build)
        for runner in self.runners:
            self._check(runner)
        if wait and not await_quiet(wait, self.machine.threads, self.stage.groups()):
            self.tell(f"  others are still computing here after {wait:g} s")
        watch = Watch(self.stage.groups())
        self._rounds(seconds, rounds, flush)
        return watch.stop()

    def _case(self) -> dict:
        return {"workload": self.workload.id, "reference": reference_of(self.workload), "seed": self.seed, "threads": self.machine.threads}

    # -- preparing ----------------------------------------------------------------------------------------------------------

    def _prepare(self, build) -> None:
        """Everything that is not timed, on all processors: our library, the reference, every contestant's model. What measures while it prepares is alone."""
        ours = [r for r in self.runners if build and r.contestant.name == OURS]
        alone = [r for r in self.runners if r.contestant.alone]
        processes = [p for p in dict.fromkeys(r.contestant.process for r in self.runners) if self.stage.generation(p)]
        first = [(p, "drop", {}) for p in processes] + [("referee", "reference", {"path": self.expected, **self._case()})]
        with ThreadPoolExecutor(1) as background:
            library = background.submit(build) if ours else None
            *_, reference = self._build_all([r for r in self.runners if r not in ours + alone], first)
            problem = library.exception() if library else None
        if isinstance(problem, Error) and not isinstance(problem, ArgumentError):
            for runner in ours:
                runner.failure = ("failed", f"no library: {problem}")
        elif problem is not None:
            raise problem
        self._build_all([r for r in ours if r.running])
        for runner in alone:
            self._again(runner)
        if isinstance(reference, WorkerError):
            for runner in self.runners:
                runner.failure = runner.failure or ("failed", f"no reference to check it against: {reference}")

    def _build_all(self, runners: list[_Runner], first: Sequence = ()) -> list:
        """Answers of the requests `first`, after those and every runner's build."""
        from ..targets import usable_threads

        def done(number):
            if number >= len(first):
                self._built(runners[number - len(first)])
        answers = self.stage.ask_all([*first, *map(self._building, runners)], PREPARE_TIMEOUT, max(1, usable_threads()), done)
        for runner, answer in zip(runners, answers[len(first):]):
            if isinstance(answer, WorkerError):
                runner.fail(answer)
            else:
                runner.seconds = answer
        return answers[:len(first)]

    def _building(self, runner: _Runner) -> tuple:
        contestant = runner.contestant
        return contestant.process, "build", {"key": runner.key, "peer": contestant.peer, "options": contestant.options, **self._case()}

    def _built(self, runner: _Runner) -> None:
        self.tell(f"  {runner.contestant.name}")
        runner.generation = self.stage.generation(runner.contestant.process)

    def _again(self, runner: _Runner) -> None:
        """Make one ready by itself, also once more where another contestant brought their process down."""
        process, command, arguments = self._building(runner)
        runner.seconds = self._try(runner, process, PREPARE_TIMEOUT + runner.contestant.seconds, command, **arguments)
        self._built(runner)

    def _check(self, runner: _Runner) -> None:
        """Compare with the reference and time roughly, alone on the machine."""
        if runner.running and runner.generation != self.stage.generation(runner.contestant.process):
            self._again(runner)
        if runner.running:
            runner.prepared = self._try(runner, runner.contestant.process, TURN_TIMEOUT, "check", key=runner.key, expected=self.expected, dtype=self.workload.out_dtype)

    def _try(self, runner: _Runner, process: str, timeout: float, command: str, **arguments):
        """The answer, or None after noting the failure."""
        try:
            return self.stage.ask(process, timeout, command, **arguments)
        except WorkerError as error:
            runner.fail(error)
            return None

    # -- timing -------------------------------------------------------------------------------------------------------------

    def _rounds(self, seconds: float, rounds: int, flush: int) -> None:
        for turn in range(rounds):
            active = [r for r in self.runners if r.running]
            if not active:
                return
            fastest = min(r.prepared["once_us"] for r in active)
            share = seconds / rounds / len(active)
            for step in range(len(active)):  # nobody always follows the same neighbour
                runner = active[(turn + step) % len(active)]
                if turn >= FEW and min(runner.medians) > HOPELESS * fastest:  # not the median: something else may have taken the cores
                    continue
                self._turn(runner, share, flush)

    def _turn(self, runner: _Runner, seconds: float, flush: int) -> None:
        process = runner.contestant.process
        if runner.generation != self.stage.generation(process):
            self._again(runner)
            self._check(runner)
            if not runner.running:
                return
        timed = self._try(runner, process, TURN_TIMEOUT, "turn", key=runner.key, seconds=seconds, once_us=runner.prepared["once_us"], l3=flush, threads=self.machine.threads)
        if timed:
            runner.medians.append(timed["median_us"])
            runner.leasts.append(timed["least_us"])
            runner.calls += timed["calls"]

    # -- results ------------------------------------------------------------------------------------------------------------

    def rows(self, conditions: dict, load, roof, cold: bool) -> list[dict]:
        """One row per contestant, for reports and files."""
        w = self.workload
        rate = schedules.rate(w.program, self.machine.to_json())
        floor = roof.seconds(w.flops, w.bytes, cold, rate) * 1e6 if roof else None
        busy = load.busy(self.machine.threads) if load else None
        rows = []
        for r in self.runners:
            row = {"workload": w.id, "contestant": r.contestant.name, "ours": r.contestant.name == OURS, "counts": r.contestant.counts,
                   "ok": r.running, "kind": None if r.running else r.failure[0], "reason": None if r.running else r.failure[1], "flops": w.flops, "bytes": w.bytes,
                   "rate": rate, "roofline_us": floor and digits(floor), "busy": busy, "load": load.to_json() if load else None, **conditions}
            if r.running:
                low, middle, high = quartiles(r.medians)
                row |= {"median_us": digits(middle), "spread_us": digits(high - low), "least_us": digits(min(r.leasts)), "rounds_us": [digits(v, 4) for v in r.medians], "calls": r.calls,
                        "prepare_s": round(r.seconds, 2),
                        **{k: v for k, v in r.prepared.items() if k != "once_us"}}
            rows.append(row)
        return rows


def digits(value: float, count: int = 6) -> float:
    """A value with so many digits as files keep."""
    return float(f"{value:.{count}g}")


def library(workload, machine, path: str, logs, name: str) -> tuple[Contestant, object]:
    """(convgen as a contestant, what builds its library): the workload exported as a user would."""
    import convgen
    return ours(path), lambda: convgen.export([workload], path, machine, logs=logs, name=name)


def reference_of(workload) -> str | None:
    """How a worker finds an operator that is in no catalogue: `path/my_ops.py:op`."""
    from ..ops import table
    op = workload.op
    if table.is_catalogued(op):
        return None
    return f"{os.path.abspath(inspect.getsourcefile(op.fn))}:{op.name}"
