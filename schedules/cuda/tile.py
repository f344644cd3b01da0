"""One reduction in tiles: blocks of threads, every thread with sums in registers, shared copies of what several threads read.

The order of loops, outermost first: blocks, vthreads (results of one thread that lie apart), threads, chunks of the reduction, taps and channels of a chunk,
results of one thread that are neighbours. Whatever a block shares is copied at the head of a chunk.
"""

from __future__ import annotations

import math

from tvm import tirx

from . import bind, copy, share

_FEW = 64  # bytes that are static always: TVM finds no place in dynamic memory for a single byte
_TOGETHER = 32  # terms of a sum in one unrolled body


def reduction(sch, b, store, copies, choice, done, static):
    """Schedule a "reduce" Block. `store`: the block that writes its results, None where they go to memory as they are; `copies`: Blocks of its staged reads; `static`: bytes of shared memory that every launch may have."""
    k = lambda name, default=None: choice.get(f"{b.stage}.{name}", default)
    block = sch.get_sblock(b.name)
    loops = _reduction_loops(sch, b, sch.get_loops(block)[len(b.loops):], k("chunk", 0))
    total = group = None
    if b.share is not None:
        block, total, group, loops = share.parts(sch, b, loops)
    else:
        loops = [[loop for loop, _ in found] for found in loops]
    chunks, inner, window, table = loops
    grid, far, threads, near = _spread(sch, b, sch.get_loops(block)[:len(b.loops)])
    order = [*chunks, *inner, *window, *table]
    if group is not None:
        threads = [*threads, group] if b.share.apart else [group, *threads]
    sch.reorder(*grid, *far, *threads, *order, *near)
    out = _written(sch, block, store, total is not None)
    weights = _parameters(sch, block, b.parameters) if k("weights") == "shared" else []
    grid = bind.blocks(sch, grid)
    if any(_extent(sch, v) > 1 for v in far):
        sch.bind(sch.fuse(*far), "vthread.x")
    thread = sch.fuse(*threads)
    count = _extent(sch, thread)
    sch.bind(thread, "threadIdx.x")
    sch.reverse_compute_at(out, thread, preserve_unit_loops=True)
    if total is not None:
        copy.results(sch, out, len(b.loops) + 1, False)
        share.finish(sch, total, sch.get_sblock(store.name) if store is not None else None, grid, count)
    else:
        copy.results(sch, out, len(b.loops) if store is None else len(store.loops), _whole(sch, out, store or b, {t.axis: t for t in b.spread}))
    common = _copied(sch, copies, weights, chunks[-1] if chunks else thread, count, choice)
    if total is not None:
        common |= {out: (n := 4 * count * math.prod(_extent(sch, l) for l in near)), total: n // b.share.threads}
    if sum(common.values()) > static:
        for found, n in common.items():
            if n > _FEW:
                sch.set_scope(found, 0, "shared.dyn")
    unrolled = [*inner, *window][len(inner) + len(window) - k("unroll", 0):] if k("unroll", 0) else []
    for loop in [*unrolled, *near]:
        _unroll(sch, loop)
    for loop in table:
        sch.unroll(loop)
    if order:
        init = sch.decompose_reduction(block, order[0])
        for loop in sch.get_loops(init)[-len(near):]:
            _unroll(sch, loop)
    done.update(x.name for x in (b, store, *copies) if x is not None)


def _spread(sch, b, loops):
    """Loops over (blocks, results of a thread that lie apart, threads, results of a thread that are neighbours)."""
    tiles = {t.axis: t for t in b.spread}
    grid, far, threads, near = [], [], [], []
    for loop, (axis, part) in zip(loops, b.loops):
        if part == "lanes" or axis not in tiles:
            grid.append(loop)
            continue
        tile = tiles[axis]
        outer, v, t, r = sch.split(loop, [None, tile.each // tile.near, tile.threads, tile.near])
        grid.append(outer), far.append(v), threads.append(t), near.append(r)
    return grid, far, threads, near


def _written(sch, block, store, shared):
    """The block that takes the sums out of registers: the store, else a copy; `shared` sums go to shared memory first."""
    if store is not None and not shared:
        sch.set_scope(block, 0, "local")
        return sch.get_sblock(store.name)
    out = sch.cache_write(block, 0, "local")
    if shared:
        sch.set_scope(out, 0, "shared")
    return out


def _copied(sch, copies, weights, at, count, choice) -> dict:
    """Copy what `count` threads share inside loop `at`. `copies`: Blocks; `weights`: as of _parameters. Returns block → bytes of shared memory."""
    common = {}
    for c in copies:
        found = sch.get_sblock(c.name)
        sch.set_scope(found, 0, "shared")
        sch.compute_at(found, at, preserve_unit_loops=True)
        common[found] = _bytes(sch, found, len(c.loops))
        computed = any(choice.get(f"{sch.get(p).name_hint}.fused") for p in sch.get_producers(found))
        copy.cooperative(sch, found, len(c.loops), count, c.wide, c.along if computed else None)
    for w, wide in weights:
        sch.compute_at(w, at, preserve_unit_loops=True)
        common[w] = _bytes(sch, w, len(sch.get(w).iter_vars))
        copy.cooperative(sch, w, len(sch.get(w).iter_vars), count, wide)
    return common


def inside(sch, b):
    """Compute a "reduce" Block element by element where its one reader, a copy in shared memory, takes them: a sum in a register of the thread that copies.

    It keeps its init at the first term: TVM splits no sum whose positions are clamped, and unrolled the test costs nothing.
    """
    block = sch.get_sblock(b.name)
    reader, = sch.get_consumers(block)
    sch.set_scope(block, 0, "local")
    sch.compute_at(block, sch.get_loops(reader)[-1], preserve_unit_loops=True)
    terms = 1
    for loop in reversed(sch.get_loops(block)[-len(b.reduce):] if b.reduce else []):
        terms *= _extent(sch, loop)
        if terms <= _TOGETHER:
            _unroll(sch, loop)


def _reduction_loops(sch, b, loops, chunk):
    """(loops over chunks, channels of a chunk, taps, constant coefficients), each with its axis; that of chunks is none."""
    chunks, inner, window, table = [], [], [], []
    channel = [(l, axis) for l, (axis, role) in zip(loops, b.reduce) if role == "channel"]
    longest = max((_extent(sch, l) for l, _ in channel), default=0)
    for loop, (axis, role) in zip(loops, b.reduce):
        if role == "channel":
            extent = _extent(sch, loop)
            if chunk and extent == longest:
                longest = None
                if extent > chunk:
                    o, loop = sch.split(loop, [None, chunk])
                    chunks.append((o, None))
            inner.append((loop, axis))
        else:
            (window if role == "window" else table).append((loop, axis))
    return chunks, inner, window, table


def _parameters(sch, block, given):
    """(block that copies a parameter into shared memory, elements that it may move at once) for every one a block reads."""
    found = [(i, given[region.source.name]) for i, region in enumerate(sch.get(block).reads) if region.source.name in given]
    return [(sch.cache_read(block, i, "shared"), wide) for i, wide in found]


def _whole(sch, out, b, tiles) -> bool:
    """Whether the results of one thread leave in vectors: float32 neighbours in memory, from multiples of four on."""
    last = len(b.loops) - 1 - (b.loops[-1][1] == "lanes")
    axis, extent = b.loops[last][0], sch.get(out).iter_vars[last].dom.extent
    return str(sch.get(out).writes[0].source.dtype) == "float32" and axis in tiles and tiles[axis].near % copy.VECTOR == 0 and _constant(extent) % copy.VECTOR == 0


def _bytes(sch, block, dims) -> float:
    """Of a copy in shared memory whose loops are those of one block of threads: rows begin at multiples of a vector. Infinite where they depend on the block: TVM finds their bound later."""
    extents = [sch.get(l).extent for l in sch.get_loops(block)[-dims:]]
    if not all(isinstance(n, (int, tirx.IntImm)) for n in extents):
        return math.inf
    *outer, inner = map(int, extents)
    return 4 * math.prod(outer) * -(-inner // copy.VECTOR) * copy.VECTOR


def _constant(extent) -> int:
    return int(extent) if isinstance(extent, (int, tirx.IntImm)) else 1


def _extent(sch, loop):
    return int(sch.get(loop).extent)


def _unroll(sch, loop):
    """Left to nvcc, which keeps the source small."""
    sch.unroll(loop)
    sch.annotate(loop, "pragma_unroll_explicit", 0)
