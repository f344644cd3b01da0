"""Rewrites of a description into an equal one with less, or better shaped, work. None knows a target or an operator's name."""

from __future__ import annotations

from . import fft, phases, winograd

# Each module has rewrites(program) -> {algorithm name: equal program}.
REWRITES = (phases, winograd, fft)
_NORM = ("winograd", "fft")


def variants(program) -> dict:
    """Algorithm name → program that computes the same. "direct" is the description itself, and all there is for integers: transforms have fractions."""
    if program.integral:
        return {"direct": program}
    found = {}
    for module in REWRITES:
        found |= module.rewrites(program)
    for split in phases.rewrites(program).values():  # each phase of a transposed convolution is a convolution of stride 1
        found |= {f"{name}_phases": p for name, p in winograd.rewrites(split).items()}
    found["direct"] = program
    return found


def oracle(algorithm: str) -> str:
    """How results of an algorithm are judged: "EF" for reordered sums (exact integers, float bound), "N" for a norm bound."""
    return "N" if algorithm.startswith(_NORM) else "EF"
