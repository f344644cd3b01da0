"""How a sum's results leave the register tile: finished, and stored tile by tile, row by row or in a pass of their own."""

from __future__ import annotations

from . import elementwise, loops as L, turn


def leave(nest, places, widest) -> list:
    """Place what follows the sum. Returns the names of what is placed."""
    store = nest.store
    done = [_finish(nest, places)] if nest.finish is not None else []
    if nest.finish is None and (store is None or nest.tiled):
        if nest.parts is None:  # a band's sums are where they belong
            _from_registers(nest, places)
        return done
    if store is None or nest.tiled:
        return done  # the store surrounds the tile
    knob = nest.knob("store", "row")
    if knob == "row" and places.row is not None:
        _place(nest, places.row, widest)
    elif knob != "pass":
        _place(nest, places.tile, widest, unrolled=True)
    else:
        elementwise.schedule(nest.sch, store, nest.b.lanes, widest)
    return [*done, store.name]


def _finish(nest, places) -> str:
    """The values that follow from the sums, in the layout of the tiles."""
    sch, finish = nest.sch, nest.finish
    block = sch.get_sblock(finish.name)
    sch.reverse_compute_at(block, places.tile, preserve_unit_loops=True)
    *loops, lanes = sch.get_loops(block)[-len(finish.loops):]
    sch.vectorize(lanes)
    if nest.parts is None:
        L.unroll(sch, loops)
    return finish.name


def _from_registers(nest, places):
    """The sums to memory, where no stage follows in the tile."""
    sch = nest.sch
    local = sch.cache_write(nest.block, 0, "global")
    sch.reverse_compute_at(local, places.tile, preserve_unit_loops=True)
    *loops, lanes = sch.get_loops(local)[-len(nest.b.loops):]
    sch.vectorize(lanes)
    L.unroll(sch, loops)


def _place(nest, at, widest, unrolled=False):
    """The store inside loop `at`: by whole rows, or in vectors where the output's innermost dim is the vector axis; short loops beside it unrolled or not."""
    sch, store, b = nest.sch, nest.store, nest.b
    block = sch.get_sblock(store.name)
    sch.reverse_compute_at(block, at, preserve_unit_loops=True)
    if turn.mark(sch, store, b.lanes, widest):
        return
    *loops, last = sch.get_loops(block)[-len(store.loops):]
    if unrolled:
        L.unroll(sch, [loop for loop, (axis, _) in zip(loops, store.loops) if axis != b.vec])
    L.vectorize(sch, last, b.lanes)
