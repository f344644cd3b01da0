"""The file of a CUDA variant: an uncompressed zip with a cubin per kernel, and its PTX where the variant is the library's fallback."""

from __future__ import annotations

import re
import subprocess
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Mapping, Sequence

from convgen.emit import nvcc
from convgen.errors import LibraryError, WorkerError

_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can state: a library knows no date


def fallback(variants: Mapping[str, tuple[dict, Sequence[dict]]]) -> str | None:
    """The variant whose PTX serves architectures that the library has no cubin for: the lowest one; None without a CUDA variant.

    Code for sm_90a and the like fits no other architecture, so it is no fallback."""
    found = {name: re.fullmatch(r"sm_(\d+)(\d)", target["isa"]) for name, (target, _) in variants.items() if target.get("family") == "cuda"}
    numbers = {name: (int(match[1]), int(match[2])) for name, match in found.items() if match}
    return min(numbers, key=lambda name: (numbers[name], name), default=None)


def pack(entries: Sequence[dict], path: Path, isa: str, ptx: bool) -> dict:
    """Write the code of kernel entries ("object": path of the cubin, "source": of the CUDA C) to `path`, and return the facts that the
    loader checks: "toolkit" and "driver", CUDA versions as 1000 * major + 10 * minor, and whether there is "ptx".

    A cubin runs with every driver of the toolkit's major version, PTX is compiled only by drivers as new as the toolkit (CUDA
    Compatibility, "Minor Version Compatibility"). Raises LibraryError.
    """
    toolkit = toolkit_version()
    files = {f"{entry['symbol']}.cubin": Path(entry["object"]) for entry in entries}
    if ptx:
        files |= _compile_ptx(entries, path.parent, isa)
    try:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for name in sorted(files):
                archive.writestr(zipfile.ZipInfo(name, _DATE), files[name].read_bytes())
    except OSError as error:
        raise LibraryError(f"packing {path.name} failed: {error}") from error
    finally:
        for name in files:
            if name.endswith(".ptx"):
                files[name].unlink(missing_ok=True)
    return {"toolkit": toolkit, "driver": toolkit // 1000 * 1000, "ptx": ptx}


def _compile_ptx(entries: Sequence[dict], folder: Path, isa: str) -> dict[str, Path]:
    made = {entry["symbol"]: folder / f"{entry['symbol']}.ptx" for entry in entries}
    try:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda entry: nvcc.compile_cuda(Path(entry["source"]), made[entry["symbol"]], isa, "ptx"), entries))
    except WorkerError as error:
        raise LibraryError(f"compiling the PTX of the library failed: {error}") from error
    return {f"{symbol}.ptx": path for symbol, path in made.items()}


def toolkit_version() -> int:
    """CUDA version of nvcc, as 1000 * major + 10 * minor. Raises LibraryError."""
    command = nvcc.find()
    if command is None:
        raise LibraryError("exporting for CUDA needs nvcc of the CUDA toolkit, found neither by CUDA_PATH or CUDA_HOME nor on PATH")
    said = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=60).stdout
    release = re.search(r"release (\d+)\.(\d+)", said)
    if not release:
        raise LibraryError(f"cannot read the version of {command}")
    return 1000 * int(release[1]) + 10 * int(release[2])
