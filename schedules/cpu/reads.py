"""What a sum reads, made where it is read: copies in what a thread does on its own, producers inside a tile or a band of columns."""

from __future__ import annotations

from . import loops as L, turn


def copies(nest, blocks, at, widest) -> list:
    """Copies inside loop `at`. `blocks`: those that the sum reads. Returns the names of what is placed."""
    for b in blocks:
        block = nest.sch.get_sblock(b.name)
        nest.sch.compute_at(block, at, preserve_unit_loops=True)
        if not turn.mark(nest.sch, b, nest.b.lanes, widest):
            L.vectorize(nest.sch, nest.sch.get_loops(block)[-1], nest.b.lanes, b.narrow)
    return [b.name for b in blocks]


def producers(nest, blocks, at) -> list:
    """Earlier stages inside loop `at`. `blocks`: their Blocks. Returns the names of what is placed."""
    for b in blocks:
        block = nest.sch.get_sblock(b.name)
        nest.sch.compute_at(block, at, preserve_unit_loops=True)
        *_, outside, last = nest.sch.get_loops(block)
        L.vectorize(nest.sch, last, nest.b.lanes)
        if nest.parts is None and b.loops[-2][1] == "outer":
            L.unroll(nest.sch, [outside], 8)
    return [b.name for b in blocks]
