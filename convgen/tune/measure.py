"""The parent's side of measuring: one worker per session, its environment, its time limits, its failures as data."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from typing import Sequence

import numpy as np

from ..errors import WorkerError
from ..workers import Worker
from ..workers.scratch import scratch_folder
from .cases import given_path

# glibc maps outputs above 128 KiB anew for every call and pays page faults for each: up to 8 times slower. Everyone who is
# measured gets the same allocator (design §8).
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 32)}


def measuring_environment(threads: int) -> dict[str, str]:
    """Environment of a process that times something with that many threads."""
    return {**ALLOCATOR, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": "1",
            "TVM_NUM_THREADS": str(threads), "PYTHONHASHSEED": "0"}


REFERENCE_TIMEOUT = 600.0  # seconds; the float64 oracle shares nothing with the kernels, and takes seconds for convolutions as long as their data


@dataclass
class Measurement:
    """One timed and quickly verified candidate; times in microseconds, `ratio` the oracle's worst error over its bound."""

    median_us: float
    spread_us: float
    min_us: float
    repeats: int
    ratio: float
    oracles: str


BACKSTOP = 10.0  # times a candidate's limit of processor time that it may take by the clock: other work on the machine, or sleep


def time_limit(budget: float, elements: int, best_us: float | None) -> float:
    """Seconds a candidate may take: max(2 s, 20 × best × repeats), half a minute while nothing is known, and what comparing
    `elements` outputs costs."""
    if best_us is None:
        limit = 30.0
    else:
        repeats = max(10.0, budget / max(best_us * 1e-6, 1e-7))
        limit = max(2.0, 20 * best_us * 1e-6 * repeats)
    return limit + 1.0 + elements * 1e-6


def race_limit(best_us: float, turns: int, budget: float) -> float:
    """Seconds that a race of so many turns may take, all contestants' rounds counted."""
    return max(10.0, 20 * (budget + best_us * 1e-6 * turns))


def measurement(answer: dict) -> Measurement:
    """What a worker says of a candidate that it verified and timed."""
    return Measurement(**answer["time"], ratio=answer["verdict"]["ratio"], oracles=answer["verdict"]["oracles"])


def right(verdict: dict) -> dict:
    """A verdict; raises WorkerError("wrong") where it says so."""
    if not verdict["ok"]:
        raise WorkerError("wrong", verdict["reason"])
    return verdict


class Runner:
    """What runners share: the folder of a run's references, made ahead of the candidates by one worker, and the limits that follow from their size."""

    def __init__(self, target: dict, budget: float):
        self.target, self.budget = target, budget
        self.folder = scratch_folder("cases")
        self._elements: dict[str, int] = {}
        self._warm: set[tuple[str, int]] = set()
        self._pending: tuple[str, int] | None = None

    def _reader(self) -> Worker:
        """The worker that makes references."""
        raise NotImplementedError

    def _send_warm(self, worker: Worker, description: dict) -> None:
        raise NotImplementedError

    def begin(self, description: dict) -> None:
        """Start computing the references of a workload without waiting, so that they are ready when the first candidate is."""
        worker = self._reader()
        worker.start()
        key = (description["id"], worker.starts)
        if key not in self._warm and not worker.busy:
            self._send_warm(worker, description)
            self._pending = key

    def warm(self, description: dict, longest: float | None = None) -> None:
        """Have the references of a workload ready ahead of a candidate, whose time limit must count only itself.

        Done once per worker; a fresh worker reads what its predecessor computed from the run's folder.
        """
        limit = REFERENCE_TIMEOUT if longest is None else max(0.1, longest)
        self._settle(limit)
        self.begin(description)
        self._settle(limit)

    def _settle(self, limit: float = REFERENCE_TIMEOUT) -> None:
        """Wait for references that are being computed; a worker that takes longer than `limit` seconds is replaced."""
        key, worker, self._pending = self._pending, self._reader(), None
        if key is not None and worker.busy:
            finished, answer = worker.poll(time.monotonic() + limit)
            if not finished:
                worker.kill()
                raise WorkerError("run_timeout", f"the reference was not ready within {limit:.3g} s")
            self._elements[key[0]] = answer["elements"]
            self._warm.add(key)

    def provide(self, description: dict, tensors: dict) -> None:
        """Use these logical arrays as the realistic inputs of a workload (before its first measurement)."""
        np.savez(given_path(self.folder, description["id"]), **tensors)

    def _limit(self, description: dict, best_us: float | None) -> float:
        """Seconds that a candidate of a workload may take."""
        return time_limit(self.budget, self._elements.get(description["id"], 0), best_us)

    def close(self) -> None:
        """Forget the references."""
        shutil.rmtree(self.folder, ignore_errors=True)


