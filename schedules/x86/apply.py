"""The loops of a PrimFunc on x86."""

from __future__ import annotations

from ..cpu import apply as cpu


def apply(module, blocks, choice: dict, target: dict):
    """The scheduled module; see schedules.cpu.apply."""
    return cpu.apply(module, blocks, choice, target["lanes"]["float32"], _intrinsics)


def _intrinsics():
    from . import intrinsics  # parses its descriptions: only where they are used
    return intrinsics
