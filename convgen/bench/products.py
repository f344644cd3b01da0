"""The matrix products inside a workload, read from the description's structure: its dense sums over channels, as 1x1 convolutions are plainly, and convolutions with
a window once its values are gathered (gathering them is no part of the product).

What a fused block can save is the time that separate layers spend outside these products. With t_gemm the time of the products alone, by PyTorch's matrix
product (see peers/torch.py), the share that convgen removes of it is (t_peer - t_convgen) / (t_peer - t_gemm).
"""

from __future__ import annotations

import math

from ..lang import access
from ..lang.ranges import simplify
from .groups import contractions


def products(workload) -> list[tuple[int, int, int]]:
    """(rows, summed, columns) of each product that a call does, in order: rows are positions of all samples, columns output channels."""
    found = []
    for one in contractions(workload.program):
        extents = access.extents(one.stage)
        if len(one.kernels) != 1:
            continue
        data, kernel = _axes(one.data, extents), _axes(one.kernels[0], extents)
        inner, rows, columns = one.reduced & data & kernel, data - one.reduced, kernel - one.reduced
        size = lambda axes: math.prod(extents[a] for a in axes)
        if not rows & columns and size(inner) == size(one.reduced) > 1:
            found.append((size(rows), size(inner), size(columns)))
    return found


def _axes(load, extents) -> set:
    """Axes longer than 1 in the indices of a load."""
    return {a for index in load.args for a in simplify(index, extents).axes() if extents[a] > 1}
