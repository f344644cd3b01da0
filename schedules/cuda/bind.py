"""Binding whole nests to blocks and threads, one element of the result per thread."""

from __future__ import annotations

from tvm.tirx import IntImm, IterVar

from . import share


def elements(sch, block, threads: int, axis: int | None = None, each: int = 1):
    """Bind a block's spatial loops, fused, to blockIdx.x and up to `threads` of threadIdx.x; returns the thread loop. An open batch gets blockIdx.y.

    Never more threads than elements: what is moved to the thread loop afterwards is tested by the index of its element, and an index into one element says nothing.
    `axis`, `each`: the dim along which one thread has so many results, a divisor of its extent: what they share is computed once.
    """
    inner = sch.get_loops(block)
    if axis is not None and each > 1:
        own, outer = sch.split(inner[axis], [each, None])  # apart, so that neighbouring threads keep neighbouring results
        sch.reorder(*inner[:axis], outer, *inner[axis + 1:], own)
        sch.unroll(own)
        inner = [*inner[:axis], outer, *inner[axis + 1:]]
    spatial = [loop for loop, v in zip(inner, sch.get(block).iter_vars) if v.iter_type == IterVar.DataPar]
    sch.reorder(*spatial, *(loop for loop in inner if loop not in spatial))
    for loop in [loop for loop in spatial if not isinstance(sch.get(loop).extent, IntImm)]:
        spatial.remove(loop)
        sch.reorder(loop, *spatial)
        sch.bind(loop, "blockIdx.y")
    fused = sch.fuse(*spatial) if spatial else sch.add_unit_loop(block)
    grid, lane = sch.split(fused, [None, min(threads, int(sch.get(fused).extent))])
    sch.bind(grid, "blockIdx.x")
    sch.bind(lane, "threadIdx.x")
    return lane


def reduction(sch, block, reader, threads: int):
    """One thread per sum, kept in a register and taken from there by the block `reader` (None: a copy into memory). Returns the reduction's loops."""
    loops = [loop for loop, v in zip(sch.get_loops(block), sch.get(block).iter_vars) if v.iter_type == IterVar.CommReduce]
    if reader is None:
        reader = sch.cache_write(block, 0, "local")
    else:
        sch.set_scope(block, 0, "local")
    sch.reverse_compute_at(reader, elements(sch, block, threads), preserve_unit_loops=True)
    return loops


def divided(sch, b, reader, threads: int):
    """As `reduction`, of a "reduce" Block whose sums threads share: a box of its results per block. Returns (the block of their parts, its loops over terms)."""
    reduced = sch.get_loops(sch.get_sblock(b.name))[len(b.loops):]
    partial, total, group, (terms,) = share.parts(sch, b, [[(l, axis) for l, (axis, _) in zip(reduced, b.reduce)]])
    out = sch.cache_write(partial, 0, "local")
    sch.set_scope(out, 0, "shared")
    grid, lanes, left = [], [], max(1, threads // b.share.threads)
    for loop in reversed(sch.get_loops(partial)[:len(b.loops)]):
        extent = sch.get(loop).extent
        near = -(-int(extent) // -(-int(extent) // left)) if isinstance(extent, IntImm) else 1
        outer, inner = sch.split(loop, [None, near])
        grid.insert(0, outer), lanes.insert(0, inner)
        left = left // near if near == extent else 1
    lanes = [*lanes, group] if b.share.apart else [group, *lanes]
    sch.reorder(*grid, *lanes, *terms)
    grid, lane = blocks(sch, grid), sch.fuse(*lanes)
    sch.bind(lane, "threadIdx.x")
    sch.reverse_compute_at(out, lane, preserve_unit_loops=True)
    share.finish(sch, total, reader, grid, int(sch.get(lane).extent))
    return partial, terms


def blocks(sch, loops):
    """Bind the loops over blocks to blockIdx.x, an open batch to blockIdx.y; returns the inner one."""
    for loop in [l for l in loops if not isinstance(sch.get(l).extent, IntImm)]:
        loops.remove(loop)
        if loops:
            sch.reorder(loop, *loops)
        sch.bind(loop, "blockIdx.y")
    if loops:
        loop = sch.fuse(*loops)
        sch.bind(loop, "blockIdx.x")
    return loop


def whole(module, threads: int):
    """A module none of whose blocks is known, such as one that prepares parameters: every block of its own, sums in registers."""
    from tvm import s_tir
    sch = s_tir.Schedule(module)
    for child in sch.get_child_blocks(sch.get_sblock("root")):
        if any(v.iter_type == IterVar.CommReduce for v in sch.get(child).iter_vars):
            reduction(sch, child, None, threads)
        else:
            elements(sch, child, threads)
    return sch.mod
