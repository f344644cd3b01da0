"""How the stages of a plan read: from their copies and packed parameters, or straight, clamped where whole tiles reach beyond the data."""

from __future__ import annotations

from tvm import te, tirx

from ..lang import access
from . import plan as P, vector_math
from .values import Values, element_of, zero


class Reads(Values):
    """The values of a Plan's stages. `axes`: those of the element at hand, name → index."""

    def __init__(self, plan, math=vector_math):
        super().__init__(plan.program, math)
        self.plan, self.axes = plan, {}

    def fill(self, p, load):
        """What continues a read beyond its tensor where that is a parameter's value, else None."""
        fill = load.data[1].fill if load.data[1] is not None else None
        return None if fill is None else element_of(self.tensors[p.operands[P.key(fill)].name], [0])

    def reader(self, p):
        """How stage `p` reads: through its copies, or straight, clamped where whole tiles reach beyond the data."""
        true = access.extents(p.stage)
        beyond = {n for n in true if p.extents.get(n, true[n]) > true[n]}
        if p.layout.blocks * p.lanes > true[p.vec]:
            beyond.add(p.vec)

        def read(load, index):
            operand = p.operands.get(P.key(load))
            if operand is not None and operand.kind in ("staged", "packed"):
                return element_of(self.tensors[operand.name], operand.layout.index([self._coord(c, index) for c in operand.coords]))
            name, padding = load.data
            made = self.plan.stage(name)
            there = {d for d, a in enumerate(load.args) if made is not None and made.stage.combiner is None and a.op == "axis" and made.extents[made.stage.axes[d].name] >= p.extents[a.data] > true[a.data]}
            clamp = {d for d, a in enumerate(load.args) if d not in there and beyond & set(a.axes()) and not any(access.padding(load, d))}
            stored = self.tensors.get(name)
            if made is not None:  # what tiles of the output lengthen is there
                clamp -= {d for d, a in enumerate(made.stage.axes) if a.name in made.longer}
            if stored is not None and not access.padded(load) and stored[1].split in clamp:  # whole blocks beyond the end: clamp the block, so that lanes stay side by side
                tensor, layout, _ = stored
                clamp.discard(layout.split)
                physical = layout.index([te.min(i, self.extent_of(name, d) - 1) if d in clamp else i for d, i in enumerate(index)])
                at = layout.order.index(layout.split)
                physical[at] = te.min(physical[at], layout.blocks - 1)
                return element_of(tensor, physical)
            index = [self._clamped(p, load, d, i) if d in clamp else i for d, i in enumerate(index)]
            return self.element(name, index, padding, operand.skip if operand else (), self.fill(p, load))
        return read

    def _clamped(self, p, load, d, i):
        """A position that exists: the last one stands for those beyond, or the last vector as a whole, so that lanes stay side by side."""
        end, index = self.extent_of(load.data[0], d), load.args[d]
        if index.op == "axis" and index.data == p.vec and access.extents(p.stage)[p.vec] % p.lanes == 0:
            return te.min(i // p.lanes, end // p.lanes - 1) * p.lanes + i % p.lanes
        return te.min(i, end - 1)

    def without_padding(self, p, term):
        """`term` of stage `p` if every read that leaves out its padding meets data, else zero: nested conditionals, the outermost dim tested first."""
        tests = []
        for operand in p.operands.values():
            for d in operand.skip:
                at = self.value(operand.load.args[d], self.axes, None) - access.padding(operand.load, d)[0]
                tests.append(tirx.all(at >= 0, at < self.extent_of(operand.source, d)))
        for test in reversed(tests):
            term = tirx.if_then_else(test, term, zero(term))
        return term

    def _coord(self, coord, index):
        return 0 if coord[0] == "one" else self.axes[coord[1]] if coord[0] == "axis" else index[coord[1]] - coord[2]
