"""The plan of a kernel for targets that give every thread results of its own: tiles of a block, data shared by its threads, packed parameters.

It has the form of `plan.Plan` and is lowered alike. Nothing lies in vectors: the axis that a StagePlan calls `vec` has one lane. What a block's threads share is
a staged copy, which the schedule places inside the block; everything else is read straight from memory. Extents are rounded up to whole tiles, so that no sum
needs a test for its border.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..lang import access
from ..lang.ranges import interval
from ..lang.size import tree_of
from . import plan as P, tiling
from .layout import Layout

VECTOR = 4  # elements that one instruction loads at most


@dataclass
class Tile:
    """How a block's tile lies on one axis: `threads` threads with `each` results, of which `near` are neighbours and the others lie a round of all threads apart."""

    axis: str
    threads: int
    each: int
    near: int

    @property
    def size(self) -> int:
        return self.threads * self.each


@dataclass
class Share:
    """How threads of a block share the sums of a stage: `threads` of them each take an equal part of the steps of a reduced `axis`, every so many-th step if `apart`, else a run of them."""

    axis: str
    threads: int
    apart: bool


def divided(program, stage) -> tuple:
    """(reduced axis whose steps threads may share, whether neighbouring threads take neighbouring steps): the longest that is no window, if there is one; (None, False) for none.

    Neighbouring steps are for operands that threads do not share otherwise, where these lie side by side in memory.
    """
    extents, roles = access.extents(stage), access.roles(stage)
    found, f = roles.channel or roles.window, slots(program, stage)["f"]
    beside = {n for n in found for load in stage.body.loads() if load.data[0] not in program.constants and _inner(program, load, n)}
    axis = max(found, key=lambda n: (extents[n], n in beside), default=None)
    reused = f is not None and any(not any(f in i.axes() for i in l.args) for l in stage.body.loads())
    return axis, axis in beside and not reused


def _inner(program, load, axis) -> bool:
    """Whether the steps of an axis are neighbours in the memory that a read takes."""
    spec = program.tensor(load.data[0])
    terms = access.linear(load.args[spec.permutation(program.layout)[-1] if spec is not None else -1]) if load.args else None
    return terms is not None and terms[0].get(axis) == 1


def share(program, stage, choice: dict) -> Share | None:
    """How a choice divides a stage's sums, None where a thread has its own."""
    threads = choice.get(f"{stage.name}.split", 1)
    return Share(divided(program, stage)[0], threads, divided(program, stage)[1]) if threads > 1 and not choice.get(f"{stage.name}.fused") else None


def slots(program, stage) -> dict:
    """Slot → axis of a stage's result that a block's tile spans, None for none. The other axes only count blocks."""
    extents = access.extents(stage)
    batch = {a.name for a in stage.axes if program.any_batch and tree_of(a.size) == "N"}
    free = [a.name for a in stage.axes if a.name not in batch and extents[a.name] > 1]
    spatial = set(access.roles(stage).spatial)
    loads = stage.body.loads()
    on = lambda n, load: any(n in i.axes() for i in load.args)
    periodic = [n for n in free if access.period(stage, n)]
    plain = [n for n in free if n not in spatial and n != _samples(stage)]

    def merit(n):  # parameters along it that other operands reuse; then any reuse, the first of those; then length
        reused = any(not on(n, l) for l in loads)
        return reused and any(on(n, l) and l.data[0] in program.constants for l in loads), reused and extents[n] > 3, -plain.index(n) if reused else extents[n]
    if periodic:
        f = periodic[0]
    elif plain and (spatial or any(merit(n)[1] for n in plain)):
        f = max(plain, key=merit)
    else:
        f = None
    names = [a.name for a in stage.axes]
    rest = [names[d] for d in order(program, stage, access.moved(program)) if names[d] in free and names[d] != f]
    if periodic:  # nothing is reused beside it: neighbours in memory, and many
        rest = sorted(rest[:-1], key=lambda n: extents[n]) + rest[-1:]
    else:  # what reuses an operand counts more than what lies last in memory
        rest.sort(key=lambda n: any(not on(n, l) for l in loads))
    return {"f": f, "y": rest[-2] if len(rest) > 1 else None, "x": rest[-1] if rest else None}


def _samples(stage):
    return next((a.name for a in stage.axes if tree_of(a.size) == "N"), None)


def tiles(program, stage, choice: dict, given: dict | None = None) -> list:
    """The Tiles of a stage in a choice; none for a stage without knobs or computed in another's blocks. `given`: its slots, where they are known."""
    if f"{stage.name}.data" not in choice or choice.get(f"{stage.name}.fused"):
        return []
    found, spatial, together = [], set(access.roles(stage).spatial), choice.get(f"{stage.name}.split", 1) > 1
    for slot, axis in (given or slots(program, stage)).items():
        if axis is not None:
            threads, each = (choice[f"{stage.name}.{slot}.{part}"] for part in ("threads", "each"))
            found.append(Tile(axis, threads, each, near(each, together or axis in spatial or access.period(stage, axis))))
    return found


