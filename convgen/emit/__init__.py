"""From a description to an object file: plan, tensor expressions, PrimFuncs, schedule, LLVM. Only worker processes call this room's compiler part."""

from __future__ import annotations


def build_kernel(description: dict, target: dict, choice: dict | None, directory: str, symbol: str) -> dict:
    """Compile one workload to files `<directory>/<symbol>.*` and return its kernel entry (see `convgen.emit.build`)."""
    from .build import build_kernel as build
    return build(description, target, choice, directory, symbol)
