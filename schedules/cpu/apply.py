"""How the knobs of processors shape the loops of a PrimFunc. Written against the roles on the blocks."""

from __future__ import annotations

from tvm import s_tir, tirx

from convgen.lang.cuts import tiles_of
from . import terms, turn


def apply(module, blocks, choice: dict, lanes: int, intrinsics):
    """The scheduled module. `blocks`: the lowering's Blocks in order; `intrinsics()`: the family's module of tensor intrinsics.

    Raises whatever TVM raises for an impossible choice.
    """
    sch = s_tir.Schedule(module)
    by_name = {b.name: b for b in blocks}
    done, decompose = set(), []
    cut = tiles_of(choice)
    tiled = _cut(sch, blocks, cut, lanes) if cut else set()
    done |= tiled & {blocks[-1].name}
    for b in reversed(blocks):  # consumers first, so that copies find the loops they are placed in
        if b.name in done or b.kind == "copy":
            continue
        if b.kind == "reduce":
            store = next((s for s in blocks if s.kind == "store" and s.stage == b.stage), None)
            finish = next((s for s in blocks if s.kind == "finish" and s.stage == b.stage), None)
            decompose += _reduce(sch, b, finish, store, by_name, choice, done, b.name in tiled, lanes)
        elif b.kind == "map":
            _elementwise(sch, b, lanes, lanes, b.name in tiled)
            done.add(b.name)
    for b in blocks:
        if b.kind == "copy" and b.name not in done:
            _elementwise(sch, b, lanes, lanes, b.name in tiled)
    for block, loop, tile in decompose:
        update = sch.get_sblock(block)
        init = sch.decompose_reduction(update, loop)
        if by_name[block].tested:
            terms.conditional(sch, update)
        if tile is not None:
            sch.vectorize(sch.get_loops(init)[-1])
            _instruction(sch, by_name[block], tile, sch.get_loops(init)[0], intrinsics())
    return turn.rewrite(sch.mod, {b.name: b.turn for b in blocks if b.turn is not None})


def _cut(sch, blocks, cut, lanes):
    """Tiles of the output outside, in parallel, and in each all blocks that depend on every cut axis. Returns their names."""
    out = blocks[-1]
    outer, inner = [], []
    for loop, (axis, _) in zip(sch.get_loops(sch.get_sblock(out.name)), out.loops):
        if axis in cut:
            o, loop = sch.split(loop, [None, cut[axis]])
            outer.append(o)
        (outer if axis in out.batch else inner).append(loop)
    sch.reorder(*outer, *inner)
    if not _turned(sch, out, out.lanes, lanes):
        _vectorize_last(sch, inner[-1], lanes)
    names = [b.name for b in blocks[:-1] if {*cut, *out.batch} <= set(b.moves)]
    for name in reversed(names):
        sch.compute_at(sch.get_sblock(name), outer[-1], preserve_unit_loops=True)
    sch.parallel(sch.fuse(*outer))  # only now: TVM loses track of regions under fused loops
    return {*names, out.name}


def _instruction(sch, b, loop, outermost, intrinsics):
    """The dot product instruction in place of the innermost loops, over lanes and over what a lane takes together."""
    width = _extent(sch, loop)
    code = intrinsics.library(b.dot.dtypes, width)
    if code is not None:
        sch.annotate(outermost, "pragma_import_llvm", code)
    sch.tensorize(loop, intrinsics.register(b.dot.dtypes, b.data, width, b.dot.first))


def _extent(sch, loop):
    e = sch.get(loop).extent
    return int(e) if isinstance(e, (int, tirx.IntImm)) else None


def _width(extent, lanes, narrow=1) -> int:
    """The widest vector that divides an extent, or 0: down to a quarter of the float32 lanes. `narrow`: elements in the place of a float32."""
    widths = [lanes * narrow >> i for i in range(narrow.bit_length() + 2)]
    return next((w for w in widths if w > 1 and extent and extent % w == 0), 0)


