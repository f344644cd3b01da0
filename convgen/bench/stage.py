"""Worker processes of which only the one whose turn it is may run: the others are stopped, not merely idle.

An OpenMP or library thread that spins while it waits makes every other process on the machine look slow; a stopped one cannot.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections import deque
from typing import Any, Callable, Sequence

from ..errors import WorkerError
from ..tune.measure import measuring_environment
from ..workers import Worker

_UNBOUNDED = 1 << 60  # these workers live as long as the race, whatever they hold


class Stage:
    """The processes of a race, by name. Use as a context manager."""

    def __init__(self, threads: int, module: str = "convgen.bench.worker", environment: dict | None = None):
        # The compiler pool of torch.compile would outlive its use and run beside the others.
        self._environment = {**measuring_environment(threads), "TORCHINDUCTOR_COMPILE_THREADS": "1", **(environment or {})}
        self._module = module
        self._workers: dict[str, Worker] = {}

    def __enter__(self) -> "Stage":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def ask(self, process: str, timeout: float, command: str, **arguments: Any) -> Any:
        """Let one process answer a request while all others stand still. Raises WorkerError."""
        worker = self._worker(process)
        self._signal(worker, signal.SIGCONT)
        try:
            return worker.request({"cmd": command, **arguments}, timeout)
        finally:
            self._signal(worker, signal.SIGSTOP)

    def ask_all(self, requests: Sequence[tuple[str, str, dict]], timeout: float, at_once: int, done: Callable[[int], None] | None = None) -> list:
        """Answers of (process, command, arguments) requests, a WorkerError where one failed; nothing may be timed meanwhile.

        `at_once` processes work at the same time, each on its own requests in their order. done(number of a request) is told as it ends.
        """
        waiting: dict[str, deque] = {}
        for number, (process, _, _) in enumerate(requests):
            waiting.setdefault(process, deque()).append(number)
        answers: list = [None] * len(requests)
        working: dict[str, int] = {}
        try:
            while waiting or working:
                for process in [p for p in waiting if p not in working][:at_once - len(working)]:
                    number = waiting[process].popleft()
                    if not waiting[process]:
                        del waiting[process]
                    _, command, arguments = requests[number]
                    worker = self._worker(process)
                    self._signal(worker, signal.SIGCONT)
                    try:
                        worker.send({"cmd": command, **arguments}, timeout)
                        working[process] = number
                    except WorkerError as error:
                        answers[number] = error
                for number in self._collect(working, answers):
                    if done:
                        done(number)
        finally:
            for process in working:
                self._workers[process].kill()
        return answers

    def _collect(self, working: dict, answers: list) -> list[int]:
        """Wait until one of the working processes says something, and take the answers that are complete; their numbers."""
        workers, taken = {process: self._workers[process] for process in working}, []
        if not workers:
            return taken
        nearest = min(worker.deadline for worker in workers.values())
        select.select([d for worker in workers.values() for d in worker.descriptors()], [], [], max(0.0, nearest - time.monotonic()))
        for process, worker in workers.items():
            try:
                done, answer = worker.poll(time.monotonic())
            except WorkerError as error:
                done, answer = True, error
            if done:
                taken.append(working.pop(process))
                answers[taken[-1]] = answer
                self._signal(worker, signal.SIGSTOP)
        return taken

    def _worker(self, process: str) -> Worker:
        if process not in self._workers:
            self._workers[process] = Worker(self._module, env=self._environment, memory=0, max_jobs=_UNBOUNDED, max_rss=_UNBOUNDED, timeout_kind="timeout", repeat=False)
        return self._workers[process]

    def generation(self, process: str) -> int:
        """How often the process was started; what an earlier one had prepared is gone."""
        worker = self._workers.get(process)
        return 0 if worker is None else worker.starts if worker.running else worker.starts + 1

    def groups(self) -> list[int]:
        """Process groups of the running workers."""
        return [w.process.pid for w in self._workers.values() if w.running]

    def end(self, process: str) -> None:
        """End one process; it starts again when asked."""
        if process in self._workers:
            self._workers[process].kill()

    def close(self) -> None:
        """End all processes."""
        for worker in self._workers.values():
            worker.kill()

    @staticmethod
    def _signal(worker: Worker, what: int) -> None:
        if worker.running:
            try:
                os.killpg(worker.process.pid, what)
            except ProcessLookupError:
                pass


__all__ = ["Stage", "WorkerError"]
