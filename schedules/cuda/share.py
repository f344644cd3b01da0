"""Sums that threads of a block share: every thread adds a part of the terms, and the parts are added through shared memory, in one order always."""

from __future__ import annotations

from tvm.tirx import IterVar

_UNROLLED = 32  # parts of a sum that are added by straight code


def parts(sch, b, loops):
    """Divide the sums of a "reduce" Block as its `share` says. `loops`: lists of (loop, axis) of its reduction, a chunk's steps for an axis in chunks.

    Returns (the block of the parts, the block that adds them, the loop over threads, lists of the loops over one thread's terms).
    """
    block, count, apart = sch.get_sblock(b.name), b.share.threads, b.share.apart
    which = next((i, j) for i, found in enumerate(loops) for j, (_, axis) in enumerate(found) if axis == b.share.axis)
    loops = [[l for l, _ in found] for found in loops]
    same = lambda a, b: sch.get_sref(a).same_as(sch.get_sref(b))
    outer, inner = sch.split(loops[which[0]][which[1]], [None, count] if apart else [count, None])
    own, thread = (outer, inner) if apart else (inner, outer)
    loops[which[0]][which[1]] = own
    old = sch.get_loops(block)
    at = lambda l: next(i for i, o in enumerate(old) if same(l, o))
    places, group = [[at(l) for l in found] for found in loops], at(thread)
    partial = sch.rfactor(thread, 0)
    new = sch.get_loops(partial)
    return partial, block, new[group], [[new[i] for i in found] for found in places]


def finish(sch, total, store, at, threads: int):
    """Add the parts under the loop `at` of a block's threads, once all are there, and let results leave from shared memory: through the block `store`, or as they are (None).

    Both share out their elements anew and leave their sums in shared memory: what is moved to a loop of threads has no test of its own that keeps idle ones out.
    """
    if store is None:
        store = sch.cache_write(total, 0, "shared")
    else:
        sch.set_scope(total, 0, "shared")
    for b in (total, store):  # both before their loops are split: what threads overhang is no part of a region
        sch.reverse_compute_at(b, at, preserve_unit_loops=True)
    kinds = [v.iter_type for v in sch.get(total).iter_vars]
    loops = sch.get_loops(total)[-len(kinds):]
    terms = loops[kinds.index(IterVar.CommReduce)]
    _spread(sch, [l for l, kind in zip(loops, kinds) if kind != IterVar.CommReduce], threads)
    if int(sch.get(terms).extent) <= _UNROLLED:
        sch.unroll(terms)
        sch.annotate(terms, "pragma_unroll_explicit", 0)
    sch.decompose_reduction(total, terms)
    _spread(sch, sch.get_loops(store)[-len(sch.get(store).iter_vars):], threads)


def _spread(sch, loops, threads):
    _, lane = sch.split(sch.fuse(*loops), [None, threads])
    sch.bind(lane, "threadIdx.x")
