"""Suites: the layers of published networks as files of workload ids, each with its layer name and count."""

from __future__ import annotations

from pathlib import Path

from ..errors import ArgumentError

ALL = "all"  # every layer of every suite that computes in float32 throughout
_FOLDER = Path(__file__).with_name("suites")


def names() -> list[str]:
    """All suites."""
    return sorted(path.stem for path in _FOLDER.glob("*.txt"))


def path(name: str) -> Path:
    """The file of a suite. Raises ArgumentError for a name that none has."""
    file = _FOLDER / f"{name}.txt"
    if name not in names():
        raise ArgumentError(f"bench: unknown suite {name!r}; there are {', '.join(names())}")
    return file
