"""How CUDA knobs shape the loops of a PrimFunc. Written against the roles on the blocks."""

from __future__ import annotations

from tvm import s_tir
from tvm.tirx import IntImm

from convgen.emit.matrix import Tile

from . import bind, tensor, tile


def apply(module, blocks, choice: dict, target: dict):
    """The scheduled module: every root nest bound to blockIdx and threadIdx. `blocks`: the lowering's Blocks in order. Raises whatever TVM raises for an impossible choice."""
    sch = s_tir.Schedule(module)
    by_name, done = {b.name: b for b in blocks}, set()
    for b in blocks:
        if choice.get(f"{b.name}.inline"):
            sch.compute_inline(sch.get_sblock(b.name))
            done.add(b.name)
    for b in (b for b in blocks if b.kind == "matrix"):
        copy, store = next(o for o in blocks if o.name in b.reads), next(o for o in blocks if o.kind == "store" and o.stage == b.stage)
        tensor.product(sch, b, copy, store, Tile.of(choice[f"{b.stage}.tensor"]))
        done |= {b.name, copy.name, store.name}
    for b in reversed(blocks):
        if b.kind != "reduce":
            continue
        if choice.get(f"{b.stage}.fused"):
            tile.inside(sch, b)
            done.add(b.name)
            continue
        store = next((s for s in blocks if s.kind == "store" and s.stage == b.stage), None)
        if store is not None and len(sch.get_producers(sch.get_sblock(store.name))) > 1:
            store = None  # it waits for other results, too, and TVM moves it to none of its producers
        if b.spread:
            tile.reduction(sch, b, store, [by_name[n] for n in b.reads], choice, done, target["limits"]["shared_static"])
            continue
        block = sch.get_sblock(b.name)
        if b.share is not None:
            block, loops = bind.divided(sch, b, store and sch.get_sblock(store.name), 128)
        else:
            loops = bind.reduction(sch, block, store and sch.get_sblock(store.name), 128)
        for loop, (_, role) in zip(loops, b.reduce):
            if role == "table":  # the coefficients become constants
                sch.unroll(loop)
        if loops:
            sch.decompose_reduction(block, loops[0])
        done |= {b.name, *([store.name] if store is not None else [])}
    for b in blocks:
        if b.name not in done:
            bind.elements(sch, sch.get_sblock(b.name), 128, *_shared_work(sch, b))
    return sch.mod


def _shared_work(sch, b):
    """(dim, results of one thread along it) of a map that gathers: positions and weights of a sample serve several channels."""
    loops = sch.get_loops(sch.get_sblock(b.name))
    for d, (axis, _) in enumerate(b.loops):
        extent = sch.get(loops[d]).extent
        each = next((n for n in (8, 4, 2) if axis in b.steady and isinstance(extent, (int, IntImm)) and int(extent) % n == 0), 1)
        if each > 1:
            return d, each
    return None, 1