def _elementwise(sch, b, lanes, widest, tiled=False):
    """The innermost dim in vectors, everything outside in parallel unless a tile (which is) surrounds it."""
    loops = sch.get_loops(sch.get_sblock(b.name))[int(tiled):]
    if not loops:
        return
    if _turned(sch, b, b.lanes if b.kind == "store" else lanes, widest):
        done = (1 if None in (b.turn.source[1], b.turn.target[1]) else 2) + (b.turn.phases > 1)  # a straight row, or rows and lanes, and phases
        loops = sch.get_loops(sch.get_sblock(b.name))[int(tiled):-done]
        if loops and not tiled:
            sch.parallel(sch.fuse(*loops))
        return
    inner = loops[-1]
    extent = _extent(sch, inner)
    width = _width(extent, lanes, b.narrow)
    outer = loops[:-1]
    if width and extent > width:
        o, inner = sch.split(inner, [None, width])
        outer = [*outer, o]
    if width:
        sch.vectorize(inner)
    if b.kind == "map" and len(outer) > 2 and len(b.loops) > 1 and b.loops[-2][1] == "outer" and (_extent(sch, outer[-1]) or 99) <= 8:
        sch.unroll(outer.pop())  # what depends on the position alone (a gather's weights) is then computed once
    keep = 1 if len(outer) > 2 else 0
    if outer[:len(outer) - keep] and not tiled:
        sch.parallel(sch.fuse(*outer[:len(outer) - keep]))


