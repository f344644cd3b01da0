"""Which choices are not to be compiled: registers, unrolled bodies, and placements that exclude each other.

They prune before anything is compiled: an oversized tile costs LLVM half a minute.
"""

from __future__ import annotations

import math

from convgen.emit import banded, borders, dot, plan as P, tiling
from convgen.lang import access
from convgen.lang.cuts import tiles_of

from ..placement import TWICE
from . import domains

_BODY = 700  # vector operations in one unrolled body
_ROW = 1800  # and in all tiles of a row, where each has code of its own


def reason(leaf, c) -> str | None:
    """Why a choice is not to be compiled, or None."""
    tiles = tiles_of(c)
    if len(tiles) > 1 and leaf.cuts.repeated(tiles) > TWICE:
        return "tiles repeat too much work"
    reasons = (of_anchor(leaf, name, tiles, c) for name in leaf.anchors)
    return next((r for r in reasons if r), None) or (_vectors_cut(leaf, tiles, c) if tiles else None)


def of_anchor(leaf, name, tiles, c) -> str | None:
    """Why the knobs of one reduction are not to be compiled, in `tiles` of the output or (none) without, or None."""
    anchor = leaf.anchors[name]
    k = lambda knob: c[f"{name}.{knob}"]
    outside = _cut(leaf, anchor, tiles, k) if tiles else None
    checks = (_tile, _dot, _placed, _padding, _order, _copies)
    return outside or next((r for r in (check(leaf, anchor, c, k) for check in checks) if r), None)


def no_dot(leaf, anchor, k) -> str | None:
    """Why the dot product instruction cannot compute a reduction under its knobs, `k(name)`, or None."""
    program, product = leaf.program, dot.find(leaf.program, anchor.stage)
    if k("lanes") not in leaf.instructions.lanes(product.dtypes, leaf.target):
        return f"no dot product instruction has {k('lanes')} lanes here"
    data, weight = (set(tiling.vector_kinds(l, k("vec"), anchor.ext, k("lanes"))) for l in (product.data, product.weight))
    if not data <= {"free", "constant"} or "plain" not in weight or not weight <= {"free", "plain"}:
        return "the dot product instruction needs other weights in every lane, and the same data"
    if k("padding") != "stage":
        return "the dot product instruction reads padded data from a copy"
    inner = product.data.args[program.tensor(product.data.data[0]).permutation(program.layout)[-1]]
    if k("pack") == "plain" and product.axis not in inner.axes():
        return "the dot product instruction needs its channels side by side"
    if product.grouped and k("pack") == "blocked" and not k("block"):
        return "blocks of channels would span groups"
    return None


# -- tiles of the output ------------------------------------------------------------------------------------------------
def _cut(leaf, anchor, tiles, k) -> str | None:
    """Whether a reduction cannot run inside these tiles of the output."""
    s, ext, roles = anchor
    if s.name not in leaf.cuts.needs(tiles):
        return None if k("producer") == "root" else "a producer belongs to the tile of its reader"
    if k("producer") != "root" or k("copies") != "root" or k("store") != leaf.domains[f"{s.name}.store"][-1]:
        return "inside tiles of the output nothing else is placed"
    need, moved = leaf.inside(s, tiles)
    vec = k("vec")
    if vec in moved and (vec in roles.spatial or not leaf.cuts.aligned(s, vec, tiles, k("lanes"))) or need[vec] % (k("lanes") * k("vectors")):
        return "vectors reach beyond the tile of the output"
    lengths = leaf.cuts.lengths(tiles).get(s.name, {})
    for axis, tile in zip(tiling.tile_axes(leaf.program, s, vec), (k("tile1"), k("tile2"))):
        ragged = axis is not None and axis not in moved and access.period(s, axis)  # a transform's last tile may be cut off
        if axis is not None and not ragged and (need[axis] % tile or axis in moved and lengths.get(axis, ext[axis]) % tile):
            return "the register tile does not divide the tile of the output"
    return None


def _vectors_cut(leaf, tiles, c) -> str | None:
    """Whether tiles would cut through the vectors of a stage that has no knobs, or make the last vector of any reach beyond what the tile before it left."""
    plan = P.make(leaf.program, c, leaf.lanes)
    for p in plan.stages:
        if p.stage is leaf.program.run_stages[-1]:
            continue
        need, moved = leaf.inside(p.stage, tiles)
        if p.vec in moved and (need[p.vec] % p.lanes or not leaf.cuts.aligned(p.stage, p.vec, tiles, p.lanes)):
            return f"tiles cut through the vectors of {p.stage.name}"
        if p.vec in moved and p.layout.blocks * p.lanes > p.extents[p.vec]:
            for load in p.stage.body.loads():
                source = plan.stage(load.data[0])
                if source is not None and any(p.vec in i.axes() and a.name != source.vec for a, i in zip(source.stage.axes, load.args)):
                    return f"the last vector of {p.stage.name} reads beyond what a tile has"
    return None


