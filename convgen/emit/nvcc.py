"""NVIDIA's compiler: from CUDA C to a cubin of one architecture, or to PTX, and what a kernel needs of it. Imports no TVM."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from ..errors import WorkerError

FORMATS = ("cubin", "ptx")
_TIME = 240.0  # seconds; an unrolled body of thousands of operations takes half a minute


def find() -> str | None:
    """Path of nvcc: of $CUDA_PATH or $CUDA_HOME, on PATH, or of the usual folder; None where there is none."""
    roots = [os.environ.get("CUDA_PATH"), os.environ.get("CUDA_HOME")]
    return next((found for root in roots if root and (found := shutil.which("nvcc", path=str(Path(root, "bin"))))), None) or shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")


def compile_cuda(source: Path, target: Path, arch: str, format: str = "cubin") -> dict:
    """Compile the file `source` for `arch` ("sm_90") to `target`; returns per kernel {"registers", "spills", "shared_static"} (spills and shared memory in bytes).

    IEEE arithmetic: no fast-math, but multiply-adds are contracted. PTX has no registers yet: its dict is empty. Raises WorkerError: compile_error where nvcc is
    missing or refuses, compile_timeout where it does not end.
    """
    nvcc = find()
    if nvcc is None:
        raise WorkerError("compile_error", f"compiling for {arch} needs nvcc of the CUDA toolkit, found neither by CUDA_PATH or CUDA_HOME nor on PATH")
    if format not in FORMATS:
        raise WorkerError("invalid", f"CUDA code can be compiled to {' or '.join(FORMATS)}, got {format!r}")
    # a relative name, so that no path of this machine gets into the output
    arch_flag = f"-arch={arch}" if format == "cubin" else f"-arch=compute_{arch.removeprefix('sm_')}"
    command = [nvcc, f"-{format}", arch_flag, "-std=c++17", "-O3", "-Xptxas", "-v", "-o", str(target.resolve()), source.name]
    try:
        done = subprocess.run(command, cwd=source.parent, capture_output=True, text=True, timeout=_TIME)
    except subprocess.TimeoutExpired:
        raise WorkerError("compile_timeout", f"nvcc did not end within {_TIME:g} s") from None
    if done.returncode:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if "error" in line] or [done.stderr.strip()]
        raise WorkerError("compile_error", f"nvcc refuses {source.name}: {lines[0][:300]}")
    return usage(done.stderr + done.stdout)


def usage(log: str) -> dict:
    """What ptxas -v says of every kernel."""
    found, name = {}, None
    for line in log.splitlines():
        if entry := re.search(r"Compiling entry function '(\w+)'", line):
            name = entry[1]
            found[name] = {"registers": 0, "spills": 0, "shared_static": 0}
        if name and (spills := re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", line)):
            found[name]["spills"] = int(spills[1]) + int(spills[2])
        if name and (used := re.search(r"Used (\d+) registers", line)):
            shared = re.search(r"(\d+) bytes smem", line)
            found[name] |= {"registers": int(used[1]), "shared_static": int(shared[1]) if shared else 0}
    return found
