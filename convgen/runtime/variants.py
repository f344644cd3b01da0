"""Which variant of a library this machine runs, and why the others were refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

from convgen.errors import LibraryError
from convgen.runtime import cpu


@dataclass(frozen=True)
class Choice:
    """The variant taken, and (target name, reason) of every other."""

    variant: dict
    refused: tuple[tuple[str, str], ...]


def obstacle(variant: dict) -> str | None:
    """Why this machine cannot run a variant; None if it can."""
    target = variant["target"]
    family = target.get("family")
    if family and family != cpu.family():
        return f"it is for {family} and this machine is {cpu.family()}"
    needed = [*target.get("features", []), *(f for kernel in variant["kernels"] for f in kernel.get("features", []))]
    lacking = cpu.missing(dict.fromkeys(needed))
    return f"this CPU lacks {', '.join(lacking)}" if lacking else None


def choose(variants: Sequence[dict], library: str) -> Choice:
    """The best variant that may run here: widest vectors, then most features. Raises LibraryError when none may."""
    refused, able = [], []
    for variant in variants:
        why = obstacle(variant)
        if why:
            refused.append((variant["target"]["name"], why))
        else:
            able.append(variant)
    if not able:
        reasons = "; ".join(f"{name}: {why}" for name, why in refused) or "it holds no variant"
        raise LibraryError(f"{library} cannot run on this machine ({reasons})")

    def rank(variant: dict) -> tuple:
        target = variant["target"]
        return (target.get("vector_bits", 0), len(target.get("features", [])))

    best = max(able, key=rank)
    refused += [(v["target"]["name"], f"{best['target']['name']} is the better one") for v in able if v is not best]
    return Choice(best, tuple(refused))