def near(each: int, window) -> int:
    """How many of a thread's results are neighbours: all in a `window`, where neighbours meet the same elements, and where threads share sums, which they leave in one run; else what one instruction loads."""
    return each if window or each <= VECTOR or each % VECTOR else VECTOR


def shareable(stage, load) -> bool:
    """Whether a block may copy what this read takes: its positions do not depend on data, and threads or terms of a tile meet the same elements."""
    if stage.combiner is None or any(e.op == "load" for a in load.args for e in a.walk()) or _conditional(stage, load):
        return False
    extents = access.extents(stage)
    ranges = {n: (0, e - 1) for n, e in extents.items()}
    return all(map(math.isfinite, sum((interval(a, ranges) for a in load.args), ())))


def _conditional(stage, load) -> bool:
    """Whether a read stands under a condition: its position means nothing where the condition does not hold."""
    return any(e.op == "select" and any(l is load for a in e.args[1:] for l in a.loads()) for e in stage.body.walk())


def footprint(stage, load, sizes: dict, depth: dict) -> list:
    """Per dim of a read, how many positions a tile meets: `sizes` output axis → extent in the tile, `depth` reduced axis → steps at a time."""
    extents = access.extents(stage)
    ranges = {}
    for n, e in extents.items():
        size = depth.get(n, 1) if any(a.name == n for a in stage.reduce) else sizes.get(n, 1)
        ranges[n] = (0, size - 1) if size > 1 else (0, 0)
    return [hi - lo + 1 for lo, hi in (interval(a, ranges) for a in load.args)]


def depth(stage, choice: dict) -> dict:
    """Reduced axis → steps between two copies of shared data."""
    extents, roles = access.extents(stage), access.roles(stage)
    chunk = choice.get(f"{stage.name}.chunk", 0)
    steps = {a.name: extents[a.name] for a in stage.reduce}
    if chunk and roles.channel:
        steps[chunked(stage)] = chunk
    return steps


def chunked(stage) -> str | None:
    """The reduced axis that is cut into chunks: the longest that is no window."""
    extents, channel = access.extents(stage), access.roles(stage).channel
    return max(channel, key=lambda n: extents[n]) if channel else None


