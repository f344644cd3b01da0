"""Rewrites of a description into an equal one with less, or better shaped, work. None knows a target or an operator's name."""

from __future__ import annotations

from . import phases

# In the order of preference for a kernel that was never tuned; each module has NAME and rewrite(program) -> Program | None.
REWRITES = (phases,)


def variants(program) -> dict:
    """Algorithm name → program that computes the same. "direct" is the description itself; the first entry is the one to take without measuring."""
    found = {}
    for module in REWRITES:
        rewritten = module.rewrite(program)
        if rewritten is not None:
            found[module.NAME] = rewritten
    found["direct"] = program
    return found
