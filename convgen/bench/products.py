"""The plain matrix products inside a workload: its 1x1 convolutions, read from the description's structure.

What a fused block can save is the time that separate layers spend outside these products. With t_gemm the time of the products alone, by PyTorch's matrix
product (see peers/torch.py), the share that convgen removes of it is (t_peer - t_convgen) / (t_peer - t_gemm).
"""

from __future__ import annotations

import math

from ..lang import access
from ..lang.ranges import simplify
from .groups import contractions


def products(workload) -> list[tuple[int, int, int]]:
    """(rows, summed, columns) of each plain product that a call does, in order: rows are positions of all samples, columns output channels."""
    found = []
    for one in contractions(workload.program):
        extents = access.extents(one.stage)
        if len(one.kernels) != 1 or any(extents[a] > 1 for a in one.reduced & _axes(one.data, extents, one.positions)):
            continue
        data, kernel = _axes(one.data, extents), _axes(one.kernels[0], extents)
        inner, rows, columns = one.reduced & data & kernel, data - one.reduced, kernel - one.reduced
        size = lambda axes: math.prod(extents[a] for a in axes)
        if not rows & columns and size(inner) == size(one.reduced) > 1:
            found.append((size(rows), size(inner), size(columns)))
    return found


def _axes(load, extents, along=()) -> set:
    """Axes longer than 1 in the indices of a load; with `along`, in those indices that hold one of these."""
    indices = [set(simplify(index, extents).axes()) for index in load.args]
    return {a for axes in indices if not along or axes & set(along) for a in axes if extents[a] > 1}