class LocalRunner(Runner):
    """Verifies and times candidates on this machine in a process of their own.

    `target` is the target's JSON; `budget` the seconds of timing per candidate. Methods raise WorkerError of kind crash,
    run_timeout, oom or wrong; the worker is then already replaced.
    """

    def __init__(self, target: dict, budget: float = 0.1, *, command="convgen.tune.runner", memory: int | None = None):
        super().__init__(target, budget)
        self._worker = Worker(command, env=measuring_environment(target.get("threads", 1)), memory=memory, max_jobs=400,
                              max_rss=8 << 30, timeout_kind="run_timeout")
        self._shim: str | None = None

    def _reader(self) -> Worker:
        return self._worker

    def _send_warm(self, worker: Worker, description: dict) -> None:
        self._send(REFERENCE_TIMEOUT, "warm", description=description)

    def measure(self, path: str, entry: dict, description: dict, best_us: float | None = None,
                longest: float | None = None, cold: bool = False) -> Measurement:
        """Quick oracle and time; `best_us` bounds how long a bad candidate may take, `longest` (seconds) the whole call.

        `cold` evicts the caches before every call that is timed.
        """
        end = None if longest is None else time.monotonic() + longest
        self.warm(description, longest)
        answer = self._ask("measure", self._limit(description, best_us), end, path=path, entry=entry, description=description,
                           target=self.target, budget=self.budget, hopeless_us=best_us * 4 if best_us else None, cold=cold)
        return measurement(answer)

    def check(self, path: str, entry: dict, description: dict, best_us: float | None = None, longest: float | None = None) -> dict:
        """Every oracle and the guards; the verdict as a dict, WorkerError("wrong") when it fails."""
        end = None if longest is None else time.monotonic() + 8 * longest  # a check that is nearly done is worth more than the last seconds
        self.warm(description, longest)
        return right(self._ask("check", 8 * self._limit(description, best_us), end, path=path, entry=entry, description=description))

    def race(self, candidates: Sequence[tuple[str, dict]], description: dict, best_us: float, rounds: int = 16,
             budget: float = 1.0) -> dict[str, list[list[float]]]:
        """{"median", "least"}: microseconds per candidate and interleaved round."""
        self.warm(description)
        return self._ask("race", race_limit(best_us, rounds * len(candidates), budget), None, candidates=[{"path": p, "entry": e} for p, e in candidates],
                         description=description, target=self.target, rounds=rounds, budget=budget)

    def close(self) -> None:
        """End the worker and forget the references."""
        self._worker.close()
        super().close()

    def _send(self, timeout: float, command: str, processor: float | None = None, **arguments) -> None:
        if self._shim is None:
            from ..export.link import compile_shim

            path = os.path.join(self.folder, "shim.so")
            compile_shim(path)
            self._shim = path
        self._worker.send({"cmd": command, "folder": self.folder, "shim": self._shim, **arguments}, timeout, processor)

    def _ask(self, command: str, seconds: float, end: float | None, **arguments):
        """Ask with a limit of so many seconds on each of the target's threads, and of monotonic time `end` if there is one."""
        timeout = BACKSTOP * seconds if end is None else max(0.1, min(BACKSTOP * seconds, end - time.monotonic()))
        self._send(timeout, command, seconds * self.target.get("threads", 1), **arguments)
        return self._worker.answer()
