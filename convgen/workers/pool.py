"""Many requests for several workers: a queue, and a select loop in the calling thread."""

from __future__ import annotations

import select
import time
from collections import deque
from typing import Any, Callable, Mapping, Sequence

from ..errors import WorkerError
from .parent import Worker


def share(workers: Sequence[Worker], requests: Sequence[Mapping[str, Any]], timeout: float, *, processor: float | None = None,
          deadline: float | None = None, grace: float = 0.0, done: Callable[[int, Any], None] | None = None) -> list:
    """Answers to requests, in order, each a result or a WorkerError.

    Limits of each: `timeout` and `processor` as in `Worker.send`. Requests not begun by monotonic time `deadline` stay None; one in flight may go on for `grace` seconds, and then counts as a
    timeout. `done(index, outcome)` is told of each as it finishes. An exception (Ctrl-C) kills what is in flight and leaves.
    """
    return _Batch(workers, list(requests), timeout, processor, deadline, grace, done).run()


class _Batch:
    def __init__(self, workers, requests, timeout, processor, deadline, grace, done):
        self.workers, self.requests, self.timeout, self.processor, self.grace, self.done = workers, requests, timeout, processor, grace, done
        self.deadline = float("inf") if deadline is None else deadline
        self.waiting = deque(range(len(requests)))
        # Workers that are busy already (loading a compiler) count as flying, under a number that is no request's.
        self.flying: dict[int, Worker] = {~i: worker for i, worker in enumerate(workers) if worker.busy}
        self.results: list = [None] * len(requests)

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
            left = max(0.01, self.deadline + self.grace - time.monotonic())
            index = self.waiting.popleft()
            worker = idle.pop()
            self.flying[index] = worker
            try:
                worker.send(self.requests[index], min(self.timeout, left), self.processor)
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
