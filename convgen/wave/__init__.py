"""Offline waves: tuning for a device that has no compiler and no network.

`make` packs candidates into a bundle with one script; the device measures them; `absorb` takes the result file into the records, and the
next `make` knows it. docs/targets.md shows a whole cycle.
"""

from __future__ import annotations

import importlib

_HOMES = {"make": "making", "Made": "making", "absorb": "absorbing", "Absorbed": "absorbing", "WaveError": "bundle"}
__all__ = list(_HOMES)


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
