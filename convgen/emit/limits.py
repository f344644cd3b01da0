"""Sizes that no kernel takes, whatever the compiler says. Limits of grids: CUDA C++ Programming Guide, "Technical Specifications per Compute Capability"."""

from __future__ import annotations

import bisect
import math

from ..errors import EmitError
from ..lang.count import INDEXABLE
from ..runtime.sizes import evaluate

_GRID = {"x": 2**31 - 1, "y": 65535, "z": 65535}  # blocks along each axis, the same for every architecture


def refuse(launch: dict, limits: dict) -> None:
    """Raise EmitError for a launch that no GPU of these limits takes. Grids that depend on sizes are checked as far as they are known."""
    threads = math.prod(launch["block"])
    if threads > limits["threads_per_block"]:
        raise EmitError(f"{launch['symbol']}: a block takes at most {limits['threads_per_block']} threads, got {threads}")
    static, shared = launch["shared_static"], launch["shared_static"] + launch["shared"]
    if shared > limits["shared_per_block"]:
        raise EmitError(f"{launch['symbol']}: a block has at most {limits['shared_per_block']} bytes of shared memory, got {shared}")
    if static > limits["shared_static"]:
        raise EmitError(f"{launch['symbol']}: a block has at most {limits['shared_static']} bytes of static shared memory, got {static}")
    for axis, blocks, most in zip(_GRID, launch["grid"], _GRID.values()):
        if isinstance(blocks, int) and blocks > most:
            raise EmitError(f"{launch['symbol']}: a grid has at most {most} blocks along {axis}, got {blocks}")


def most_samples(shapes: list, launches: list) -> int:
    """Largest batch of a kernel that takes any: its indices are 32 bits wide, and grids are limited. Sizes are ints or expressions of N.

    TVM refuses a constant that is too large for an index, but a product with the batch would wrap around.
    """
    sizes = [(math.prod(n for n in shape if isinstance(n, int)), [n for n in shape if not isinstance(n, int)], INDEXABLE) for shape in shapes]
    sizes += [(1, [blocks], most) for launch in launches for blocks, most in zip(launch["grid"], _GRID.values()) if not isinstance(blocks, int)]
    fits = lambda n: all(times * math.prod(int(evaluate(tree, {"N": n})) for tree in trees) <= most for times, trees, most in sizes)
    return bisect.bisect_left(range(1, INDEXABLE + 1), True, key=lambda n: not fits(n))
