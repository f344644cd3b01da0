"""Copies by all threads of a block, and results leaving a thread."""

from __future__ import annotations

from tvm import tirx
from tvm.s_tir.schedule import ScheduleError

VECTOR = 4  # elements that one instruction moves


def cooperative(sch, block, dims, threads, wide, along=None):
    """Spread a copy into shared memory over the threads of its block: neighbours of one of its last `dims` loops, number `along` or the innermost, over neighbouring threads.

    Threads share out two loops, the innermost and all others fused, so that few positions are computed per element. `wide`: elements that may move at once.
    """
    loops = sch.get_loops(block)[-dims:]
    if dims > 1 and _extent(sch, loops[-1]) > 1:
        sch.storage_align(block, 0, -2, VECTOR, 0)
    if along is not None:
        loops.append(loops.pop(along))
        sch.reorder(*loops)
    inner = _extent(sch, loops[-1])
    vector = None
    if wide > 1 and inner % wide == 0:
        loops[-1], vector = sch.split(loops[-1], [None, wide])
        inner //= wide
    beside = _beside(inner, threads)
    if len(loops) < 2 or beside == threads or inner == 1:
        _in_turn(sch, loops, threads)
    else:
        _in_rows(sch, loops, beside, threads)
    if vector is not None:
        sch.vectorize(vector)


def _in_rows(sch, loops, beside, threads):
    """Share out rows and columns among threads, `beside` of them along a row; elements one by one where TVM cannot follow the positions of a copy."""
    rows, y = sch.split(sch.fuse(*loops[:-1]), [None, threads // beside])
    columns, x = sch.split(loops[-1], [None, beside])
    try:
        sch.reorder(rows, columns, y, x)
        sch.bind(sch.fuse(y, x), "threadIdx.x")
    except ScheduleError:
        _in_turn(sch, [rows, y, columns, x], threads)


def _in_turn(sch, loops, threads):
    _, x = sch.split(sch.fuse(*loops), [None, threads])
    sch.bind(x, "threadIdx.x")


def _beside(inner, threads) -> int:
    """How many threads lie along rows of `inner` elements: a divisor of all threads that leaves few idle, the most of those."""
    fits = [t for t in range(1, threads + 1) if threads % t == 0 and t < 2 * inner]
    used = {t: inner / (-(-inner // t) * t) for t in fits}
    best = max(used[t] * (1.0 if t >= 16 else 0.9 if t >= 8 else 0.6) for t in fits)
    return max(t for t in fits if used[t] * (1.0 if t >= 16 else 0.9 if t >= 8 else 0.6) >= 0.92 * best)


def results(sch, block, dims, wide):
    """Results of one thread: unrolled, so that they stay in registers; `wide` says that the innermost loop may be of vectors."""
    loops = sch.get_loops(block)[-dims:]
    while len(loops) > 1 and _extent(sch, loops[-1]) == 1:
        loops.pop()
    inner = _extent(sch, loops[-1])
    if wide and inner % VECTOR == 0:
        outer, vector = sch.split(loops[-1], [None, VECTOR])
        sch.vectorize(vector)
        loops[-1] = outer
    for loop in loops:
        if 1 < _extent(sch, loop) <= 64:
            sch.unroll(loop)


def _extent(sch, loop) -> int:
    extent = sch.get(loop).extent
    return int(extent) if isinstance(extent, (int, tirx.IntImm)) else 1 << 30
