"""Temporaries of tiles as small as what a tile needs of them.

TVM shrinks a temporary inside a loop to the region that one step touches. Where tests cut a region off at its beginning (the first tile needs nothing before the first
row) it finds no constant extent and keeps the whole plane, for every thread. So the tests are hidden while it looks: without them every tile touches
regions of one extent, and what no tile may touch stays outside by the tests, which come back.
"""

from __future__ import annotations

import tvm
from tvm import ir, tirx
from tvm.s_tir import transform

from .statements import rebuilt

_BINARY = (tirx.Add, tirx.Sub, tirx.Mul, tirx.Div, tirx.Min, tirx.Max)
_TEST = "prim.if_then_else"
_PASSES = (transform.LowerInitBlock, transform.PlanAndUpdateBufferAllocationLocation, transform.ConvertBlocksToOpaque, transform.CompactBufferAllocation)


SKIPPED = ["s_tir.CompactBufferAllocation"]  # what the compiler is not to do again: it would enlarge them


def compacted(functions: dict):
    """The module of scheduled functions, by name, with their temporaries compacted."""
    module = tvm.IRModule({name: f.with_body(_Hidden().statement(f.body)) for name, f in functions.items()})
    module = tvm.transform.Sequential([p() for p in _PASSES])(module)
    return tvm.IRModule({name: module[name].with_body(_Shown().statement(module[name].body)) for name in functions})


class _Tests:
    """Walks over a function and replaces the tests of blocks and of conditional values."""

    def test(self, e):
        raise NotImplementedError

    def statement(self, s):
        return rebuilt(s, self.statement, self.test, self.value)

    def value(self, e):
        if isinstance(e, _BINARY):
            return type(e)(self.value(e.a), self.value(e.b))
        if isinstance(e, ir.Call) and e.op.name == _TEST:
            return tirx.if_then_else(self.test(e.args[0]), self.value(e.args[1]), self.value(e.args[2]))
        return e


class _Hidden(_Tests):
    """Hides lower bounds where TVM's analysis of regions does not see them."""

    def test(self, e):
        if isinstance(e, tirx.And):
            return tirx.And(self.test(e.a), self.test(e.b))
        if isinstance(e, (tirx.LE, tirx.LT)) and isinstance(e.a, tirx.IntImm) or isinstance(e, (tirx.GE, tirx.GT)) and isinstance(e.b, tirx.IntImm):
            return tirx.if_then_else(e, tirx.const(True), tirx.const(False))
        return e


class _Shown(_Tests):
    """Takes the tests out again."""

    def test(self, e):
        if isinstance(e, tirx.And):
            return tirx.And(self.test(e.a), self.test(e.b))
        return e.args[0] if isinstance(e, ir.Call) and e.op.name == _TEST else e
