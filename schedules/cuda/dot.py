"""Instructions for narrow data: the tensor cores, by whether a stage is a product of matrices that they take."""

from __future__ import annotations

from convgen.emit import plan as P

from . import matrices


def rate(program, target: dict) -> int:
    """How many times the float32 rate a target has for the sums of a program: that of the slowest heavy one."""
    return min((matrices.RATE if matrices.tiles(program, s, target) else 1 for s in P.anchors(program)), default=1)
