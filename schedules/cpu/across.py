"""Reductions over an axis along which what they read lies in vectors."""

from __future__ import annotations


def schedule(sch, b, tiled) -> list:
    """Position by position: the lanes of whole vectors each for itself, in a register, then all lanes. In parallel unless in a `tiled` output.

    Returns what is to be decomposed: (block, outermost loop of its reduction).
    """
    total, parts = (sch.get_sblock(name) for name in (b.name, *b.reads))
    *positions, lane = sch.get_loops(total)[int(tiled):]
    sch.compute_at(parts, positions[-1], preserve_unit_loops=True)
    vector, step = sch.get_loops(parts)[-2:]
    sch.reorder(step, vector)
    sch.vectorize(vector)
    sch.unroll(lane)
    if not tiled and len(positions) > 2:
        sch.parallel(sch.fuse(*positions[:-2]))  # the last one has one step
    return [(b.reads[0], step), (b.name, lane)]