def _reduce(sch, b, finish, store, by_name, choice, done, tiled, widest):
    """Register tile inside, reduction around it, everything else outside in parallel (unless in a `tiled` output); the output is stored from each register tile."""
    k = lambda name, default=None: choice.get(f"{b.stage}.{name}", default)
    block = sch.get_sblock(b.name)
    loops = sch.get_loops(block)[int(tiled):]
    spatial, reduction = loops[:len(b.loops)], loops[len(b.loops):]
    dense = any(role == "channel" and _extent(sch, loop) != 1 for loop, (_, role) in zip(reduction, b.reduce))
    outer, inner, of = [], {}, {}
    vec_outer = tile_outer = None
    for loop, (axis, part) in zip(spatial, b.loops):
        if part == "lanes":
            inner["lanes"] = loop
        elif part == "outer":
            if k("vectors", 1) > 1:
                loop, inner["vectors"] = sch.split(loop, [None, k("vectors")])
            vec_outer = loop
            outer.append(loop)
        elif axis == b.tiles[0]:
            tile_outer, inner["tile1"] = sch.split(loop, [None, b.sizes[0]])
            outer.append(tile_outer)
        elif axis == b.tiles[1]:
            other, inner["tile2"] = sch.split(loop, [None, b.sizes[1]])
            outer.append(other)
        else:
            outer.append(loop)
        if part != "lanes":
            of[axis] = outer[-1]
    interleaved = store is not None and store.turn is not None and store.turn.phases > 1  # phases take turns along the output's rows
    if vec_outer is not None and k("order", "vector") == "position":
        outer = [l for l in outer if l is not vec_outer] + [vec_outer]
    elif vec_outer is not None and tile_outer is not None and not (interleaved and store.loops[-2][0] == b.vec) and "channel" in {role for _, role in b.reduce} and outer.index(tile_outer) < outer.index(vec_outer):
        outer.remove(vec_outer)  # the vectors' operand stays in cache while the tiles pass
        outer.insert(outer.index(tile_outer), vec_outer)
    if isinstance(k("order"), int):  # tiles in so many bands, each of which meets all vectors, while their operand stays in cache
        share, tile_inside = sch.split(tile_outer, [k("order"), None])
        outer[outer.index(tile_outer)] = tile_outer = tile_inside
        outer.insert(outer.index(vec_outer), share)
    channel_outer, channel, window, table = [], [], [], []
    for loop, (axis, role) in zip(reduction, b.reduce):
        if role in ("window", "table"):
            (window if role == "window" else table).append(loop)
            continue
        size, extent = k("block", 0), _extent(sch, loop)
        if size and extent > size and extent % size == 0:
            o, loop = sch.split(loop, [None, size])
            channel_outer.append(o)
        if b.dot is not None and axis == b.dot.axis:
            loop, inner["dot"] = sch.split(loop, [None, b.dot.width])
        channel.append(loop)
    band = k("producer") if isinstance(k("producer"), int) else 0
    if band:  # so many steps of the output, whose sums grow part by part of what they read
        rows, taps = of[b.columns[0]], [loop for loop, (axis, _) in zip(reduction, b.reduce) if axis in b.columns[1]]
        band_loop, row = sch.split(rows, [None, band // b.sizes[1]])
        inside = [row if l is rows else l for l in (vec_outer, rows, tile_outer) if l is not None]
        outer = [*(l for l in outer if l not in (vec_outer, rows, tile_outer)), band_loop]
        channel, window = [l for l in channel if l not in taps], [l for l in window if l not in taps]
    reduce_loops = [*channel_outer, *channel, *window] if k("inner", "channel") == "window" else [*channel_outer, *window, *channel]
    # a multiply-add takes its broadcast operand from memory, the dot product instruction from a register: used up at once, it occupies only one
    tile = [inner[n] for n in (("tile2", "tile1", "vectors") if b.dot is not None else ("tile2", "vectors", "tile1")) if n in inner]
    reduce_loops += table
    for loop in table:  # the coefficients become constants
        sch.unroll(loop)
    instruction = [inner["lanes"], inner["dot"]] if "dot" in inner else [inner["lanes"]]
    if band:
        reduce_loops = [*taps, *(l for l in reduce_loops if l not in taps)]
        grown = [*taps, *channel_outer]
        sch.reorder(*outer, *grown, *inside, *(l for l in reduce_loops if l not in grown), *tile, *instruction)
    else:
        sch.reorder(*outer, *reduce_loops, *tile, *instruction)
    for loop in tile:
        sch.unroll(loop)
    if k("unroll", 0) and window:
        for loop in window[-k("unroll"):]:
            sch.unroll(loop)
    if "dot" not in inner:
        sch.vectorize(inner["lanes"])
    if b.separate and len(outer) > 2 and outer[-1] is tile_outer:
        sch.unroll(tile_outer)
    at = outer[-1] if outer else None
    within = outer[-2] if k("producer") == "tile" and len(outer) > 2 else None  # the last position loop: the vector blocks run inside it
    depth = max(1, len(outer) - (1 if len(outer) > 2 else 0) - (1 if within is not None else 0))
    if isinstance(k("copies"), int) and len(outer) > 2:  # rows in so many bands, each with its copies
        at_rows = outer.index(of[b.rows])
        depth = at_rows + 1
        outer[at_rows:depth] = sch.split(outer[at_rows], [k("copies"), None])
        free = [outer.index(l) for l in (vec_outer, tile_outer, of.get(b.tiles[1])) if l is not None and l in outer[:at_rows]]
        if free and dense:  # what a band copies serves all its outputs
            depth = min(free) + 1
            outer.insert(depth - 1, outer.pop(at_rows))
            sch.reorder(*outer)
        at = outer[-1]
    row_at = outer[-2] if len(outer) > 1 and within is None else None
    if band:
        depth, row_at = len(outer), at
        for name in b.producers:
            sch.compute_at(sch.get_sblock(name), taps[-1] if taps else at, preserve_unit_loops=True)
            _vectorize_last(sch, sch.get_loops(sch.get_sblock(name))[-1], b.lanes)
            done.add(name)
    if interleaved:  # steps and phases make the row
        first = min(outer.index(of[axis]) for axis, _ in store.loops[-2:])
        whole = first and all(l in [of[axis] for axis, _ in store.loops[-2:]] for l in outer[first:])
        depth, row_at = (min(depth, first), outer[first - 1]) if whole and within is None else (depth, None)
    copies = [by_name[n] for n in b.reads]
    if finish is not None:
        done.add(finish.name)
        if at is not None:
            sch.reverse_compute_at(sch.get_sblock(finish.name), at, preserve_unit_loops=True)
        ls = sch.get_loops(sch.get_sblock(finish.name))[-len(finish.loops):]
        sch.vectorize(ls[-1])
        for loop in ls[:-1] if not band else ():
            if (_extent(sch, loop) or 99) <= 32:
                sch.unroll(loop)
    if band and store is None:
        pass  # the sums are where they belong
    elif store is None or tiled and finish is None:
        local = sch.cache_write(block, 0, "global")
        if at is not None:
            sch.reverse_compute_at(local, at, preserve_unit_loops=True)
        ls = sch.get_loops(local)[-len(b.loops):]
        sch.vectorize(ls[-1])
        for loop, (axis, part) in zip(ls, b.loops):
            if part != "lanes" and (_extent(sch, loop) or 99) <= 32:
                sch.unroll(loop)
    elif tiled:
        pass  # the store surrounds the tile
    elif k("store", "row") == "row" and row_at is not None:
        out = sch.get_sblock(store.name)
        sch.reverse_compute_at(out, row_at, preserve_unit_loops=True)
        if not _turned(sch, store, b.lanes, widest):
            _vectorize_last(sch, sch.get_loops(out)[-1], b.lanes)
        done.add(store.name)
    elif k("store", "row") != "pass" and at is not None:
        out = sch.get_sblock(store.name)
        sch.reverse_compute_at(out, at, preserve_unit_loops=True)
        if not _turned(sch, store, b.lanes, widest):
            _store_tile(sch, sch.get_loops(out)[-len(store.loops):], store, b)
        done.add(store.name)
    else:
        _elementwise(sch, store, b.lanes, widest)
        done.add(store.name)
    fused = None
    if outer and not tiled:
        fused = sch.fuse(*outer[:depth])
        sch.parallel(fused)
    for copy in copies:
        if k("copies", "root") != "root" and fused is not None:
            sch.compute_at(sch.get_sblock(copy.name), fused, preserve_unit_loops=True)
            if not _turned(sch, copy, b.lanes, widest):
                _vectorize_last(sch, sch.get_loops(sch.get_sblock(copy.name))[-1], b.lanes, copy.narrow)
            done.add(copy.name)
    if within is not None:
        for name in b.producers:
            sch.compute_at(sch.get_sblock(name), within, preserve_unit_loops=True)
            ls = sch.get_loops(sch.get_sblock(name))
            _vectorize_last(sch, ls[-1], b.lanes)
            if by_name[name].loops[-2][1] == "outer" and (_extent(sch, ls[-2]) or 99) <= 8:
                sch.unroll(ls[-2])
            done.add(name)
    done.add(b.name)
    return [(b.name, reduce_loops[0], inner["lanes"] if "dot" in inner else None)] if reduce_loops else []


def _vectorize_last(sch, loop, lanes, narrow=1):
    extent = _extent(sch, loop)
    width = _width(extent, lanes, narrow)
    if width:
        if extent > width:
            _, loop = sch.split(loop, [None, width])
        sch.vectorize(loop)


def _store_tile(sch, loops, store, b):
    """Write one register tile: vectors where the output's innermost dim is the vector axis, else along the tile."""
    for loop, (axis, _) in zip(loops[:-1], store.loops[:-1]):
        if (_extent(sch, loop) or 99) <= 32 and axis != b.vec:
            sch.unroll(loop)
    _vectorize_last(sch, loops[-1], b.lanes)


def _turned(sch, b, lanes, widest) -> bool:
    """Whether a copy or store will be done by whole rows; then its loops need nothing more."""
    if b.turn is None:
        return False
    if b.kind == "copy":
        parts = [None] * (len(b.loops) - 2) + ["row", "lanes"] if b.loops[-1][1] == "lanes" else [None] * (len(b.loops) - 1) + ["row"]
        lanes = next((w for w in (lanes, lanes // 2) if b.lanes % w == 0 or b.lanes == 1), 0)
    else:
        last = ["row"] if b.turn.phases == 1 else ["row", "phase"]
        parts = ["lanes" if axis == b.vec else None for axis, _ in b.loops[:-len(last)]] + last
    return turn.mark(sch, sch.get_sblock(b.name), b.turn, parts, lanes, widest)
