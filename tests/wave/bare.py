"""Running a wave's script as a device does: an empty environment, and a Python without any package."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from convgen.errors import WorkerError
from convgen.tune.builder import Built
from convgen.tune.context import Environment
from convgen.wave.device import journal
from tests.tune.c_kernels import compile_kernel, entry

QUICK = ("--budget", "0.01", "--final", "0.05")


def command(wave: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-I", "-S", str(wave / "run.py"), *QUICK, *arguments]


def run(wave: Path, *arguments: str, limit: float = 240) -> tuple[int, str]:
    """(exit code, output) of run.py."""
    done = subprocess.run(command(wave, *arguments), env={}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=limit, cwd="/")
    return done.returncode, done.stdout


def result_of(wave: Path) -> Path:
    """The one result file that lies in a wave."""
    found = list(wave.glob("result-*.jsonl"))
    assert len(found) == 1, found
    return found[0]


def lines_of(wave: Path, kind: str) -> list[dict]:
    return [line for line in journal.read(result_of(wave))[0] if line["kind"] == kind]


class Planted:
    """A builder whose candidates are C kernels, one variant after the other ("refused": it does not compile)."""

    workers = 1

    def __init__(self, folder: Path, variants, shape):
        self.folder, self.variants, self.shape, self.made = folder, list(variants), shape, {}

    def build(self, description, choices, deadline=None, grace=0.0):
        return [self._built(choice) for choice in choices]

    def _built(self, choice):
        name = self.variants.pop(0) if self.variants else "right"
        self.made[len(self.made)] = name
        if name == "refused":
            return WorkerError("compile_error", "the compiler refuses it")
        path = compile_kernel(self.folder, name)
        digest = hashlib.sha256(f"{name} {len(self.made)}".encode()).hexdigest()
        return Built(path, entry(self.shape), digest)

    def discard(self, built):
        pass

    def close(self):
        pass


def environment(folder, variants, shape) -> Environment:
    return Environment(Planted(folder, variants, shape), None)
