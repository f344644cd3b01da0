"""Whether N may be any number when a kernel runs: every stage treats the batch as independent samples."""

from __future__ import annotations

from ..runtime.sizes import symbols
from .size import tree_of


def obstacle(program) -> str | None:
    """Why N is more than a parallel axis in this program, or None."""
    if any("N" in symbols(test) for test in program.when):
        return "the declaration decides by its size"
    if any("N" in symbols(tree) for t in [*program.tensors, program.output] for tree in t.trees if tree != "N"):
        return "a tensor's shape computes with its size"
    for stage in program.stages:
        if any("N" in symbols(tree_of(a.size)) for a in stage.reduce):
            return f"the stage {stage.name} reduces over it"
        batch = {a.name for a in stage.axes if "N" in symbols(tree_of(a.size))}
        if _mixes(stage.body, batch):
            return f"the stage {stage.name} computes with its index or size"
    return None


def _mixes(e, batch) -> bool:
    """Whether a batch axis is used otherwise than as one whole index of a tensor, or the size of the batch is used."""
    if e.op == "axis":
        return e.data in batch
    if e.op == "size":
        return "N" in symbols(e.data[0])
    args = [a for a in e.args if not (e.op == "load" and a.op == "axis")]
    padded = e.op == "load" and e.data[1] is not None and any("N" in symbols(tree_of(p)) for pair in e.data[1].amounts for p in pair)
    return padded or any(_mixes(a, batch) for a in args)
