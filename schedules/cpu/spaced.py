"""Copies of rows whose vectors take every second, third, ... number of memory: what a window that moves by more than one position reads side by side.

Each vector is picked from the few whole vectors of memory that its numbers lie in; those of neighbouring taps come from the same ones.
"""

from __future__ import annotations

from tvm import tirx

from .rows import binding, sequence, shuffle

MARK = "spaced"  # annotation of the loop over a row's vectors
_MOST = 160  # vectors of a row that get code of their own


def mark(sch, block, turn, dims: int) -> bool:
    """Whether the copy in `block`, whose last `dims` loops are the copy's, can be done by whole rows where it now is; if so the loops of a row move innermost and `turn.rewrite` will do it."""
    loops = sch.get_loops(block)[-dims:]
    inner = [(loops[turn.target[0]], turn.blocks), *([(loops[turn.taps.dim], turn.taps.count)] if turn.taps else []), (loops[-1], turn.lanes)]
    if any(sch.get(loop).extent != count for loop, count in inner) or turn.blocks * (turn.taps.count if turn.taps else 1) > _MOST:
        return False
    inner = [loop for loop, _ in inner]
    at = [sch.get(loop).loop_var.name for loop in inner]
    sch.reorder(*(loop for loop in loops if sch.get(loop).loop_var.name not in at), *inner)
    sch.annotate(inner[0], MARK, turn.lanes)
    return True


def row(source, target, turn):
    """Statements that copy one row, and those that fill it with zeros. `source`, `target`: the Rows at the row's first vector, tap and lane."""
    width, lanes, zeros = turn.end - turn.begin, turn.lanes, tirx.Broadcast(tirx.const(0.0, "float32"), turn.lanes)
    made, bind = binding()
    whole, stores, empty = {}, [], []
    for block in range(turn.blocks):
        for tap in range(turn.taps.count if turn.taps else 1):
            moved = target.moved(turn.taps.dim, tap) if turn.taps else target
            first = block * lanes * turn.step + tap * (turn.taps.apart if turn.taps else 0) - turn.begin
            numbers = {lane: at for lane in range(min(lanes, turn.width - block * lanes)) if 0 <= (at := first + lane * turn.step) < width}
            starts = sorted({min(at // lanes * lanes, width - lanes) for at in numbers.values()})
            for start in starts:
                if start not in whole:
                    whole[start] = bind(source.load(start + turn.begin, 0, lanes))
            stores.append(moved.store(_picked([whole[s] for s in starts], starts, numbers, lanes, zeros), block, 0, lanes))
            empty.append(moved.store(zeros, block, 0, lanes))
    return sequence([*made, *stores]), sequence(empty)


def _picked(vectors, starts, numbers, lanes, zeros):
    """A vector of the numbers at the given positions, lane → position, from vectors that start at the given ones; zero in all other lanes."""
    result, filled = vectors[0] if len(numbers) == lanes else zeros, set()
    for v, start in zip(vectors, starts):
        mine = {lane: at - start for lane, at in numbers.items() if lane not in filled and 0 <= at - start < lanes}
        result = shuffle([result, v], [lanes + mine[lane] if lane in mine else lane for lane in range(lanes)])
        filled |= set(mine)
    return result
