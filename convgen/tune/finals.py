"""Who won an interleaved race: the fastest, unless it cannot be told from someone simpler."""

from __future__ import annotations

from typing import Sequence

from .timing import quartiles

CLEAR = 1.005  # a median ratio below this is no difference
MOST = 0.75  # a real difference shows in at least this share of the paired rounds


def pick(rows: Sequence[Sequence[float]]) -> int:
    """Index of the winner among contestants in order of simplicity (the default first).

    `rows` holds times per contestant and round. The fastest median wins; a contestant that stands before it takes its place
    when the paired rounds do not clearly favour the fastest.
    """
    medians = [quartiles(list(row))[1] for row in rows]
    fastest = min(range(len(rows)), key=lambda i: (medians[i], i))
    for index in range(fastest):
        if not clearly_faster(rows[fastest], rows[index]):
            return index
    return fastest


def clearly_faster(first: Sequence[float], second: Sequence[float]) -> bool:
    """True if `first` beats `second` in most paired rounds, by more than noise in the median."""
    ratios = [b / a for a, b in zip(first, second)]
    wins = sum(r > 1.0 for r in ratios)
    return wins >= MOST * len(ratios) and quartiles(ratios)[1] > CLEAR
