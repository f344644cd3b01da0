"""The C compiler that makes and links code for a family of processors: this machine's own, or one that crosses."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from typing import Sequence

from convgen.errors import LibraryError
from convgen.paths import cache_dir
from convgen.runtime import cpu

_ZIG = {"x86": "x86_64-linux-gnu.2.28", "arm": "aarch64-linux-gnu.2.28"}  # with the oldest glibc that the wheels of numpy and tvm_ffi run on
_CROSS = {"x86": "x86_64-linux-gnu-gcc", "arm": "aarch64-linux-gnu-gcc"}
_PACKAGE = {"x86": "gcc-x86-64-linux-gnu", "arm": "gcc-aarch64-linux-gnu"}
_SECONDS = 300  # the first use of ziglang compiles its parts of the C library


def compiler(family: str) -> list[str]:
    """The command of a C compiler for a target family. For another family than this machine's: ziglang (pip) or Debian's cross compiler.

    Raises LibraryError that says what to install.
    """
    if family == cpu.family():
        for name in (os.environ.get("CC"), "gcc", "cc", "clang"):
            found = name and shutil.which(name)
            if found:
                return [found]
        raise LibraryError("exporting needs a C compiler (gcc or clang) and found none; on Debian: apt install gcc")
    if family not in _ZIG:
        raise LibraryError(f"there is no cross compiler for target family {family}")
    if importlib.util.find_spec("ziglang") is not None:
        return [sys.executable, "-m", "ziglang", "cc", "-target", _ZIG[family], "-fno-sanitize=all"]
    found = shutil.which(_CROSS[family])
    if found:
        return [found]
    raise LibraryError(f"exporting for {family} on this machine ({platform.machine()}) needs a cross compiler and found none: pip install ziglang, "
                       f"or on Debian: apt install {_PACKAGE[family]}")


def run(command: Sequence[str], doing: str, cwd=None) -> str:
    """Run a compiler; its output. Raises LibraryError that begins with `doing`."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, cwd=cwd, env=_environment(command))
    except subprocess.TimeoutExpired:
        raise LibraryError(f"{doing}: {command[0]} took more than {_SECONDS} s") from None
    if done.returncode:
        raise LibraryError(f"{doing} failed: {' '.join(done.stderr.split())[-500:]}")
    return done.stdout


def _environment(command) -> dict | None:
    """Zig keeps what it compiled once in our cache, unless told otherwise."""
    if "ziglang" not in command:
        return None
    folder = str(cache_dir() / "zig")
    return {"ZIG_GLOBAL_CACHE_DIR": folder, "ZIG_LOCAL_CACHE_DIR": folder} | os.environ
