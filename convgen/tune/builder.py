"""From choices of knobs to linked candidates on disk, in parallel; failures come back as data."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from ..emit.service import COMPILE_TIMEOUT, shared_service
from ..errors import Error, WorkerError
from ..workers.scratch import scratch_folder

SHORTEST, LONGEST = 10.0, 60.0  # processor seconds that a candidate may compile once the compiler has shown how fast it is here
BACKSTOP = 10.0  # times that by the clock: other work on the machine, or the children of a compiler


@dataclass
class Built:
    """A candidate ready to be loaded: shared object or cubin, kernel entry, sha256 of the machine code (equal code needs no second measurement)."""

    path: str
    entry: dict
    digest: str


class LocalBuilder:
    """Compiles candidates of a target with the process's compile workers and links each to a shared object of its own."""

    def __init__(self, target: dict, workers: int | None = None):
        self.target = target
        self.workers = workers or len(os.sched_getaffinity(0))
        self._service = shared_service(self.workers)
        self.root = scratch_folder("build")
        self._count = 0
        self._slowest = 0.0

    def load(self, deadline: float | None = None) -> None:
        """Have the compiler loaded, and wait for it until monotonic time `deadline`."""
        self._service.load(time.monotonic() + COMPILE_TIMEOUT if deadline is None else deadline)

    def build(self, description: dict, choices: list, deadline: float | None = None, grace: float = 0.0) -> list:
        """Built, WorkerError or None (not begun by monotonic time `deadline`) for each choice (None = the space's default).

        One in flight then may go on for `grace` seconds.
        """
        symbol = "cg_" + hashlib.sha256(description["id"].encode()).hexdigest()[:12]
        jobs = []
        for choice in choices:
            self._count += 1
            folder = Path(self.root, str(self._count))
            folder.mkdir()
            jobs.append({"description": description, "target": self.target, "choice": choice, "directory": str(folder), "symbol": symbol})
        begun = time.monotonic()
        self._service.preload()
        outcomes = self._service.build_many(jobs, **self._limits(), deadline=deadline, grace=grace)
        self._slowest = max(self._slowest, time.monotonic() - begun)
        return [self._link(job, outcome) if isinstance(outcome, dict) else outcome for job, outcome in zip(jobs, outcomes)]

    def _limits(self) -> dict[str, float]:
        """Minutes at first (the compiler loads); later four times the slowest batch so far, between 10 s and a minute."""
        if not self._slowest:
            return {"timeout": COMPILE_TIMEOUT}
        seconds = min(LONGEST, max(SHORTEST, 4 * self._slowest))
        return {"timeout": BACKSTOP * seconds, "processor": seconds}

    def _link(self, job: dict, entry: dict):
        folder = Path(job["directory"])
        source = folder / entry["object"]
        if "launches" in entry:  # a cubin is loaded as it is
            return Built(str(source), entry, hashlib.sha256(source.read_bytes()).hexdigest())
        try:
            digest = hashlib.sha256(source.read_bytes()).hexdigest()
            target = folder / "kernel.so"
            self.link(source, entry, target)
        except (OSError, Error) as error:
            return WorkerError("compile_error", f"linking failed: {error}")
        return Built(str(target), entry, digest)

    def link(self, source: Path, entry: dict, target: Path) -> None:
        """Make the shared object `target` of a kernel's object file."""
        from ..export.link import link_objects

        link_objects([source], target)

    def discard(self, built: Built) -> None:
        """Delete a candidate that lost; a loaded library stays usable."""
        shutil.rmtree(Path(built.path).parent, ignore_errors=True)

    def close(self) -> None:
        """Delete all candidates; the compile workers stay for the next call."""
        shutil.rmtree(self.root, ignore_errors=True)
