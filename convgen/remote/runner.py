"""The parent's side of measuring on other machines: one client process per server, time limits, failures as data."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any, Callable, Sequence

import numpy as np

from ..errors import TuneError, WorkerError
from ..runtime.sizes import evaluate
from ..tune.measure import REFERENCE_TIMEOUT, Measurement, Runner, measurement, race_limit, right
from ..tune.storage import RAW
from ..workers import Worker
from ..workers.pool import share
from .address import Tracker
from .facts import patience

WAIT = 600.0  # seconds a candidate waits for a server while others use it
ANSWER = 20.0  # seconds beyond its limit after which a client is given up
OVERHEAD = 2.0  # seconds of a session that are no candidate's: receiving and loading it
BYTES_PER_SECOND = 4e6  # of a slow network; what it costs to send buffers is added to a candidate's limit


class RemoteRunner(Runner):
    """Verifies and times candidates on the servers of a tracker's key, as many at a time as there are servers.

    `target` is the target's JSON, `budget` the seconds of timing per candidate; `emulated` accepts processors that are emulated.
    Methods raise WorkerError of kind crash, run_timeout, oom or wrong for a candidate, and TuneError where no server is left or
    the servers cannot measure for the target. A candidate whose server vanished is tried once more before it counts as a crash.
    """

    def __init__(self, target: dict, tracker: Tracker, budget: float = 0.1, *, emulated: bool = False, wait: float = WAIT):
        super().__init__(target, budget)
        self.tracker, self.emulated, self.wait = tracker, emulated, wait
        self._workers: list[Worker] = []

    # -- the interface of LocalRunner ---------------------------------------------------------------------------------------

    def _reader(self) -> Worker:
        return self._crew(1)[0]

    def _send_warm(self, worker: Worker, description: dict) -> None:
        worker.send({"cmd": "warm", "description": description, "folder": self.folder}, REFERENCE_TIMEOUT)

    def measure(self, path: str, entry: dict, description: dict, best_us: float | None = None, longest: float | None = None) -> Measurement:
        """Quick oracle and time of one candidate."""
        (taken,) = self.measure_many([(path, entry)], description, best_us, longest)
        if taken is None:
            raise WorkerError("run_timeout", "the time was over before it began")
        if isinstance(taken, WorkerError):
            raise taken
        return taken

    def measure_many(self, candidates: Sequence[tuple[str, dict]], description: dict, best_us: float | None = None,
                     longest: float | None = None, done: Callable[[int, Any], None] | None = None) -> list:
        """Measurement, WorkerError or None (not begun within `longest` seconds) for each (path, entry), on all servers at once.

        done(index, outcome) is told of each as it finishes.
        """
        self.warm(description, longest)
        hopeless = best_us * 4 if best_us else None

        def finished(index: int, answer) -> None:
            if done:
                done(index, _measurement(answer))

        answers = self._share([{"cmd": "measure", "path": p, "entry": e, "budget": self.budget, "hopeless_us": hopeless} for p, e in candidates],
                              description, [e for _, e in candidates], best_us, longest, 3, done=finished)
        return [_measurement(answer) for answer in answers]

    def check(self, path: str, entry: dict, description: dict, best_us: float | None = None, longest: float | None = None) -> dict:
        """Every oracle and the guards; the verdict as a dict, WorkerError("wrong") when it fails."""
        self.warm(description, longest)
        return right(self._one({"cmd": "check", "path": path, "entry": entry}, description, [entry], best_us, longest, 16))

    def race(self, candidates: Sequence[tuple[str, dict]], description: dict, best_us: float, rounds: int = 16,
             budget: float = 1.0) -> dict[str, list[list[float]]]:
        """{"median", "least"}: microseconds per candidate and interleaved round, all on one server."""
        self.warm(description)
        message = {"cmd": "race", "candidates": [{"path": p, "entry": e} for p, e in candidates], "rounds": rounds, "budget": budget}
        return self._one(message, description, [e for _, e in candidates], None, None, 3, race_limit(best_us, rounds * len(candidates), budget))

    def close(self) -> None:
        """End the client processes and forget the references."""
        for worker in self._workers:
            worker.close()
        super().close()

    # -- servers ------------------------------------------------------------------------------------------------------------

    def servers(self) -> list[str]:
        """Addresses of the servers of the key that are registered now; TuneError where no tracker answers."""
        return [address for address, key in self.registered() if key == self.tracker.key]

    def registered(self) -> list[tuple[str, str]]:
        """(address, key) of every server that the tracker knows."""
        try:
            return self._idle().request({"cmd": "registered", "tracker": asdict(self.tracker)}, 120.0)
        except WorkerError as error:
            raise TuneError(str(error)) from None

    def survey(self, path: str, entry: dict, description: dict, wait: float = 20.0, seconds: float = 30.0) -> list[dict]:
        """One kernel on every server, as `client.survey`."""
        self.warm(description)
        message = {"cmd": "survey", "tracker": asdict(self.tracker), "target": self.target, "seconds": seconds, "wait": wait, "path": path,
                   "entry": entry, "description": description, "folder": self.folder}
        try:
            return self._idle().request(message, wait + 20 * seconds)
        except WorkerError as error:
            raise TuneError(str(error)) from None

    # -- asking -------------------------------------------------------------------------------------------------------------

    def _crew(self, size: int) -> list[Worker]:
        while len(self._workers) < size:
            # Without the compiler: a client needs the runtime library only, which is there in a second.
            self._workers.append(Worker("convgen.remote.client", env={"TVM_USE_RUNTIME_LIB": "1", "OPENBLAS_NUM_THREADS": "1"}, max_jobs=400,
                                        max_rss=8 << 30, crash_kind="lost", timeout_kind="lost"))
        return self._workers[:max(1, size)]

    def _idle(self) -> Worker:
        self._settle()
        return self._reader()

    def _one(self, message: dict, description: dict, entries: list, best_us, longest, transfers: int, seconds: float | None = None):
        (answer,) = self._share([message], description, entries, best_us, longest, transfers, seconds)
        if answer is None:
            raise WorkerError("run_timeout", "the time was over before it began")
        if isinstance(answer, WorkerError):
            raise answer
        return answer

    def _share(self, messages: list[dict], description: dict, entries: list, best_us, longest, transfers: int, seconds: float | None = None,
               done: Callable[[int, Any], None] | None = None) -> list:
        """Answers or WorkerErrors; `transfers` is how often a request's buffers cross the network."""
        workers = self._crew(max(1, min(len(self.servers()), len(messages)))) if len(messages) > 1 else self._crew(1)
        if seconds is None:
            seconds = self._limit(description, best_us)
        seconds += OVERHEAD + transfers * max(_nbytes(entry, description["dims"]) for entry in entries) / BYTES_PER_SECOND
        wait, deadline = self.wait, None
        if longest is not None:
            wait, deadline, seconds = min(wait, max(1.0, longest)), time.monotonic() + longest, max(0.5, min(seconds, longest))
        common = {"tracker": asdict(self.tracker), "target": self.target, "seconds": seconds, "wait": wait, "emulated": self.emulated,
                  "description": description, "folder": self.folder}
        answers: list = [None] * len(messages)
        waiting, last = list(range(len(messages))), False

        def finished(place: int, answer) -> None:
            if _is(answer, "lost") and last:
                answer = WorkerError("crash", f"twice: {answer}")
            elif _is(answer, "busy") and wait < self.wait:  # the clock ended it, not the servers
                answer = WorkerError("run_timeout", str(answer))
            answers[waiting[place]] = answer
            if done and not _is(answer, "lost", "busy", "device"):
                done(waiting[place], answer)

        for last in (False, True):
            share(workers, [messages[i] | common for i in waiting], wait + patience(seconds) + ANSWER, deadline=deadline, grace=patience(seconds) + ANSWER, done=finished)
            for answer in answers:
                if _is(answer, "busy", "device"):
                    raise TuneError(f"{answer}; everything measured so far is saved, the same call goes on")
            waiting = [i for i in waiting if _is(answers[i], "lost")]
            if not waiting:
                break
        return [None if _is(answer, "lost") else answer for answer in answers]  # its second turn did not come in time


def _is(answer, *kinds: str) -> bool:
    return isinstance(answer, WorkerError) and answer.kind in kinds


def _measurement(answer):
    return measurement(answer) if isinstance(answer, dict) else answer


def _nbytes(entry: dict, dims: dict) -> int:
    arguments = {a["name"]: a for a in [*(entry["prepare"]["args"] if entry.get("prepare") else []), *entry["args"]]}
    sizes = ([int(evaluate(tree, dims)) for tree in a["shape"]] for a in arguments.values())
    return sum(int(np.prod(shape, dtype=np.int64)) * np.dtype(RAW[a["dtype"]]).itemsize for shape, a in zip(sizes, arguments.values()))
