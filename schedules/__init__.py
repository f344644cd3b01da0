"""Schedule spaces by target family. `space` needs no compiler; `apply` runs in the compile worker."""

from __future__ import annotations

import importlib

FAMILIES = ("x86", "arm", "cuda")


def _family(target: dict):
    from convgen.errors import TargetError
    if target["family"] not in FAMILIES:
        raise TargetError(f"there is no schedule space for target {target['name']}; families: {', '.join(FAMILIES)}")
    return target["family"]


def space(description: dict, target: dict):
    """The Space of one workload on one target. `description`: JSON of the workload, `target`: JSON of the target."""
    return importlib.import_module(f"{__name__}.{_family(target)}.space").Space(description, target)


def rate(program, target: dict) -> int:
    """How many times the float32 rate a target has for the sums of a program, by instructions for narrow data."""
    return importlib.import_module(f"{__name__}.{_family(target)}.dot").rate(program, target)


def apply(module, blocks, choice: dict, target: dict):
    """The module with the loops that `choice` says."""
    return importlib.import_module(f"{__name__}.{_family(target)}.apply").apply(module, blocks, choice, target)


def prepare(module, target: dict):
    """The module that prepares parameters, with loops for the target; blocks are taken as they come."""
    return importlib.import_module(f"{__name__}.{_family(target)}.bind").whole(module, 128)
