"""The ARM space: vectors of four, 32 registers, and multiply-adds that take one number out of a register instead of out of memory."""

from __future__ import annotations

from convgen.emit import tiling

from ..cpu import space
from ..knobs import Tree
from . import dot


class Leaf(space.Leaf):
    """Knobs of one algorithm on ARM."""

    instructions = dot
    reuse = 2.4  # six numbers by four vectors: as near to one read per four multiply-adds as the registers allow
    side_by_side = 4
    numbers = 4  # a multiply-add takes any lane

    def drawback(self, anchor, axis) -> float:
        """A vector that moves along a window is loaded anew for every tap, at addresses that the loads' own offsets do not reach."""
        along = any("window" in tiling.vector_kinds(l, axis, anchor.ext, self.lanes) for l in anchor.stage.body.loads())
        return 1.0 if along and not anchor.dense else 0.0

    def readable(self, s) -> bool:
        """Numbers of two bytes are widened once, in a copy: there is no multiply-add with float32 for them."""
        specs = [self.program.tensor(l.data[0]) for l in s.body.loads()]
        return not any(t is not None and t.kind == "input" and t.dtype in ("float16", "bfloat16") for t in specs)


class Space(Tree):
    """Algorithms first, then each algorithm's knobs."""

    version = 1
    leaf = Leaf
    unfolds = True
