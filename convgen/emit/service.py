"""Compiling from any process: jobs go to long-lived compile workers, one result or one failure comes back per job."""

from __future__ import annotations

import threading
from typing import Any, Callable, Iterable, Mapping, Sequence

from ..errors import WorkerError
from ..workers import Worker
from ..workers.pool import share

Outcome = "dict[str, Any] | WorkerError"

# A kernel is given this long to compile unless the caller says otherwise; the slowest sane one took 5 s, and loading the compiler 3 s, on a quiet machine.
COMPILE_TIMEOUT = 240.0


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

    def load(self, deadline: float) -> None:
        """The same, and wait for it until monotonic time `deadline`."""
        with self._lock:
            self.preload()
            for worker in self._workers:
                self._settle(worker, deadline)

    def build_many(self, jobs: Iterable[Mapping[str, Any]], timeout: float = COMPILE_TIMEOUT, *, processor: float | None = None,
                   deadline: float | None = None, grace: float = 0.0, done: Callable[[int, Any], None] | None = None) -> list:
        """Build jobs (keyword arguments of `build` as dicts) in parallel; one entry or WorkerError per job, in order.

        `processor` limits the seconds that the threads of a job's process compute. Jobs not begun by monotonic time `deadline` stay None, and one in flight `grace` seconds later counts as a timeout.
        `done(index, outcome)` is told of each as it finishes. An exception (Ctrl-C) kills what is in flight and leaves.
        """
        with self._lock:
            return share(self._workers, [{"cmd": "build", **job} for job in jobs], timeout, processor=processor, deadline=deadline, grace=grace, done=done)

    @staticmethod
    def _settle(worker: Worker, deadline: float | None = None) -> None:
        """Wait for a preload, until monotonic time `deadline` at most; if it failed, the job that follows will say so."""
        if worker.busy:
            try:
                worker.answer() if deadline is None else worker.poll(deadline)
            except WorkerError:
                worker.kill()

    def close(self) -> None:
        """End the workers now; a later call starts fresh ones."""
        with self._lock:
            for worker in self._workers:
                worker.close()


_shared: list[CompileService] = []
_shared_lock = threading.Lock()


def shared_service(workers: int = 1) -> CompileService:
    """The process's one service, with at least that many workers; each loads the compiler once and ends with the process."""
    with _shared_lock:
        if not _shared:
            _shared.append(CompileService(workers))
        _shared[0].grow(workers)
        return _shared[0]
