"""How CUDA knobs shape the loops of a PrimFunc. Written against the roles on the blocks."""

from __future__ import annotations

from tvm import s_tir

from convgen.emit.matrix import Tile

from . import bind, tensor


def apply(module, blocks, choice: dict, target: dict):
    """The scheduled module: every root nest bound to blockIdx and threadIdx. `blocks`: the lowering's Blocks in order."""
    sch = s_tir.Schedule(module)
    threads, done = choice["threads"], set()
    for b in (b for b in blocks if b.kind == "matrix"):
        copy, store = next(o for o in blocks if o.name in b.reads), next(o for o in blocks if o.kind == "store" and o.stage == b.stage)
        tensor.product(sch, b, copy, store, Tile.of(choice[f"{b.stage}.tensor"]))
        done |= {b.name, copy.name, store.name}
    for b in reversed(blocks):
        if b.name in done:
            continue
        block = sch.get_sblock(b.name)
        if b.kind != "reduce":
            if not any(o.kind == "reduce" and o.stage == b.stage for o in blocks if b.kind == "store"):
                bind.elements(sch, block, threads)
            continue
        store = next((s for s in blocks if s.kind == "store" and s.stage == b.stage), None)
        loops = bind.reduction(sch, block, store and sch.get_sblock(store.name), threads)
        for loop, (_, role) in zip(loops, b.reduce):
            if role == "table":  # the coefficients become constants
                sch.unroll(loop)
    return sch.mod
