"""The compile worker: `python -m convgen.emit.worker` answers JSON lines; the only process that loads the compiler.

TVM's LLVM and torch have clashed inside one process for years, and a schedule can make LLVM hang or crash; here neither
reaches the user's process.
"""

from __future__ import annotations

import gc
from functools import cache

from ..workers.child import import_without_torch, serve


@cache
def load() -> str:
    """Import the compiler ahead of the first job; returns its version."""
    version = import_without_torch("tvm").__version__
    import_without_torch("convgen.emit.build")
    gc.freeze()  # all this stays: looking through it again and again takes a tenth of compiling
    return version


def build(**job) -> dict:
    """`convgen.emit.build_kernel` in this process."""
    load()
    from . import build_kernel

    return build_kernel(**job)


def memory_of(**job) -> dict:
    """`convgen.emit.build.memory_of` in this process."""
    load()
    from .build import memory_of

    return memory_of(**job)


# Name → function or "module:function" (imported at first use). A job takes keyword arguments and returns something JSON can hold.
COMMANDS = {"build": build, "load": load, "memory": memory_of}


def main() -> None:
    """Serve until the parent closes the pipe."""
    serve(COMMANDS, default_kind="compile_error")


if __name__ == "__main__":
    main()
