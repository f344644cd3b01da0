"""TVM's statements again, with some of their parts replaced."""

from __future__ import annotations

from tvm import tirx
from tvm.s_tir import SBlock, SBlockRealize

_PARTS = ("iter_vars", "reads", "writes", "name_hint", "body", "init", "alloc_buffers", "match_buffers", "annotations")


def rebuilt(s, statement, test=None, value=None):
    """A statement whose inner statements are what `statement` makes of them, its conditions what `test` does, and the values that it stores what `value` does."""
    test = test or (lambda condition: condition)
    if isinstance(s, tirx.For):
        return tirx.For(s.loop_var, s.min, s.extent, s.kind, statement(s.body), s.thread_binding, s.annotations)
    if isinstance(s, tirx.While):
        return tirx.While(test(s.condition), statement(s.body))
    if isinstance(s, tirx.SeqStmt):
        return tirx.SeqStmt([statement(x) for x in s.seq])
    if isinstance(s, tirx.AttrStmt):
        return tirx.AttrStmt(s.node, s.attr_key, s.value, statement(s.body))
    if isinstance(s, tirx.IfThenElse):
        return tirx.IfThenElse(test(s.condition), statement(s.then_case), s.else_case and statement(s.else_case))
    if isinstance(s, tirx.BufferStore) and value:
        return tirx.BufferStore(s.buffer, value(s.value), s.indices)
    if isinstance(s, SBlockRealize):
        return SBlockRealize(s.iter_values, test(s.predicate), with_parts(s.block, body=statement(s.block.body), init=s.block.init and statement(s.block.init)))
    return s


def with_parts(block, **parts):
    """A block with these parts, by TVM's names, in the place of its own."""
    return SBlock(*(parts.get(name, getattr(block, name)) for name in _PARTS))


def around(realize, **parts):
    """A block where it is, with these parts in the place of its own."""
    return SBlockRealize(realize.iter_values, realize.predicate, with_parts(realize.block, **parts))
