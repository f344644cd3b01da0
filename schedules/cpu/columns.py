"""Bands of columns: what a sum gathers is produced for some steps of the output together, part by part of its terms, and the band's sums grow part by part."""

from __future__ import annotations


def enter(nest, steps):
    """Have the sums of so many steps of the output grow together. Leaves the loop over the bands innermost of those over the output."""
    b = nest.b
    axis, parts = b.columns
    rows = nest.of[axis]
    band, row = nest.sch.split(rows, [None, steps // b.sizes[1]])
    moved = [l for l in (nest.vectors, rows, nest.tiles) if l is not None]
    nest.outer = [*(l for l in nest.outer if l not in moved), band]
    nest.around([loop for loop, axis, _ in nest.reduction if axis in parts], [row if l is rows else l for l in moved])
