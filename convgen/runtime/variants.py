"""Which variants of a library this machine runs, and why the others were refused: one for CPU tensors, one per CUDA device."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Sequence

from convgen.errors import LibraryError, TargetError
from convgen.runtime import cpu, cuda

_ARCHITECTURE = re.compile(r"sm_(\d+)(\d)([af]?)\Z")


@dataclass(frozen=True)
class Choice:
    """The variant taken, (target name, reason) of every other, and for CUDA which code of it runs and whether that is PTX."""

    variant: dict
    refused: tuple[tuple[str, str], ...]
    code: str | None = None
    ptx: bool = False

    @property
    def target(self) -> str:
        """Name of the target that the variant is for."""
        return self.variant["target"]["name"]


def is_cuda(variant: dict) -> bool:
    """Whether a variant serves CUDA tensors."""
    return variant["target"].get("family") == "cuda"


def obstacle(variant: dict) -> str | None:
    """Why this machine cannot run a variant; None if it can. For a CUDA variant this opens the driver."""
    target = variant["target"]
    if is_cuda(variant):
        try:
            driver = cuda.driver()
        except TargetError as error:
            return str(error)
        reasons = [_code(variant, device, driver.version)[1] for device in driver.devices]
        return None if None in reasons else "; ".join(dict.fromkeys(reasons))
    family = target.get("family")
    if family and family != cpu.family():
        return f"it is for {family} and this machine is {cpu.family()}"
    needed = [*target.get("features", []), *(f for kernel in variant["kernels"] for f in kernel.get("features", []))]
    lacking = cpu.missing(dict.fromkeys(needed))
    return f"this CPU lacks {', '.join(lacking)}" if lacking else None


def cuda_obstacle(target: dict) -> str | None:
    """Why no device of this machine runs code for a CUDA target (its JSON), cubin or PTX, made by whatever CUDA; None if one does."""
    return obstacle({"target": target, "cuda": {"toolkit": 0, "driver": 0, "ptx": True}, "kernels": []})


def choose(variants: Sequence[dict], library: str) -> Choice:
    """The best variant for CPU tensors: widest vectors, then most features. Raises LibraryError when none may run here."""
    refused, able = [], []
    for variant in variants:
        why = "it is for tensors on CUDA devices" if is_cuda(variant) else obstacle(variant)
        if why:
            refused.append((variant["target"]["name"], why))
        else:
            able.append(variant)
    if not able:
        raise LibraryError(f"{library} cannot run on this machine ({_list(refused)})")

    def rank(variant: dict) -> tuple:
        target = variant["target"]
        return (target.get("vector_bits", 0), len(target.get("features", [])))

    best = max(able, key=rank)
    refused += [(v["target"]["name"], f"{best['target']['name']} is the better one") for v in able if v is not best]
    return Choice(best, tuple(refused))


def choose_cuda(variants: Sequence[dict], device: cuda.Device, version: int) -> Choice:
    """The best variant for tensors on a device: the cubin of its architecture, else the nearest one below it within the same major
    number, else the PTX of the newest. `version` is that of the driver. Raises TargetError when none may run there."""
    refused, able = [], []
    for variant in variants:
        rank, why = _code(variant, device, version) if is_cuda(variant) else (None, "it is for CPU tensors")
        if why:
            refused.append((variant["target"]["name"], why))
        else:
            able.append((rank, variant))
    if not able:
        raise TargetError(f"nothing in it runs on {device} ({_list(refused)})")
    rank, best = max(able, key=lambda item: item[0])
    refused += [(v["target"]["name"], f"{best['target']['name']} fits {device} better") for _, v in able if v is not best]
    name = best["target"]["isa"]
    return Choice(best, tuple(refused), name if rank[0] else f"PTX of {name}", not rank[0])


def _list(refused) -> str:
    return "; ".join(f"{name}: {why}" for name, why in refused) or "it holds no variant"


def _code(variant: dict, device: cuda.Device, version: int) -> tuple[tuple | None, str | None]:
    """(rank, None) of the code of a CUDA variant that this device runs, cubins above PTX, those tuned for the very card first; or (None, why none does)."""
    facts, isa = variant["cuda"], variant["target"]["isa"]
    found = _ARCHITECTURE.match(isa)
    if not found:
        return None, f"its architecture {isa!r} is unknown"
    architecture, here = (int(found[1]), int(found[2])), device.capability
    card = variant["target"].get("microarchitecture", "generic").replace("-", " ") in device.name.lower()
    # Code for sm_90a uses instructions that no other architecture has, not even a later one.
    if architecture == here or (not found[3] and architecture[0] == here[0] and architecture[1] < here[1]):
        if version >= facts["driver"]:
            return (True, architecture, card), None
        return None, (f"its code was made by CUDA {release(facts['toolkit'])} and needs a driver for CUDA {release(facts['driver'])} or later, "
                      f"and this one is for {release(version)}")
    if architecture > here or found[3]:
        return None, f"it is for {isa} and {device} cannot run that"
    if not facts.get("ptx"):
        return None, f"it is for {isa} alone and holds no PTX that {device} could use"
    if version < facts["toolkit"]:
        return None, (f"its PTX needs a driver for CUDA {release(facts['toolkit'])} or later to be compiled for {device}, "
                      f"and this one is for {release(version)}")
    return (False, architecture, card), None


def release(version: int) -> str:
    """A CUDA version in digits: 12080 → "12.8"."""
    return f"{version // 1000}.{version % 1000 // 10}"
