"""What a call holds in memory beside its inputs and output, and why where that is more than it should be."""

from __future__ import annotations

import math

from ..lang.count import BYTES, CALL, border_bytes
from ..lang.cuts import tiles_of


def held(program, largest: str, choice: dict, threads: int, scratch: int) -> dict:
    """{"border": bytes of inputs and output, "scratch": bytes of temporaries of all threads together, "ratio": what a call holds over its border, "why"}.

    `largest`: of the kernel's plan; `scratch`: bytes of one thread. Where stages run tile by tile of the output every thread has temporaries of its own. "why" is a sentence where the
    ratio is above `count.CALL`, else None.
    """
    cut = [name.removeprefix("cut.") for name in choice if name.startswith("cut.")]
    tiles = ", ".join(f"{size} of {axis}" for axis, size in tiles_of(choice).items())
    border, total = border_bytes(program), scratch * (threads if tiles else 1)
    ratio = (border + total) / border
    why = None
    if ratio > CALL:
        if tiles:
            place = f"every thread holds them for its tile of the output ({tiles})"
        elif cut:
            place = f"the output is not cut into tiles (along {', '.join(cut)}), which would hold less but read parameters or borders again"
        else:
            place = "the output cannot be cut into tiles without repeating work"
        why = f"{largest} lie between its stages, and {place}"
    return {"border": border, "scratch": total, "ratio": round(ratio, 2), "why": why}


def largest(plan) -> str:
    """The names of the temporaries that take the most memory, of a plan whose batch is still a number."""
    sizes = {}
    for p in plan.stages:
        if not p.is_output and p.stage is not plan.output:
            sizes[p.stage.name] = 4 * math.prod(p.layout.shape)
        for o in p.operands.values():
            if o.kind == "staged":
                sizes[o.name] = BYTES[o.dtype] * math.prod(o.layout.shape)
    return " and ".join(sorted(sizes, key=lambda n: -sizes[n])[:2])
