"""What a measurement must state about its machine: processor, versions, roofline."""

from __future__ import annotations

import importlib.metadata
import logging
import platform
from functools import cache

from ..errors import Error
from ..tune.measure import ALLOCATOR
from . import roofline as _roofline

_log = logging.getLogger("convgen")
_DISTRIBUTIONS = ("convgen", "torch", "onnxruntime", "openvino", "ncnn", "apache-tvm", "apache-tvm-ffi", "numpy")


@cache
def roofline(threads: int):
    """The measured Roofline, or None (with a warning) where it cannot be measured."""
    try:
        return _roofline.measure(threads)
    except (Error, OSError) as error:
        _log.warning("no roofline: %s", error)
        return None


def facts() -> dict:
    """Processor, versions and allocator settings, as rows keep them."""
    from ..targets import machine
    return {"cpu": machine().name, "kernel": platform.release(), "python": platform.python_version(), "versions": versions(), "allocator": ALLOCATOR}


def versions() -> dict:
    """Installed versions of everything that takes part."""
    found = {}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
