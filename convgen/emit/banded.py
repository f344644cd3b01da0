"""Knobs that are a word or, where a choice works in bands, a number. 0 here says that it does not."""

from __future__ import annotations


def columns(stage: str, choice: dict) -> int:
    """Steps of an output axis for which what a sum reads is produced together (see tiling.columns)."""
    return _number(choice.get(f"{stage}.producer"))


def rows(stage: str, choice: dict) -> int:
    """In how many bands rows are shared out, each of which copies what it needs."""
    return _number(choice.get(f"{stage}.copies"))


def tiles(stage: str, choice: dict) -> int:
    """In how many bands the register tiles along one axis are shared out, each of which meets all vectors."""
    return _number(choice.get(f"{stage}.order"))


def numbers(values) -> list:
    """The bands among a knob's values."""
    return [v for v in values if _number(v)]


def _number(value) -> int:
    return value if isinstance(value, int) else 0
