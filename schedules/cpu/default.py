"""A decent choice without measuring: whole tiles that nearly fill the registers, staged padding, enough parallel work."""

from __future__ import annotations

import itertools
import math

from convgen.emit import banded, dot, plan as P, tiling
from convgen.lang import access, count
from convgen.lang.cuts import tiles_of

from . import bands, cutting, domains, limits, tile

_MANY = 16  # outputs for which vectors of what they read are picked in little time
_NARROW = 8  # lines of a position's results of which one that two threads write is too many


def default(leaf) -> dict:
    """The default of one algorithm."""
    tiles = cutting.default(leaf)
    c = within(leaf, tiles)
    return c if not tiles or limits.reason(leaf, c) is None else within(leaf, {})


def within(leaf, tiles) -> dict:
    """The default with these tiles of the output."""
    c = {n: v[0] for n, v in leaf.domains.items()}
    for anchor in reversed(leaf.anchors.values()):  # the vectors of a dense stage, which reads numbers, and of a transform lie as their reader takes them
        wanted = _taken(leaf.program, anchor.stage, c) if anchor.dense or anchor.roles.table else None
        if wanted in leaf.domains[f"{anchor.name}.vec"]:
            c[f"{anchor.name}.vec"] = wanted
    c |= {f"cut.{a}": size for a, size in tiles.items()}
    for anchor in leaf.anchors.values():
        ext, moved = leaf.inside(anchor.stage, tiles)
        anchor = anchor._replace(ext=ext)
        c = _inside(leaf, anchor, moved, c) if tiles and anchor.name in leaf.cuts.needs(tiles) else _producer(leaf, anchor, c)
        for step in (_vector, _data, _instruction, _taps):
            c = step(leaf, anchor, c)
        trials = [(tile.score(leaf, anchor, t) / (1 - leaf.left_out(anchor.stage, t)), t) for t in _tiled(leaf, anchor, tiles, c)]
        c = tile.stored(leaf, anchor, tiles, trials) if trials else c | {f"{anchor.name}.tile1": 1, f"{anchor.name}.tile2": 1}
        c = bands.of_rows(leaf, anchor, tiles, c)
        c = _apart(leaf, anchor, tiles, c)
        if c[f"{anchor.name}.order"] == "vector" and not tiles:
            c = bands.of_tiles(leaf, anchor, c)
    return c if tiles or leaf.target["threads"] == 1 else _handed_on(leaf, c)


# -- one reduction after the other: each step returns the choice with some of its knobs set ------------------------------
def _inside(leaf, anchor, moved, c) -> dict:
    """Vectors that do not reach beyond the tile of the output; `moved`: axes that move with it."""
    s, ext, roles = anchor
    vec, store = f"{s.name}.vec", f"{s.name}.store"
    whole = [v for v in leaf.domains[vec] if not (v in moved and v in roles.spatial) and ext[v] % c[f"{s.name}.lanes"] == 0]
    return c | {vec: c[vec] if c[vec] in whole or not whole else whole[0], store: leaf.domains[store][-1]}


def _producer(leaf, anchor, c) -> dict:
    """Where the maps run that the reduction reads."""
    s, ext, roles = anchor
    n, values = s.name, leaf.domains[f"{s.name}.producer"]
    if steps := bands.of_columns(leaf, anchor, c):
        stores = leaf.domains[f"{n}.store"]
        return c | {f"{n}.producer": steps, f"{n}.store": "row" if "row" in stores else stores[-1]}
    if "tile" not in values:
        return c
    if not (roles.window and "inline" in leaf.domains[f"{n}.padding"]):
        weights = anchor.bytes_along(c[f"{n}.vec"]) if anchor.dense and c[f"{n}.vec"] not in roles.spatial else 0
        # tile by tile, all weights pass: for one row of tiles after the other from where they are, if the second-level cache does not hold them
        return c if weights > leaf.target["l2"] / 2 else c | {f"{n}.producer": "tile", f"{n}.order": "position"}
    # reads what its producer left, border and all: one tile would produce most of what its neighbours do
    return c | {f"{n}.order": "position"} if ext[c[f"{n}.vec"]] > c[f"{n}.lanes"] else c


