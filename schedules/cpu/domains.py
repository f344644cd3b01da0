"""Which values the knobs of a reduction have: vector axes in the order of their merit, tiles that waste little, and placements that its reads allow."""

from __future__ import annotations

import math

from convgen.emit import borders, dot, plan as P, tiling
from convgen.lang import access, count
from convgen.lang.size import tree_of

_PADDING = 0.06  # the share of terms in the padding from which on leaving them out is worth a try
LINE = 64  # bytes that caches hold and hand each other as one
_BORDER = 0.08  # the share of terms in the padding from which on leaving them out saves more than sliding
PAGE = 4096  # addresses this far apart fall into one set of the first cache
_FEW_TERMS, _CROWDING = 160, 2.0  # of a sum that storing far apart outlasts; more than any other merit of an axis
_MANY_TERMS, _BOTH = 16, 0.5  # of a sum in which multiply-adds of two vectors from memory take longer than turning the data first
_BANDS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16)  # steps of the output that columns may be produced for together
_SHARES = (2, 4, 8, 16, 32)  # into which the tiles along one axis can be cut
_FEW = 4  # steps of other axes, which threads cannot well share
_FILLED = 1.1  # lanes over positions up to which vectors that have to be picked are worth it
_COPIED = 3  # their numbers over those of the rows they are picked from
_TILES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 14, 16, 20, 24, 28)


def of(leaf, anchor) -> dict:
    """Knob → values of one reduction."""
    program, (s, ext, roles) = leaf.program, anchor
    vecs = _vector_axes(leaf, anchor)
    axes = [tiling.tile_axes(program, s, v) for v in vecs]
    found = {
        "vec": vecs,
        "lanes": _widths(leaf, anchor, vecs),
        "tile1": sorted({t for a, _ in axes for t in tiles(s, ext, a)}),
        "tile2": sorted({t for _, a in axes for t in tiles(s, ext, a) if t <= 8}),
        "vectors": _vectors(leaf, anchor, vecs),
        "order": ["vector", "position", *_shares(program, anchor, vecs, axes)],
        "block": _blocks(anchor),
        "inner": ["channel", *(["window"] if anchor.dense and roles.window else []), *(["slide"] if any(tiling.slide(program, s, v) for v in vecs) else [])],
        "unroll": list(range(min(len(roles.window), 2) + 1)),
        "padding": _paddings(program, anchor),
        "pack": ["plain", "blocked"] if anchor.dense else ["plain"],
        "copies": ["root", "outer", *_row_bands(anchor)],
        "producer": _producers(program, anchor, vecs),
    }
    product = dot.find(program, s)
    if product is not None and leaf.instructions.lanes(product.dtypes, leaf.target):
        found["dot"] = [True, False]
    return found | {"store": _stores(program, s)}


