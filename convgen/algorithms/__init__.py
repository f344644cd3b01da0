"""Rewrites of a description into an equal one with less, or better shaped, work. None knows a target or an operator's name."""

from __future__ import annotations

from . import fft, phases, winograd

_NORM = ("winograd", "fft")


def variants(program) -> dict:
    """Algorithm name → program that computes the same. "direct" is the description itself, and all there is for integers: transforms have fractions.

    What the others make of parameters when these are bound takes at most PREPARED times the parameters' own memory (`convolution.lean`).
    """
    if program.integral:
        return {"direct": program}
    split = phases.rewrites(program)
    found = split | winograd.rewrites(program) | fft.rewrites(program)
    for whole in split.values():  # each phase of a transposed convolution is a convolution of stride 1
        found |= {f"{name}_phases": p for name, p in winograd.rewrites(whole).items()}
    return found | {"direct": program}


def oracle(algorithm: str) -> str:
    """How results of an algorithm are judged: "EF" for reordered sums (exact integers, float bound), "N" for a norm bound."""
    return "N" if algorithm.startswith(_NORM) else "EF"