def _vector(leaf, anchor, c) -> dict:
    """Vectors along the output's rows, picked from rows of few channels that many outputs read: nothing is turned then, and every line of the output is written once."""
    s, ext, roles = anchor
    picked = [v for v in leaf.domains[f"{s.name}.vec"] if leaf.picks and domains.spaced(leaf, anchor, v)]
    if not picked or tiles_of(c) or math.prod(ext[a] for a in roles.channel) > tile.SHORT or leaf.program.layout != "channels_first":
        return c
    bands = any(ext[roles.spatial[-2]] % b == 0 for b in banded.numbers(leaf.domains[f"{s.name}.copies"])) if len(roles.spatial) > 1 else False
    return c | {f"{s.name}.vec": picked[0]} if bands and math.prod(ext[a] for a in roles.plain) >= _MANY else c


def _data(leaf, anchor, c) -> dict:
    """How a dense reduction's data lies, and in what blocks of channels it is summed up."""
    s, _, roles = anchor
    if not anchor.dense:
        return c
    blocks = [b for b in leaf.domains[f"{s.name}.block"] if b]
    block = 16 if 16 in blocks else (blocks[-1] if blocks else 0)
    # without a border the data can be read where it is
    plain = c[f"{s.name}.vec"] not in roles.spatial and "inline" not in leaf.domains[f"{s.name}.padding"] and leaf.readable(s)
    return c | {f"{s.name}.pack": "plain" if plain else "blocked", f"{s.name}.block": 0 if banded.columns(s.name, c) else block}  # the sums of a band leave their registers once per tap


def _instruction(leaf, anchor, c) -> dict:
    """The dot product instruction, where there is one for what this reduction reads."""
    n = anchor.name
    if not c.get(f"{n}.dot"):
        return c
    product, lanes = dot.find(leaf.program, anchor.stage), leaf.domains[f"{n}.lanes"]
    c = c | {f"{n}.lanes": next((l for l in lanes if l in leaf.instructions.lanes(product.dtypes, leaf.target)), c[f"{n}.lanes"]),
             f"{n}.pack": "plain" if leaf.program.layout == "channels_last" else "blocked"}  # channels side by side
    fits = lambda vec: limits.no_dot(leaf, anchor, lambda knob: vec if knob == "vec" else c[f"{n}.{knob}"]) is None
    vec = next((v for v in leaf.domains[f"{n}.vec"] if fits(v)), c[f"{n}.vec"])
    blocks = not fits(vec) or c[f"{n}.pack"] == "blocked" and product.grouped
    return c | {f"{n}.vec": vec, f"{n}.dot": fits(vec), f"{n}.block": c[f"{n}.block"] if blocks else 0}


def _taps(leaf, anchor, c) -> dict:
    """How many axes of a window are unrolled, and whether its border is tested where it is met."""
    s, _, roles = anchor
    unrolls = leaf.domains[f"{s.name}.unroll"]
    # taps of dot products side by side in one body would keep every broadcast in a register, and few channels are unrolled anyway
    unroll = 1 if 1 in unrolls and not c.get(f"{s.name}.dot") and not domains.spaced(leaf, anchor, c[f"{s.name}.vec"]) else 0
    blocked = leaf.program.layout == "channels_last" or all(leaf.program.stage(l.data[0]) is not None for l in s.body.loads() if l.data[1])
    inline = not anchor.dense and "inline" in leaf.domains[f"{s.name}.padding"] and c[f"{s.name}.vec"] not in roles.spatial and blocked
    if inline and 2 in unrolls and _dilated(s, roles):
        unroll = 2
    return c | {f"{s.name}.unroll": unroll} | ({f"{s.name}.padding": "inline"} if inline else {})  # the border's tests are the same for all lanes: cheaper than a copy


def _tiled(leaf, anchor, tiles, c):
    """The choice with every register tile that may be compiled, and with terms in the padding left out where they can be."""
    n, values = anchor.name, leaf.domains
    vec = c[f"{n}.vec"]
    slides = leaf.slides and c[f"{n}.unroll"] and not anchor.dense and not anchor.both(vec) and tiling.slide(leaf.program, anchor.stage, vec) is not None
    for padding in [c[f"{n}.padding"], *(p for p in values[f"{n}.padding"] if p == "skip")]:
        for t1, t2, v in itertools.product(*(values[f"{n}.{k}"] for k in ("tile1", "tile2", "vectors"))):
            trial = c | {f"{n}.padding": padding, f"{n}.tile1": t1, f"{n}.tile2": t2, f"{n}.vectors": v}
            if padding == "skip" and anchor.dense:
                if t2 > 1:
                    continue  # rows of one tile would leave out different terms
                if leaf.program.layout == "channels_last" and c[f"{n}.vec"] not in anchor.roles.spatial:
                    trial[f"{n}.pack"] = "plain"  # nothing is left to copy for
            if slides and t1 > 1:
                trial[f"{n}.inner"] = "slide"
            for trial[f"{n}.unroll"] in range(c[f"{n}.unroll"], -1, -1):
                if limits.of_anchor(leaf, n, tiles, trial) is None and not tile.crowded(leaf, anchor, trial):
                    yield trial
                    break


