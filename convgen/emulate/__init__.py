"""Kernels of targets that are not here, run for correctness only. Knows kernel entries, no operators; its times mean nothing."""

from __future__ import annotations

import importlib

from ..runtime import cpu

FAMILIES = ("cuda",) if cpu.family() == "arm" else ("arm", "cuda")  # none of which this machine's processor can be


def opener(entry: dict, directory, target: dict, **options):
    """A function from a workload's dims to its kernel, with the interface of `convgen.tune.kernel.NativeKernel`, that runs an entry of a family in FAMILIES.

    `directory` holds the entry's files and gets what the emulation compiles; `options` are the family's own. Raises WorkerError where a compiler is missing or refuses.
    """
    return importlib.import_module(f"{__name__}.{target['family']}").opener(entry, directory, target, **options)
