"""How the knobs of processors shape the loops of a PrimFunc. Written against the roles on the blocks."""

from __future__ import annotations

from tvm import s_tir

from convgen.emit import banded
from convgen.lang.cuts import tiles_of
from . import across, columns, elementwise, loops as L, places, reads, store, terms, turn
from .nest import Nest


def apply(module, blocks, choice: dict, lanes: int, intrinsics):
    """The scheduled module. `blocks`: the lowering's Blocks in order; `lanes`: of the target's vectors; `intrinsics()`: the family's module of tensor intrinsics.

    Raises whatever TVM raises for an impossible choice.
    """
    sch = s_tir.Schedule(module)
    by_name = {b.name: b for b in blocks}
    done, nests, maps, sums = set(), [], [], []
    cut = tiles_of(choice)
    tiled = _cut(sch, blocks, cut, lanes) if cut else set()
    done |= tiled & {blocks[-1].name}
    for b in reversed(blocks):  # consumers first, so that copies find the loops they are placed in
        if b.name in done or b.kind == "copy":
            continue
        if b.kind == "reduce":
            finish, out = (next((s for s in blocks if s.kind == kind and s.stage == b.stage), None) for kind in ("finish", "store"))
            finish = finish or next((m for m in maps if m.finishes == b.stage), None)
            nests.append(Nest(sch, b, finish, out, choice, b.name in tiled))
            done |= _reduce(nests[-1], by_name, lanes)
        elif b.kind == "map" and _of_registers(b, choice, tiled):
            maps.append(b)
        elif b.kind == "map":
            elementwise.schedule(sch, b, lanes, lanes, b.name in tiled)
            done.add(b.name)
        elif b.kind == "across":
            sums += across.schedule(sch, b, b.name in tiled)
    for b in blocks:
        if b.kind == "copy" and b.name not in done:
            elementwise.schedule(sch, b, lanes, lanes, b.name in tiled)
    for nest in nests:
        _begin(nest, intrinsics)
    for name, loop in sums:
        sch.decompose_reduction(sch.get_sblock(name), loop)
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
    if not turn.mark(sch, out, out.lanes, lanes):
        L.vectorize(sch, inner[-1], lanes)
    names = [b.name for b in blocks[:-1] if {*cut, *out.batch} <= set(b.moves)]
    for name in reversed(names):
        sch.compute_at(sch.get_sblock(name), outer[-1], preserve_unit_loops=True)
    sch.parallel(sch.fuse(*outer))  # only now: TVM loses track of regions under fused loops
    return {*names, out.name}


def _of_registers(b, choice, tiled) -> bool:
    """Whether a map takes the sums that it finishes out of registers, tile by tile."""
    return bool(b.finishes) and (b.name in tiled) == (b.finishes in tiled) and not banded.columns(b.finishes, choice)


def _reduce(nest, by_name, widest) -> set:
    """Register tile inside, the sum around it, everything else outside in parallel (unless in a tile of the output). Returns the names of all blocks placed."""
    sch = nest.sch
    if steps := banded.columns(nest.b.stage, nest.choice):
        columns.enter(nest, steps)
    nest.settle()
    place = places.find(nest)
    done = {nest.b.name, *store.leave(nest, place, widest)}
    if not nest.tiled:
        shared = sch.fuse(*nest.outer[:place.shared])
        sch.parallel(shared)
        if nest.knob("copies", "root") != "root":
            done.update(reads.copies(nest, [by_name[n] for n in nest.b.reads], shared, widest))
    if place.producers is not None:
        done.update(reads.producers(nest, [by_name[n] for n in nest.b.producers], place.producers))
    return done


def _begin(nest, intrinsics):
    """What a sum begins with, apart from its terms; what is left may be conditional, or the dot product instruction over lanes and over what a lane takes together."""
    if not nest.terms:
        return
    sch, b = nest.sch, nest.b
    update = sch.get_sblock(b.name)
    init = sch.decompose_reduction(update, nest.terms[0])
    if b.tested:
        terms.conditional(sch, update)
    if "dot" in nest.inner:
        sch.vectorize(sch.get_loops(init)[-1])
        _instruction(nest, sch.get_loops(init)[0], intrinsics())


def _instruction(nest, outermost, intrinsics):
    """The dot product instruction in place of the innermost loops."""
    sch, b, loop = nest.sch, nest.b, nest.inner["lanes"]
    lanes = L.extent(sch, loop)
    code = intrinsics.library(b.dot.dtypes, lanes)
    if code is not None:
        sch.annotate(outermost, "pragma_import_llvm", code)
    sch.tensorize(loop, intrinsics.register(b.dot.dtypes, b.data, lanes, b.dot.first))