def _apart(leaf, anchor, tiles, c) -> dict:
    """Positions shared out instead of vector blocks where those of two threads would meet in lines of memory."""
    n, own = anchor.name, c | {f"{anchor.name}.order": "position"}
    if anchor.dense and anchor.roles.window or not _shares_lines(leaf, anchor, c):
        return c
    as_much = limits.of_anchor(leaf, n, tiles, own) is None and leaf.left_out(anchor.stage, own) == leaf.left_out(anchor.stage, c)
    return own if as_much else c


def _handed_on(leaf, c) -> dict:
    """A choice in which threads that share out positions read what they wrote themselves: the stages before do so, too, if their weights pass the first cache for every tile."""
    for anchor in reversed(leaf.anchors.values()):
        n, reader = anchor.name, _reader(leaf.program, anchor.stage)
        early = reader is not None and c.get(f"{reader.name}.order") == "position" and c[f"{n}.order"] == "vector" and not anchor.roles.window
        if early and anchor.bytes_along(c[f"{n}.vec"]) <= leaf.target["l1"]:
            own = c | {f"{n}.order": "position"}
            c = own if limits.of_anchor(leaf, n, {}, own) is None else c
    return c


# -- what is asked of the program ---------------------------------------------------------------------------------------
def _taken(program, s, c):
    """The axis of `s` along which the one stage that reads it, seen through maps, has its vectors, or None."""
    readers = [(x, l) for x in program.run_stages for l in x.body.loads() if l.data[0] == s.name]
    if not readers or any(x is not readers[0][0] for x, _ in readers):
        return None
    reader, load = readers[0]
    vec = c.get(f"{reader.name}.vec") or (_taken(program, reader, c) if reader.combiner is None else None)
    return next((a.name for a, index in zip(s.axes, load.args) if index.op == "axis" and index.data == vec), None)


def _reader(program, s):
    """The one reduction that reads a stage's result, seen through maps, or None."""
    readers = [x for x in program.run_stages if any(l.data[0] == s.name for l in x.body.loads())]
    return None if len(readers) != 1 else readers[0] if readers[0].combiner else _reader(program, readers[0])


def _dilated(s, roles) -> bool:
    """Whether neighbouring taps of a row meet inputs that are not neighbours."""
    last = roles.window[-1] if roles.window else None
    terms = [access.linear(i) for l in s.body.loads() for i in l.args if last in i.axes() and len(i.axes()) > 1]
    return any(t is not None and abs(t[0].get(last, 1)) > 1 for t in terms)


def _shares_lines(leaf, anchor, c) -> bool:
    """Whether threads that share out the vector blocks write into the same lines of memory, which costs more than what they compute, and there are positions enough to share out."""
    s, ext, _ = anchor
    n, threads, out = s.name, leaf.target["threads"], leaf.program.output
    inner, vec = out.permutation(leaf.program.layout)[-1], c[f"{n}.vec"]
    if threads == 1 or P.epilogue_of(leaf.program)[0] is not s or len(s.axes) <= inner or s.axes[inner].name != vec:
        return False
    size, block = count.BYTES[out.dtype], c[f"{n}.lanes"] * c[f"{n}.vectors"]
    blocks = -(-ext[vec] // block)
    own = block * (1 if blocks % threads else blocks // threads)  # what lies between two threads' parts of a position
    shared = own * size % domains.LINE > 0 or ext[vec] * size % domains.LINE > 0
    tiles = math.prod(ext[a.name] for a in s.axes if a.name != vec) // (c[f"{n}.tile1"] * c[f"{n}.tile2"])
    return blocks > 1 and shared and ext[vec] * size <= _NARROW * domains.LINE and tiles >= 8 * threads
