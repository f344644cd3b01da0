"""Loading and calling libraries. Needs numpy and apache-tvm-ffi, works with torch, knows no compiler.

    lib = load("ops.cvg")
    y = lib.conv2d(x, weight, padding=1)
    f = lib.bind("conv2d", weight=weight, padding=1)
    y = f(x)
"""

from __future__ import annotations

import importlib

_HOME = {"load": "library", "Library": "library", "Bound": "bound", "Kernel": "kernel", "Explanation": "explain",
         "set_num_threads": "threads"}
__all__ = sorted(_HOME)


def __getattr__(name: str):
    # Lazy, because `convgen.runtime.sizes` and `.attributes` are also used where tvm_ffi is not wanted yet.
    if name in _HOME:
        return getattr(importlib.import_module(f"convgen.runtime.{_HOME[name]}"), name)
    raise AttributeError(f"module 'convgen.runtime' has no attribute {name!r}")
