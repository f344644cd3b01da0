"""What identifies a workload in records: its id and the hash of its symbolic description."""

from __future__ import annotations


def description_hash(description: dict) -> str:
    """sha256 of what is computed, free of sizes: equal for all shapes of one structure (so nearest shapes can be found)."""
    from ..lang.program import Program

    return Program.from_json(description).hash
