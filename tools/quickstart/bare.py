"""A process that cannot have a compiler: TVM and XGBoost are not found, and nothing of them is mapped into memory."""

from __future__ import annotations

import importlib.util
import os
import re
import sys

ABSENT = ("tvm", "xgboost")
_MAPPED = re.compile(r"libtvm(?!_ffi)|libxgboost|libLLVM")


class _Without:
    """A finder of modules that does not know the absent ones. It answers None, as one that found nothing: code may ask for them."""

    def __init__(self, finder):
        self._finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in ABSENT else self._finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self._finder, name)


def remove_compiler() -> None:
    """From now on the compiler is not installed as far as this process can see. Call this before importing convgen."""
    sys.meta_path[:] = [_Without(finder) for finder in sys.meta_path]
    assert_bare()


def assert_bare() -> None:
    """Raises RuntimeError if the compiler can be imported, was imported, or is mapped into this process."""
    for name in ABSENT:
        if name in sys.modules or importlib.util.find_spec(name) is not None:
            raise RuntimeError(f"{name} can be imported in the process that serves")
    with open("/proc/self/maps") as maps:
        mapped = {os.path.basename(line.split()[-1]) for line in maps if "/" in line}
    found = sorted(name for name in mapped if _MAPPED.match(name))
    if found:
        raise RuntimeError(f"{', '.join(found)} is mapped into the process that serves")
