"""Default kernels judged by the oracles, for any target: run where this machine can, emulated where it cannot."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass

from .errors import WorkerError

_SECONDS = 600.0  # one emulated verdict; the references of small shapes take far less


@dataclass(frozen=True)
class Verdict:
    """`ok`, `how` ("run" or "emulated"), the `oracles` passed, the worst `error` over its bound; `reason` where it is not ok."""

    ok: bool
    how: str
    oracles: str = ""
    error: float = 0.0
    reason: str = ""

    def __str__(self) -> str:
        return f"right ({self.oracles}, error {self.error:.2g} of its bound, {self.how})" if self.ok else f"WRONG, {self.reason}"


class Kernels:
    """Compiles and verifies default kernels of one target in worker processes. `target`: a name, as for `convgen.compile`."""

    def __init__(self, target: str):
        from . import emulate
        from .targets import resolve

        self.target = resolve(target).to_json()
        away = self.target["family"] in emulate.FAMILIES
        self.how = "emulated" if away else "run"
        self._judge = _Emulated(self.target) if away else _Run(self.target)

    def verdict(self, workload) -> Verdict:
        """Of the workload's default kernel; a failure to compile, a crash or a wrong result is a verdict, too."""
        try:
            found = self._judge(workload.description)
        except WorkerError as error:
            return Verdict(False, self.how, reason=f"{error.kind}: {' '.join(str(error).split())}")
        return Verdict(True, self.how, found["oracles"], found["ratio"])

    def close(self) -> None:
        """End the workers."""
        self._judge.close()


class _Run:
    def __init__(self, target: dict):
        from .tune.builder import LocalBuilder
        from .tune.measure import LocalRunner

        self._builder, self._runner = LocalBuilder(target), LocalRunner(target)

    def __call__(self, description: dict) -> dict:
        (built,) = self._builder.build(description, [None])
        if isinstance(built, WorkerError):
            raise built
        return self._runner.check(built.path, built.entry, description)

    def close(self) -> None:
        self._builder.close()
        self._runner.close()


class _Emulated:
    def __init__(self, target: dict):
        from .emit.service import shared_service
        from .workers import Worker

        self._target, self._service = target, shared_service()
        self._worker = Worker("convgen.emulate.worker", timeout_kind="run_timeout")

    def __call__(self, description: dict) -> dict:
        with tempfile.TemporaryDirectory(prefix="convgen-check-") as folder:
            entry = self._service.build(description, self._target, None, folder, "cg_check")
            verdict = self._worker.request({"cmd": "check", "entry": entry, "target": self._target, "folder": os.fspath(folder), "description": description}, _SECONDS)
        if not verdict["ok"]:
            raise WorkerError("wrong", verdict["reason"])
        return verdict

    def close(self) -> None:
        self._worker.close()