def tiles(s, ext, axis) -> list:
    """Tile sizes: divisors, and a few others that waste little of the last tile; an axis of constant coefficients in whole periods."""
    extent = ext.get(axis, 1)
    step = axis and access.period(s, axis)
    if step:
        return [t for t in range(step, 29, step) if t == step or -(-extent // t) * t <= 1.15 * extent] or [step]
    good = [t for t in _TILES if t <= extent and (extent % t == 0 or (-(-extent // t) * t - extent) / extent <= 0.15)]
    return good or [1]


def band_fits(band: int, steps: int) -> bool:
    """Whether bands of so many steps waste little of the last one."""
    return band <= steps and -(-steps // band) * band <= 1.1 * steps


# -- vectors ------------------------------------------------------------------------------------------------------------
def _vector_axes(leaf, anchor) -> list:
    """The two best axes to vectorise, the better one first, and one whose vectors the copy of what a dense sum reads has to pick."""
    program, (s, ext, roles) = leaf.program, anchor
    out = [a.name for a in s.axes]
    batch = {a.name for a in s.axes if program.any_batch and tree_of(a.size) == "N"}
    distant = roles.spatial[:-1]  # only the last position can be contiguous
    vecs = [a for a in out if a not in batch and a not in distant and _vectorisable(s, a, ext, leaf.lanes)]
    vecs = vecs or [next(a for a in reversed(out) if a not in batch)]
    vecs.sort(key=lambda a: leaf.drawback(anchor, a) - _merit(leaf, anchor, a))
    return vecs[:2] + [a for a in out if a not in batch and a not in distant and a not in vecs and spaced(leaf, anchor, a)]


def spaced(leaf, anchor, axis) -> bool:
    """Whether vectors along an axis are dense, but for a copy not much larger than what it is of."""
    (s, ext, _), lanes = anchor, leaf.lanes
    found = [(l, tiling.spacing(leaf.program, s, l, axis)) for l in s.body.loads() if axis in {a for i in l.args for a in i.axes()}]
    if not anchor.dense or len(found) != 1 or found[0][1] is None:
        return False
    step, tap, _, _ = found[0][1]
    return -(-ext[axis] // lanes) * lanes <= _FILLED * ext[axis] and ext.get(tap, 1) <= _COPIED * step


def _widths(leaf, anchor, vecs) -> list:
    longest = max(anchor.ext[v] for v in vecs)
    lanes = sorted({min(n, leaf.lanes) for n in (leaf.lanes, leaf.lanes // 2)}, reverse=True)
    if longest < leaf.lanes:
        lanes = [max(2, min(leaf.lanes, 1 << (longest - 1).bit_length()))]
    # first the width whose vectors meet whole vectors everywhere: a channel map c % 24 has runs of 8, not of 16
    lanes.sort(key=lambda width: sum("other" in tiling.vector_kinds(l, vecs[0], anchor.ext, width) for l in anchor.stage.body.loads()))
    return lanes


def _vectors(leaf, anchor, vecs) -> list:
    """How many vectors a tile may have side by side; five where in twos and fours a vector in six would be empty."""
    longest = max(anchor.ext[a] for a in vecs)
    five = anchor.dense and any(v not in anchor.roles.spatial and -(-anchor.ext[v] // leaf.lanes) == 5 for v in vecs)
    return [v for v in (1, 2, 4) if v == 1 or v * leaf.lanes // 2 <= longest] + [5] * five


def _vectorisable(s, axis, ext, lanes) -> bool:
    loads = s.body.loads()
    if ext[axis] < 2:
        return False
    if any(axis in a.axes() and any(x.op == "load" for x in a.walk()) for l in loads for a in l.args):
        return False
    if any(e.op == "table" and axis in e.axes() for e in s.body.walk()):
        return False  # every lane would pick its own constant by comparisons, which take LLVM half a minute
    for l in loads:
        for index, kind in zip(l.args, tiling.vector_kinds(l, axis, ext, lanes)):
            if kind == "other" and not (set(index.axes()) & {r.name for r in s.reduce} == set()):
                terms = access.linear(index)
                if terms is not None:  # a strided window: every lane would need its own cache line
                    return False
    return True


def _merit(leaf, anchor, axis) -> float:
    """How good an axis is to vectorise: whole vectors first, then contiguous reads, then reuse of the other operand."""
    program, (s, ext, roles) = leaf.program, anchor
    blocks = -(-ext[axis] // leaf.lanes)
    merit = 4.0 * ext[axis] / (blocks * leaf.lanes)
    for l in s.body.loads():
        kinds = tiling.vector_kinds(l, axis, ext, leaf.lanes)
        spec = program.tensor(l.data[0])
        if all(k in ("free", "constant") for k in kinds):
            merit += 1.0
        elif spec is not None and spec.kind == "input":
            inner = spec.permutation(program.layout)[-1]
            merit += 1.0 if kinds[inner] in ("plain", "window") else 0.2 - _turning(leaf, anchor, l, inner)
        else:
            lanes = _lanes_of(leaf, l.data[0])
            merit += 0.9 if lanes is None or kinds[lanes] in ("plain", "window", "run") else 0.2
    if math.prod(ext[a.name] for a in s.reduce) >= _MANY_TERMS and all(_given(program, l) and _moves(l, axis, ext, leaf.lanes) for l in s.body.loads()):
        merit -= _BOTH
    return merit + (0.5 if axis in roles.plain else 0.0) - (_CROWDING if _crowds_sets(program, anchor, axis) else 0.0)


def _given(program, load) -> bool:
    """Whether a read is of a tensor that changes from call to call."""
    spec = program.tensor(load.data[0])
    return spec is not None and spec.kind == "input"


def _moves(load, axis, ext, lanes) -> bool:
    """Whether every lane of a read along an axis has a number of its own."""
    return any(k not in ("free", "constant") for k in tiling.vector_kinds(load, axis, ext, lanes))


def _turning(leaf, anchor, load, inner) -> float:
    """What turning the rows of a read into vectors across them costs beside few terms, where vectors along these rows could slide and little of the window is padding, which only tiles along rows leave out."""
    s, ext, roles = anchor
    fits = lambda a: a in roles.spatial and ext[a] > leaf.lanes and not anchor.both(a) and _vectorisable(s, a, ext, leaf.lanes) and tiling.slide(leaf.program, s, a)
    slides = leaf.slides and not anchor.dense and any(map(fits, load.args[inner].axes())) and borders.in_padding(leaf.program, s) < _BORDER
    return 4.0 / math.prod(ext[a] for a in roles.window) if slides else 0.0


def _crowds_sets(program, anchor, axis) -> bool:
    """Whether a sum of few terms would store vectors number by number whole pages apart: all meet in the same few lines of a cache, which takes longer than the sum."""
    s, ext, out = anchor.stage, anchor.ext, program.output
    order = [s.axes[d].name for d in out.permutation(program.layout)] if len(s.axes) == len(out.shape) else []
    if P.epilogue_of(program)[0] is not s or axis not in order[:-1] or not anchor.dense:
        return False
    apart = count.BYTES[out.dtype] * math.prod(ext[a] for a in order[order.index(axis) + 1:])
    return apart % PAGE == 0 and math.prod(ext[a.name] for a in s.reduce) <= _FEW_TERMS


def _lanes_of(leaf, name):
    """The dim of an earlier result along which its vectors probably lie, seen through maps, or None."""
    s = leaf.program.stage(name)
    if s is None:
        return None
    axes = [a.name for a in s.axes]
    if f"{name}.vec" in leaf.domains:
        return axes.index(leaf.domains[f"{name}.vec"][0])
    for l in s.body.loads() if s.combiner is None else ():
        lanes = _lanes_of(leaf, l.data[0])
        if lanes is not None and l.args[lanes].op == "axis":
            return axes.index(l.args[lanes].data)
    return None


# -- loops and placements -----------------------------------------------------------------------------------------------
def _shares(program, anchor, vecs, axes) -> list:
    """How many bands the tiles along one axis may be cut into, where that axis is all that threads can share."""
    s, ext = anchor.stage, anchor.ext
    if not anchor.dense or P.epilogue_of(program)[0] is not s:
        return []
    alone = [ext[a] for v, (a, _) in zip(vecs, axes) if a is not None and math.prod(ext[x.name] for x in s.axes if x.name not in (v, a)) < _FEW]
    return [b for b in _SHARES if 4 * b <= max(alone, default=0)]


def _blocks(anchor) -> list:
    channel = max((anchor.ext[c] for c in anchor.roles.channel), default=0)
    return [0, *(b for b in (8, 16, 32, 64) if b < channel and channel % b == 0)] if anchor.dense else [0]


def _paddings(program, anchor) -> list:
    s = anchor.stage
    if not any(access.padded(l) for l in s.body.loads()):
        return ["stage"]
    skip = anchor.roles.window and _PADDING <= borders.in_padding(program, s) < 1
    return ["stage", "inline", *(["skip"] if skip else [])]


def _row_bands(anchor) -> list:
    """How many bands the rows may be shared out in, each of which copies what it needs."""
    rows = anchor.roles.spatial[-2:-1]
    return [b for b in (1, 2, 4, 8) if rows and len(anchor.stage.axes) > 3 and b <= anchor.ext[rows[0]] and not (anchor.dense and b == 1)]


def _producers(program, anchor, vecs) -> list:
    """Where the maps that the reduction reads may run: on their own, in its tiles, or column by column for bands of its output."""
    s, ext = anchor.stage, anchor.ext
    made = {x.name for x in program.run_stages}
    producers = {l.data[0] for l in s.body.loads()} & made
    maps = all(program.stage(n).combiner is None and not any(o.data[0] in producers for o in program.stage(n).body.loads()) for n in producers)
    movable = producers and maps and sum(1 for x in program.run_stages for l in x.body.loads() if l.data[0] in producers) == len(producers)
    bands = [found for v in vecs if (found := tiling.columns(program, s, v)) is not None] if anchor.dense else []
    return ["root", *(["tile"] if movable and len(s.axes) > 2 else []), *(t for t in _BANDS if any(band_fits(t, ext[rows]) for rows, _ in bands))]


def _stores(program, s) -> list:
    anchor, store = P.epilogue_of(program)
    if anchor is not s:
        return ["tile"]
    made = {x.name for x in program.run_stages}
    # a store that also reads another stage's result cannot move into this one's tiles
    alone = store is None or {e.data[0] for e in store.body.loads()} & made <= {s.name}
    return ["tile", "row", "pass"] if alone else ["pass"]
