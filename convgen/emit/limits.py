"""Launches that no GPU takes, whatever the compiler says. Limits of grids: CUDA C++ Programming Guide, "Technical Specifications per Compute Capability"."""

from __future__ import annotations

import math

from ..errors import EmitError

_GRID = {"x": 2**31 - 1, "y": 65535, "z": 65535}  # blocks along each axis, the same for every architecture


def refuse(launch: dict, limits: dict) -> None:
    """Raise EmitError for a launch that no GPU of these limits takes. Grids that depend on sizes are checked as far as they are known."""
    threads = math.prod(launch["block"])
    if threads > limits["threads_per_block"]:
        raise EmitError(f"{launch['symbol']}: a block takes at most {limits['threads_per_block']} threads, got {threads}")
    if launch["shared"] > limits["shared_per_block"]:
        raise EmitError(f"{launch['symbol']}: a block has at most {limits['shared_per_block']} bytes of shared memory, got {launch['shared']}")
    for axis, blocks, most in zip(_GRID, launch["grid"], _GRID.values()):
        if isinstance(blocks, int) and blocks > most:
            raise EmitError(f"{launch['symbol']}: a grid has at most {most} blocks along {axis}, got {blocks}")
