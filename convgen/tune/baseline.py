"""What PyTorch takes for a workload, timed in a process of its own with the same threads and the same allocator.

`python -m convgen.tune.baseline` is the worker; `TorchBaseline` the parent's side.
"""

from __future__ import annotations

import importlib.util
import logging

from ..errors import WorkerError
from ..workers import Worker
from ..workers.child import serve
from .measure import measuring_environment

log = logging.getLogger("convgen")


def baseline(workload: str, threads: int, budget: float = 0.3, seed: int = 0) -> dict | None:
    """Timing (as timing.measure) of a workload's PyTorch formulation in eager mode, or None if it has none."""
    import torch

    from .. import workload as parse
    from . import timing

    case = parse(workload)
    if not getattr(case, "has_baseline", True):
        return None
    torch.set_num_threads(threads)
    tensors = case.sample(seed)
    with torch.inference_mode():
        call = next(iter(case.formulations(**tensors).values()))  # parameters folded beforehand, as ours are
        return timing.measure(call, budget)


class TorchBaseline:
    """Times baselines on demand; `time` is None where torch is missing, the operator has none, or it fails."""

    def __init__(self, target: dict):
        self.threads = int(target.get("threads", 1))
        self.possible = importlib.util.find_spec("torch") is not None
        self._worker: Worker | None = None

    def time(self, workload_id: str, longest: float = 120.0) -> dict | None:
        """median_us, min_us and so on of the baseline; the reason of a failure goes to the log."""
        if not self.possible or "@" in workload_id.partition(":")[0]:  # the child knows the catalogue, not the caller's own file
            return None
        if self._worker is None:
            self._worker = Worker("convgen.tune.baseline", env=measuring_environment(self.threads), memory=0,
                                  timeout_kind="run_timeout")
        try:
            return self._worker.request({"cmd": "baseline", "workload": workload_id, "threads": self.threads}, longest)
        except WorkerError as error:
            log.warning("%s: PyTorch baseline not measured (%s)", workload_id, error)
            return None

    def close(self) -> None:
        """End the worker."""
        if self._worker is not None:
            self._worker.close()


if __name__ == "__main__":
    serve({"baseline": baseline}, default_kind="crash")