def make(program, choice: dict) -> P.Plan:
    """The plan that a choice means."""
    run = program.run_stages
    anchor, store = P.epilogue_of(program)
    emitted = [s for s in run if s is not store]
    packed, plans, moved = {}, {}, access.moved(program)
    for stage in emitted:
        if choice.get(f"{stage.name}.tensor"):
            plans[stage.name] = p = P.as_matrices(program, stage, choice, store=store if stage is anchor else None, is_output=stage is anchor)
            packed |= {o.name: o for o in p.operands.values() if o.kind == "packed"}
            continue
        ext = access.extents(stage)
        for tile in tiles(program, stage, choice) if stage.combiner else ():
            ext[tile.axis] = -(-ext[tile.axis] // tile.size) * tile.size
        names = [a.name for a in stage.axes]
        vec = names[-1]
        layout = Layout([ext[n] for n in names], order(program, stage, moved), len(names) - 1, 1)
        plans[stage.name] = P.StagePlan(stage, vec, 1, ext, layout, store=store if stage is anchor else None, is_output=stage is anchor,
                                        spread=tiles(program, stage, choice) if stage.combiner else [], share=share(program, stage, choice))
    for p in (p for p in plans.values() if p.matrix is None):
        for load in p.stage.body.loads():
            k = P.key(load)
            if k in p.operands:
                continue
            p.operands[k] = _operand(program, p, load, choice, plans, len(p.operands))
            if p.operands[k].kind == "packed":
                packed[p.operands[k].name] = p.operands[k]
            fill = load.data[1].fill if load.data[1] is not None else None
            if fill is not None and P.key(fill) not in p.operands:
                p.operands[P.key(fill)] = packed[f"{p.stage.name}_fill"] = _packed(program, fill, [], f"{p.stage.name}_fill", {})
    store_operands = {}
    for load in store.body.loads() if store is not None else ():
        if load.data[0] in program.constants:
            used = set().union(*(set(a.axes()) for a in load.args))
            operand = _packed(program, load, [a.name for a in store.axes if a.name in used], f"store_{load.data[0]}", access.extents(store))
            store_operands[P.key(load)] = packed[operand.name] = operand
        else:
            store_operands[P.key(load)] = P.Operand(load, "stage" if program.stage(load.data[0]) else "raw")
    return P.Plan(program, list(plans.values()), list(packed.values()), store_operands, emitted[-1] if anchor is None else None)


def order(program, stage, moved) -> list:
    """Dims of a result in memory: positions last; where data has its channels last, the longest axis that is no position after them."""
    names, extents = [a.name for a in stage.axes], access.extents(stage)
    dims = list(range(len(names)))
    spatial = [program.run_stages[-1].axes[d].name for d in program.output.spatial]
    positions = set().union(*(moved.get(stage.name, {}).get(a, set()) for a in spatial))
    if program.layout != "channels_last":
        return sorted(dims, key=lambda d: (names[d] != _samples(stage), names[d] in positions, d))
    last = max((d for d in dims if names[d] not in positions | {_samples(stage)}), key=lambda d: (extents[names[d]], d), default=dims[-1])
    return [d for d in dims if d != last] + [last]


def _packed(program, load, axes, name, extents, last=None, wide=1) -> P.Operand:
    order = [i for i, a in enumerate(axes) if a != last] + [i for i, a in enumerate(axes) if a == last]
    dtype = access.element_dtype(program, load) if load.dtype == "int" else "float32"
    return P.Operand(load, "packed", name, [("axis", a) for a in axes] or [("one",)], Layout([extents[a] for a in axes] or [1], order or [0]), dtype=dtype,
                     wide=wide if dtype == "float32" else 1)


def _operand(program, p, load, choice, plans, number) -> P.Operand:
    """How a stage reaches one read."""
    stage = p.stage
    label = f"{stage.name}_{load.data[0]}{number or ''}"
    if load.data[0] in program.constants:
        used = set().union(*(set(a.axes()) for a in load.args)) if load.args else set()
        axes = [a.name for a in stage.axes if a.name in used] + [n for n in tiling.reduce_order(program, stage, {f"{stage.name}.inner": "window"}) if n in used]
        last = _side_by_side(program, stage)
        wide = VECTOR if last in axes and any(t.axis == last and t.size % VECTOR == 0 for t in p.spread) else 1
        return _packed(program, load, axes, label, p.extents, last, wide)
    source = plans.get(load.data[0])
    if choice.get(f"{stage.name}.data") == "shared" and not choice.get(f"{stage.name}.fused") and shareable(stage, load) \
            and shared(program, stage, load, choice):
        return _shared(program, p, load, label, source, choice)
    return P.Operand(load, "raw" if source is None else "stage")


def _side_by_side(program, stage) -> str | None:
    """The axis along which neighbouring threads, or the results of one thread, take neighbouring parameters: where it reuses what the other operand gives, or lies last in memory."""
    f = slots(program, stage)["f"]
    reused = f is not None and any(not any(f in i.axes() for i in l.args) for l in stage.body.loads())
    return f if reused or program.layout == "channels_last" else None


def shared(program, stage, load, choice: dict) -> bool:
    """Whether a choice copies this read into memory that a block shares: where threads meet the same elements, not where one thread alone does."""
    sizes = {t.axis: t.size for t in tiles(program, stage, choice)}
    each = {t.axis: t.each for t in tiles(program, stage, choice)}
    steps = depth(stage, choice)
    threads = math.prod(t.threads for t in tiles(program, stage, choice))
    mine = math.prod(footprint(stage, load, each, steps))
    return threads * mine >= 2 * math.prod(footprint(stage, load, sizes, steps))


def _shared(program, p, load, label, source, choice) -> P.Operand:
    """A copy of all that a read meets, by dims of its source: channels outside, so that positions are neighbours, unless threads run along channels."""
    ranges = {n: (0, e - 1) for n, e in p.extents.items()}
    spans = [interval(a, ranges) for a in load.args]
    coords = [("dim", d, lo) for d, (lo, hi) in enumerate(spans)]
    spec = program.tensor(load.data[0])
    order = list(spec.permutation(program.layout)) if spec else list(source.layout.order)
    reduced = {a.name for a in p.stage.reduce} - set(access.roles(p.stage).window)
    deep = [d for d in order if set(load.args[d].axes()) & reduced]
    order = [d for d in order if d in deep] + [d for d in order if d not in deep] if deep else order
    batch = next((d for d in range(len(coords)) if program.any_batch and (spec.trees[d] if spec else tree_of(source.stage.axes[d].size)) == "N"), None)
    return P.Operand(load, "staged", label, coords, Layout([hi - lo + 1 for lo, hi in spans], order), batch,
                     dtype=access.element_dtype(program, load) if load.dtype == "int" else "float32", wide=_wide(program, p, load, order[-1], choice))


def _wide(program, p, load, d, choice) -> int:
    """How many elements of a shared copy one instruction may move, `d` being its innermost dim: where these are neighbours in memory, unpadded, in whole vectors."""
    spec, terms = program.tensor(load.data[0]), access.linear(load.args[d])
    if spec is None or spec.dtype != "float32" or spec.permutation(program.layout)[-1] != d or spec.shape[d] % VECTOR or terms is None or terms[1]:
        return 1
    if any(access.padding(load, d)):
        return 1
    sizes, steps = {t.axis: t.size for t in p.spread}, depth(p.stage, choice)
    span = 1 + sum(k * ((sizes | steps).get(a, 1) - 1) for a, k in terms[0].items())
    moves = [k * (sizes | steps).get(a, 1) for a, k in terms[0].items()]
    beyond = any(p.extents[a] > access.extents(p.stage)[a] for a in terms[0])
    return VECTOR if span % VECTOR == 0 and not any(m % VECTOR for m in moves) and not beyond else 1