# -- one reduction ------------------------------------------------------------------------------------------------------
def _tile(leaf, anchor, c, k) -> str | None:
    """Register tile and body."""
    s, ext, roles = anchor
    axis1, axis2 = tiling.tile_axes(leaf.program, s, k("vec"))
    if any(t not in domains.tiles(s, ext, a) for a, t in ((axis1, k("tile1")), (axis2, k("tile2")))):
        return "the tile wastes too much of its axis"
    acc = k("tile1") * k("tile2") * k("vectors")
    # one vector: the other operand's numbers are read by the multiply-adds; several: LLVM first loads the numbers of all pixels into registers
    beside = acc // k("vectors") if k("vectors") > 1 and roles.channel and not c.get(f"{s.name}.dot") else k("vectors")
    if k("tile2") > 1 and roles.channel and k("vec") in roles.plain and axis2 == tiling.row_phase(leaf.program, s):
        beside = k("tile1") + k("tile2") * k("vectors")  # phases meet the same numbers
    if acc + beside + 1 > leaf.registers:
        return f"{acc} accumulators do not fit {leaf.registers} registers beside their operands"
    if acc < min(4, ext.get(axis1, 1) * ext.get(axis2, 1)):
        return "too few accumulators to hide latency"
    if k("lanes") > leaf.lanes or (k("vectors") - 1) * k("lanes") >= ext[k("vec")]:
        return "vectors reach beyond the axis"
    if k("inner") == "slide" and (tiling.slide(leaf.program, s, k("vec")) is None or k("tile1") == 1 or not k("unroll")):
        return "the register tile does not slide along a window"
    body = _body(leaf, anchor, c)
    if body > _BODY:
        return f"unrolled body of {body} operations"
    if k("order") == "position" and k("producer") != "tile" and ext[k("vec")] <= k("lanes") * k("vectors"):
        return "with one block of vectors the order says nothing"
    return None


def _body(leaf, anchor, c) -> int:
    """Vector operations in the unrolled body of one tile."""
    s, ext, roles = anchor
    steps = math.prod(c[f"{s.name}.{k}"] for k in ("tile1", "tile2", "vectors"))
    return steps * math.prod(ext[a] for a in (*tiling.unrolled(leaf.program, s, c), *roles.table))


def _dot(leaf, anchor, c, k) -> str | None:
    return no_dot(leaf, anchor, k) if c.get(f"{anchor.name}.dot") else None


def _placed(leaf, anchor, c, k) -> str | None:
    """Copies where there are none, and where producers run."""
    s, ext, roles = anchor
    if k("copies") != "root" and k("padding") != "stage" and k("pack") == "plain" and k("vec") not in roles.spatial and leaf.program.layout == "channels_last":
        return "there are no copies to place"
    if k("producer") == "tile" and k("order") != "position":
        return "a producer inside the tile would run again for every vector block"
    if band := banded.columns(s.name, c):
        found = tiling.columns(leaf.program, s, k("vec"))
        if found is None or not domains.band_fits(band, ext[found[0]]) or band % k("tile2"):
            return "there are no such bands to produce columns for"
        if k("order") != "vector" or c.get(f"{s.name}.dot") or k("copies") != "root" or k("store") == "tile" and "row" in leaf.domains[f"{s.name}.store"]:
            return "the sums of a band are stored together"
    return None


def _padding(leaf, anchor, c, k) -> str | None:
    """Padding that is not copied."""
    s, ext, roles = anchor
    if k("padding") == "inline" and k("vec") in roles.spatial:
        return "padding cannot be inlined along the vector axis"
    if k("padding") == "skip":
        row = borders.row_axis(leaf.program, s, c)
        if row is not None and _body(leaf, anchor, c) * -(-ext[row] // k("tile1")) > _ROW:
            return "too much code for the tiles of one row"
        if not leaf.left_out(s, c):
            return "with this tile no term could be left out"
    return None


def _order(leaf, anchor, c, k) -> str | None:
    """Rows, and bands of tiles."""
    s, ext, _ = anchor
    if k("store") == "row" and k("order") == "position":
        return "a row is complete only when the vector blocks are outside"
    if count := banded.tiles(s.name, c):
        axis = tiling.tile_axes(leaf.program, s, k("vec"))[0]
        if axis is None or -(-ext[axis] // k("tile1")) % count or tiling.row_phase(leaf.program, s) is not None:
            return "there are no such bands of tiles"
        if k("copies") != "root" or k("producer") != "root" or k("store") == "row":
            return "bands of tiles have neither copies nor whole rows of their own"
    return None


def _copies(leaf, anchor, c, k) -> str | None:
    """Bands of rows, and copies that would be made again and again."""
    s, ext, roles = anchor
    if count := banded.rows(s.name, c):
        axis1, axis2 = tiling.tile_axes(leaf.program, s, k("vec"))
        rows = roles.spatial[-2]
        steps = -(-ext[rows] // {axis1: k("tile1"), axis2: k("tile2")}.get(rows, 1))
        if k("order") == "position" or k("producer") == "tile" or k("vec") == rows or steps % count or count == steps > 1:
            return "there are no such bands of rows"
        if anchor.dense and tiling.row_phase(leaf.program, s) is not None:
            return "bands do not part rows whose phases take turns"
    if k("copies") == "outer" and k("order") == "position" and not roles.channel and ext[k("vec")] > 4 * k("lanes"):
        return "copies would be repeated for every vector"
    if k("copies") == "outer" and k("order") == "vector" and roles.channel and ext[k("vec")] > 4 * k("lanes") * k("vectors"):
        return "copies would be repeated for every output channel block"
    return None
