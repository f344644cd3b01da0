"""The loops of a PrimFunc on ARM."""

from __future__ import annotations

from functools import partial

from ..cpu import apply as cpu


def apply(module, blocks, choice: dict, target: dict):
    """The scheduled module; see schedules.cpu.apply."""
    return cpu.apply(module, blocks, choice, target["lanes"]["float32"], partial(_intrinsics, target))


def _intrinsics(target):
    from . import intrinsics  # parses its descriptions: only where they are used
    return intrinsics.Intrinsics("i8mm" in target["features"])
