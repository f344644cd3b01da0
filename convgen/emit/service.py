"""Compiling from any process: jobs go to long-lived compile workers, one result or one failure comes back per job."""

from __future__ import annotations

import select
import threading
import time
from collections import deque
from typing import Any, Callable, Iterable, Mapping, Sequence

from ..errors import WorkerError
from ..workers import Worker

Outcome = "dict[str, Any] | WorkerError"

# A kernel is given this long to compile unless the caller says otherwise; the slowest sane one took 5 s.
COMPILE_TIMEOUT = 60.0


class CompileService:
    """Compile workers that live as long as this process and are restarted when they crash, hang or grow too large.

    Parameters: `workers`, processes that may compile at the same time; `command`, the child's argument list or module;
    `memory`, address space per worker in bytes (default three quarters of the machine); `max_jobs`, `max_rss`: when a worker
    is replaced. Calls from several threads are served one after another.
    """

    def __init__(self, workers: int = 1, *, command: str | Sequence[str] = "convgen.emit.worker", memory: int | None = None,
                 max_jobs: int = 200, max_rss: int = 3 << 30, env: Mapping[str, str] | None = None):
        # One thread per worker: parallel compiles are the service's business, and the pool's threads would be killed with it.
        env = {"TVM_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", **(env or {})}
        self._new = lambda: Worker(command, env=env, memory=memory, max_jobs=max_jobs, max_rss=max_rss)
        self._workers = [self._new() for _ in range(max(1, workers))]
        self._lock = threading.RLock()

    @property
    def workers(self) -> int:
        """How many jobs may compile at once."""
        return len(self._workers)

    def grow(self, workers: int) -> None:
        """Have at least that many workers."""
        with self._lock:
            self._workers += [self._new() for _ in range(workers - len(self._workers))]

    def build(self, description: dict, target: dict, choice: dict | None, directory: str, symbol: str,
              timeout: float = COMPILE_TIMEOUT) -> dict:
        """Kernel entry (interfaces of `emit.build_kernel`) whose object lies in `directory`.

        Raises WorkerError of kind invalid, compile_error, compile_timeout, crash or oom.
        """
        return self.call("build", timeout, description=description, target=target, choice=choice, directory=str(directory),
                         symbol=symbol)

    def call(self, command: str, timeout: float = COMPILE_TIMEOUT, /, **arguments: Any) -> Any:
        """Run another command that the worker knows by name (`convgen.emit.worker.COMMANDS`)."""
        with self._lock:
            self._settle(self._workers[0])
            return self._workers[0].request({"cmd": command, **arguments}, timeout)

    def preload(self) -> None:
        """Start all workers and let them load the compiler, without waiting for it."""
        with self._lock:
            for worker in self._workers:
                if not worker.running:
                    worker.send({"cmd": "load"}, COMPILE_TIMEOUT)

    def build_many(self, jobs: Iterable[Mapping[str, Any]], timeout: float = COMPILE_TIMEOUT, *, deadline: float | None = None,
                   done: Callable[[int, Any], None] | None = None) -> list:
        """Build jobs (keyword arguments of `build` as dicts) in parallel; one entry or WorkerError per job, in order.

        Jobs not begun by monotonic time `deadline` stay None, and one in flight then counts as a timeout. `done(index,
        outcome)` is told of each as it finishes. An exception (Ctrl-C) kills what is in flight and leaves.
        """
        with self._lock:
            return _Batch(self._workers, list(jobs), timeout, deadline, done).run()

    @staticmethod
    def _settle(worker: Worker) -> None:
        """Wait for a preload; if it failed, the job that follows will say so."""
        if worker.busy:
            try:
                worker.answer()
            except WorkerError:
                worker.kill()

    def close(self) -> None:
        """End the workers now; a later call starts fresh ones."""
        with self._lock:
            for worker in self._workers:
                worker.close()


class _Batch:
    """One build_many call: a queue of jobs, the workers that run them, a select loop in the calling thread."""

    def __init__(self, workers, jobs, timeout, deadline, done):
        self.workers, self.jobs, self.timeout, self.done = workers, jobs, timeout, done
        self.deadline = float("inf") if deadline is None else deadline
        self.waiting = deque(range(len(jobs)))
        # Workers that still load the compiler count as flying, under a number that is no job's.
        self.flying: dict[int, Worker] = {~i: worker for i, worker in enumerate(workers) if worker.busy}
        self.results: list = [None] * len(jobs)

    def run(self) -> list:
        try:
            while self.waiting or any(index >= 0 for index in self.flying):
                self._launch()
                if not self.waiting and all(index < 0 for index in self.flying):
                    break
                self._collect()
        except BaseException:
            for index, worker in self.flying.items():
                if index >= 0:
                    worker.kill()
            raise
        return self.results

    def _launch(self) -> None:
        if time.monotonic() >= self.deadline:
            self.waiting.clear()
        idle = [w for w in self.workers if w not in self.flying.values()]
        while idle and self.waiting:
            left = max(0.01, self.deadline - time.monotonic())
            index = self.waiting.popleft()
            worker = idle.pop()
            self.flying[index] = worker
            try:
                worker.send({"cmd": "build", **self.jobs[index]}, min(self.timeout, left))
            except WorkerError as error:
                self._finish(index, error)
                idle.append(worker)

    def _collect(self) -> None:
        descriptors = [d for worker in self.flying.values() for d in worker.descriptors()]
        nearest = min([worker.deadline for worker in self.flying.values()] + ([self.deadline] if self.waiting else []))
        select.select(descriptors, [], [], max(0.0, nearest - time.monotonic()))
        for index, worker in list(self.flying.items()):
            try:
                finished, entry = worker.poll(time.monotonic())
            except WorkerError as error:
                self._finish(index, error)
            else:
                if finished:
                    self._finish(index, entry)

    def _finish(self, index: int, outcome) -> None:
        del self.flying[index]
        if index < 0:
            return
        self.results[index] = outcome
        if self.done:
            self.done(index, outcome)


_shared: list[CompileService] = []
_shared_lock = threading.Lock()


def shared_service(workers: int = 1) -> CompileService:
    """The process's one service, with at least that many workers; each loads the compiler once and ends with the process."""
    with _shared_lock:
        if not _shared:
            _shared.append(CompileService(workers))
        _shared[0].grow(workers)
        return _shared[0]
