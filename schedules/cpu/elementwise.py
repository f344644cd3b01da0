"""Blocks that pass over everything once: maps, and copies and stores that have no place inside a sum's loops."""

from __future__ import annotations

from . import loops as L, turn


def schedule(sch, b, lanes, widest, tiled=False):
    """The innermost dim in vectors, everything outside in parallel unless a tile (which is `tiled`) surrounds it. `widest`: lanes of the target's vectors."""
    loops = lambda: sch.get_loops(sch.get_sblock(b.name))[int(tiled):]
    if not loops():
        return
    if turn.mark(sch, b, b.lanes if b.kind == "store" else lanes, widest):
        _share(sch, loops()[:-b.turn.loops], tiled)
        return
    *outer, inner = loops()
    outer += L.vectorize(sch, inner, lanes, b.narrow)
    if b.kind == "map" and len(outer) > 2 and len(b.loops) > 1 and b.loops[-2][1] == "outer" and (L.extent(sch, outer[-1]) or 99) <= 8:
        sch.unroll(outer.pop())  # what depends on the position alone (a gather's weights) is then computed once
    _share(sch, outer[:-1] if len(outer) > 2 else outer, tiled)


def _share(sch, loops, tiled):
    if loops and not tiled:
        sch.parallel(sch.fuse(*loops))
