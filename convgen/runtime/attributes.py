"""Canonical forms of attributes, as torch.nn.functional accepts them. One place, used when describing and when serving."""

from __future__ import annotations

from typing import Any, Mapping

from ..errors import ArgumentError


def _is_int(v) -> bool:
    return hasattr(v, "__index__") and not isinstance(v, bool)


def canonical(operator: str, spec: Mapping, value: Any, window: list | None = None):
    """The canonical form of one attribute.

    `spec` is its entry in a signature: {"name", "type", "rank", "default", "choices"}. "ints" become a tuple of `rank` ints, "pads" a tuple of
    (before, after) pairs. `window`: per spatial dim the total padding that 'same' means. Raises ArgumentError in one sentence.
    """
    kind, name, rank, given = spec["type"], spec["name"], spec.get("rank", 1), value

    def refuse(expected):
        raise ArgumentError(f"{operator}: {name} must be {expected}, got {given!r}")

    if kind == "ints":
        if _is_int(value):
            value = (value,) * rank
        if not isinstance(value, (tuple, list)) or len(value) != rank or not all(_is_int(v) for v in value):
            refuse(f"an int or {rank} ints")
        if any(v < spec.get("minimum", 0) for v in value):
            refuse(f"at least {spec.get('minimum', 0)}")
        return tuple(int(v) for v in value)
    if kind == "pads":
        if value == "valid":
            value = 0
        if value == "same":
            if window is None:
                refuse("a number or pairs ('same' needs a window)")
            return tuple((int(t) // 2, int(t) - int(t) // 2) for t in window)
        if _is_int(value):
            value = (value,) * rank
        if not isinstance(value, (tuple, list)) or len(value) != rank:
            refuse(f"an int, {rank} ints, {rank} (before, after) pairs, 'same' or 'valid'")
        pairs = []
        for v in value:
            pair = (v, v) if _is_int(v) else v
            if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not all(_is_int(p) for p in pair):
                refuse(f"an int, {rank} ints, {rank} (before, after) pairs, 'same' or 'valid'")
            if any(p < 0 for p in pair):
                refuse("at least 0")
            pairs.append((int(pair[0]), int(pair[1])))
        return tuple(pairs)
    if kind == "int":
        if not _is_int(value):
            refuse("an int")
        if value < spec.get("minimum", 0):
            refuse(f"at least {spec.get('minimum', 0)}")
        return int(value)
    if kind == "float":
        if not isinstance(value, (int, float)) or isinstance(value, bool) or value - value != 0:  # neither infinite nor nan
            refuse("a finite number")
        return float(value)
    if kind == "bool":
        if not isinstance(value, bool):
            refuse("True or False")
        return value
    choices = spec.get("choices")
    if choices and value not in choices:
        refuse("one of " + ", ".join(repr(c) for c in choices))
    if not choices and not isinstance(value, str):
        refuse("a text")
    return value


def symbol_values(spec: Mapping, value: Any) -> dict:
    """Size symbols that a canonical attribute value binds: "stride.0", "padding.1.lo", "groups", or the plain value for text."""
    name = spec["name"]
    if spec["type"] == "ints":
        return {f"{name}.{i}": v for i, v in enumerate(value)}
    if spec["type"] == "pads":
        return {f"{name}.{i}.{side}": v for i, pair in enumerate(value) for side, v in zip(("lo", "hi"), pair)}
    return {name: value}
