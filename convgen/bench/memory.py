"""What a convgen call holds in memory, against what it may hold at most."""

from __future__ import annotations

from ..lang.count import CALL, PREPARED


def call_ratio(memory: dict) -> float:
    """Peak of a call over its inputs and output: 1 for a kernel without scratch memory."""
    return (memory["border"] + memory["scratch"]) / memory["border"]


def prepared_ratio(memory: dict) -> float | None:
    """Prepared over given parameters, None where there are none."""
    return memory["prepared"] / memory["weights"] if memory["weights"] else None


def excess(memory: dict) -> list[str]:
    """What exceeds its bar, in words."""
    found = []
    if call_ratio(memory) > CALL:
        found.append(f"a call holds {call_ratio(memory):.1f} times its inputs and output")
    if (prepared_ratio(memory) or 0.0) > PREPARED:
        found.append(f"prepared parameters are {prepared_ratio(memory):.1f} times as large")
    return found
