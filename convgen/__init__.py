"""convgen: describe a convolution, tune it for a machine, ship a small library to PyTorch.

    import convgen
    w = convgen.operator("depthwise_conv2d")(N=1, C=96, H=56, W=56, kernel=7, padding=3)
    convgen.tune(w, seconds=60)
    convgen.export(w, "ops.cvg")
    y = convgen.load("ops.cvg").depthwise_conv2d(x, weight, padding=3)

Importing this loads neither torch nor tvm: every public name is fetched from its room when it is first used.
"""

from __future__ import annotations

import importlib
import os

__version__ = "0.1.0"

_HOMES = {
    "operators": "api", "operator": "api", "workload": "api", "compile": "api", "load": "api",
    "Error": "errors", "ArgumentError": "errors", "NoKernel": "errors", "LibraryError": "errors", "TargetError": "errors",
    "TuneError": "errors", "EmitError": "errors", "WorkerError": "errors",
}
# `tune` and `export` are rooms that can be called: see `rooms.callable_room`.
_ROOMS = ("algorithms", "bench", "emit", "errors", "export", "lang", "ops", "paths", "remote", "runtime", "schedules", "targets", "torch", "tune", "wave")

__all__ = ["__version__", *_HOMES, "export", "tune"]

# In a checkout `schedules/` stands beside the package; a wheel carries it inside. Both are `convgen.schedules`.
if not os.path.isdir(os.path.join(__path__[0], "schedules")):
    __path__.append(os.path.dirname(__path__[0]))


def __getattr__(name: str):
    if name in _HOMES:
        value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
        globals()[name] = value
        return value
    if name in _ROOMS:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__, *_ROOMS})
