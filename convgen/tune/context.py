"""What all workloads of one tuning run share: target, clock, records, models, and the machinery that compiles and measures."""

from __future__ import annotations

import importlib.metadata
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Callable

from .identity import description_hash
from .interrupt import Interrupts
from .model import CostModel
from .records import Store, choice_key


def _space(description: dict, target: dict):
    from ..schedules import space

    return space(description, target)


@cache
def _versions() -> tuple[tuple[str, str], ...]:
    found = []
    for name, package in (("convgen", "convgen"), ("tvm", "apache-tvm"), ("tvm_ffi", "apache-tvm-ffi")):
        try:
            found.append((name, importlib.metadata.version(package)))
        except importlib.metadata.PackageNotFoundError:
            continue
    return tuple(found)


@dataclass
class Environment:
    """The outside world of a run; tests put fakes here.

    `builder` as LocalBuilder, `runner` as LocalRunner, `baseline` as TorchBaseline or None; `space(description, target)` gives
    the schedule space, `hash(description)` the structure's hash, `clock()` seconds, `versions()` what made the code, `origin`
    what every record says besides. A runner of several devices also has `measure_many([(path, entry)], description, best_us,
    longest, done)`, which answers with a Measurement, WorkerError or None (not begun) each, and tells done(index, answer) as they
    come. `saves` False: times mean nothing and are
    not kept.
    """

    builder: Any
    runner: Any
    baseline: Any = None
    space: Callable = _space
    hash: Callable[[dict], str] = description_hash
    clock: Callable[[], float] = time.monotonic
    versions: Callable[[], dict] = lambda: dict(_versions())
    origin: dict = field(default_factory=dict)
    saves: bool = True

    def close(self) -> None:
        """Release processes and folders."""
        for part in (self.builder, self.runner, self.baseline):
            if part is not None:
                part.close()


@dataclass
class Context:
    """One run's settings and clock. `deadline` is a monotonic time of `environment.clock`, None for no limit; `turn` the one at which a workload's share is used up.

    `origin` goes into every record: facts about a measurement that was not made here and now.
    """

    environment: Environment
    target: dict
    store: Store
    seed: int = 0
    trials: int | None = None
    retune: bool = False
    strategy: str = "model"
    progress: Callable[[dict], None] | None = None
    begun: float = 0.0
    deadline: float | None = None
    end: float | None = None
    turn: float | None = None
    origin: dict = field(default_factory=dict)
    interrupts: Interrupts = field(default_factory=Interrupts)
    _models: dict[str, CostModel] = field(default_factory=dict)
    _taught: set = field(default_factory=set)

    def model(self, group: str) -> CostModel:
        """The cost model shared by all shapes of one structure and space."""
        return self._models.setdefault(group, CostModel(self.seed))

    def taught(self, group: str, record: dict) -> bool:
        """True if the group's model has seen this measurement; remembers it."""
        key = (group, record["workload"], choice_key(record["choice"]), bool(record.get("final")))
        known = key in self._taught
        self._taught.add(key)
        return known

    def elapsed(self) -> float:
        """Seconds since the call began."""
        return self.environment.clock() - self.begun

    @contextmanager
    def share(self, seconds: float | None):
        """While this holds, the search must stop after so many seconds, if it has a limit."""
        self.turn = None if seconds is None else self.environment.clock() + seconds
        try:
            yield
        finally:
            self.turn = None

    def until(self) -> float | None:
        """The time at which the search must stop, None without a limit."""
        return self.deadline if self.turn is None else min(self.deadline, self.turn)

    def left(self) -> float | None:
        """Seconds until the search must stop, None without a limit."""
        until = self.until()
        return None if until is None else until - self.environment.clock()

    def rest(self) -> float | None:
        """Seconds until the search of all workloads must stop: what a workload's own share does not end."""
        return None if self.deadline is None else self.deadline - self.environment.clock()

    def closed(self) -> bool:
        """True once the search of all workloads must stop."""
        return self.deadline is not None and self.rest() <= 0

    def grace(self) -> float:
        """Seconds that a build in flight may go on when its workload's share is over: ending it costs a fresh compiler, and that the next one's share."""
        return 0.0 if self.turn is None else max(0.0, self.deadline - self.turn)

    def late(self) -> bool:
        """True once the search must stop, be it for this workload only."""
        left = self.left()
        return left is not None and left <= 0

    def over(self) -> bool:
        """True once the whole call should have returned."""
        return self.end is not None and self.environment.clock() >= self.end

    def report(self, event: str, task=None, **more) -> None:
        """Tell the caller's progress function; its own errors are its own."""
        if self.progress is None:
            return
        message = {"event": event, "seconds": self.elapsed(), "seconds_left": None if self.end is None else max(0.0, self.end - self.environment.clock()), **more}
        if task is not None:
            best = task.best
            message |= {"workload": task.workload.id, "trial": task.attempts, "trials": self.trials, "best_us": best.least_us if best else None,
                        "torch_us": task.torch["min_us"] if task.torch else None, "failures": dict(task.failures)}
            if task.row is not None:
                message["row"] = task.row
        self.progress(message)
