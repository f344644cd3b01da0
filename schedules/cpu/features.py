"""What a cost model may know of a choice, as numbers."""

from __future__ import annotations

import math

from convgen.emit import banded, plan as P, tiling
from convgen.lang.cuts import tiles_of

_HEAVIEST = 2  # reductions that have features of their own
_OF_ANCHOR = ["taps", "channel", "extent1", "extent2", "extent_vec", "tile1", "tile2", "vectors", "lanes", "accumulators", "intensity", "waste", "l1", "staged", "body", "position",
              "window_inner", "slide", "inline", "blocked", "local_copies", "bands", "pass", "row", "spatial_vec", "block", "unroll", "channels_last", "left_out", "dot", "columns", "tile_bands"]
NAMES = ["log_flops", "log_bytes", "log_staged", "anchors", "log_tile", "log_trips", "repeated", *(f"{i}.{f}" for i in range(_HEAVIEST) for f in _OF_ANCHOR)]


def of(leaf, c) -> list:
    """The features of a choice, as NAMES has them."""
    program, cuts, tiles = leaf.program, leaf.cuts, tiles_of(c)
    plan = P.make(program, c, leaf.lanes)
    row = [math.log(program.flops + 1), math.log(program.bytes + 1), math.log(P.staged_bytes(plan) + 1), len(leaf.anchors)]
    row += [math.log(cuts.bytes(tiles) + 1), math.log(cuts.trips(tiles)), cuts.repeated(tiles) if tiles else 1.0]
    heaviest = sorted(leaf.anchors.values(), key=lambda anchor: anchor.stage.flops, reverse=True)
    for i in range(_HEAVIEST):
        row += _of_anchor(leaf, heaviest[i], c, plan) if i < len(heaviest) else [0.0] * len(_OF_ANCHOR)
    return [float(v) for v in row]


def _of_anchor(leaf, anchor, c, plan) -> list:
    s, ext, roles = anchor
    k = lambda n: c[f"{s.name}.{n}"]
    p = plan.stage(s.name)
    t1, t2, v, lanes = k("tile1"), k("tile2"), k("vectors"), k("lanes")
    acc = t1 * t2 * v
    taps, channel = math.prod(ext[w] for w in roles.window), math.prod(ext[a] for a in roles.channel)
    e1, e2 = (ext.get(a, 1) for a in tiling.tile_axes(leaf.program, s, k("vec")))
    blocks = -(-ext[k("vec")] // lanes)
    waste = (-(-e1 // t1) * t1 / e1) * (-(-e2 // t2) * t2 / e2) * (-(-blocks // v) * v * lanes / ext[k("vec")])
    depth = (k("block") or channel or 1) * taps
    l1 = 4 * depth * (v * lanes + t1 * t2) / leaf.target["l1"]
    staged = sum(math.prod(o.layout.shape) for o in p.operands.values() if o.kind == "staged")
    unroll = math.prod(ext[w] for w in tiling.unrolled(leaf.program, s, c))
    return [math.log(taps), math.log(channel + 1), math.log(e1), math.log(e2), math.log(ext[k("vec")]), t1, t2, v, lanes, acc, acc / (t1 * t2 + v), waste, math.log(l1 + 1e-6),
            math.log(staged + 1), math.log(acc * unroll), k("order") == "position", k("inner") == "window", k("inner") == "slide", k("padding") == "inline", k("pack") == "blocked", k("copies") != "root",
            math.log1p(banded.rows(s.name, c)), k("store") == "pass", k("store") == "row", k("vec") in roles.spatial, k("block"), k("unroll"),
            leaf.program.layout == "channels_last", leaf.left_out(s, c), bool(c.get(f"{s.name}.dot")), math.log1p(banded.columns(s.name, c)), math.log(banded.tiles(s.name, c) or 1)]
