"""What this machine can do at most, measured: multiply-adds per second and bytes copied per second, with the threads that are raced."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ..errors import Error

_SOURCE = Path(__file__).with_name("roofline.c")
# Bytes read and written: inside the first two caches, inside the third, outside.
FOOTPRINTS = (256 << 10, 1 << 20, 4 << 20, 16 << 20, 256 << 20)


@dataclass(frozen=True)
class Roofline:
    """gflops: peak float32 rate (a multiply-add counts 2). copy: [(footprint in bytes, GB/s read plus written)], ascending."""

    threads: int
    gflops: float
    copy: tuple

    def bandwidth(self, footprint: float, cold: bool = False) -> float:
        """GB/s for data of that many bytes; cold: as from memory."""
        fitting = [rate for size, rate in self.copy if size >= footprint and not cold]
        return fitting[0] if fitting else self.copy[-1][1]

    def seconds(self, flops: float, nbytes: float, cold: bool = False, rate: int = 1) -> float:
        """Least time of work with that many operations and bytes: the larger of its arithmetic and its traffic. rate: see schedules.rate."""
        return max(flops / (self.gflops * rate), nbytes / self.bandwidth(nbytes, cold)) * 1e-9

    def to_json(self) -> dict:
        return {"threads": self.threads, "gflops": self.gflops, "copy_gbs": [list(pair) for pair in self.copy]}

    @classmethod
    def from_json(cls, data: dict) -> "Roofline":
        return cls(data["threads"], data["gflops"], tuple(map(tuple, data["copy_gbs"])))


def measure(threads: int, footprints=FOOTPRINTS) -> Roofline:
    """Compile the kernel for this very processor and run it. Raises Error where there is no C compiler."""
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
    if compiler is None:
        raise Error("bench: measuring the roofline needs a C compiler, and none was found")
    with tempfile.TemporaryDirectory(prefix="convgen-roofline-") as scratch:
        program = Path(scratch) / "roofline"
        built = subprocess.run([compiler, "-O3", "-march=native", "-pthread", "-o", str(program), str(_SOURCE)], capture_output=True, text=True)
        if built.returncode:
            raise Error(f"bench: {compiler} cannot compile the roofline kernel: {built.stderr.strip().splitlines()[-1:]}")
        answer = subprocess.run([str(program), str(threads), *map(str, footprints)], capture_output=True, text=True, check=True)
    data = json.loads(answer.stdout)
    return Roofline(threads, data["gflops"], tuple(map(tuple, data["copy"])))
