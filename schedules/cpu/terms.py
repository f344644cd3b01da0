"""Conditional terms of a sum become conditional statements, so that a test is made once per row of a tile, and never where it is known."""

from __future__ import annotations

from tvm import tirx
from tvm.ir import Call

from convgen.emit.statements import with_parts


def conditional(sch, block):
    """Rewrite a block: `acc = acc + if_then_else(test, term, 0)` becomes `if test: acc = acc + term`.

    TVM moves the tests out of the loops that they do not depend on and drops those that unrolling decides. The block must have lost its initialisation.
    """
    old = sch.get(block)
    store, (total, term), tests = old.body, (old.body.value.a, old.body.value.b), []
    while _is_conditional(term):
        tests.append(term.args[0])
        term = term.args[1]
    body = tirx.BufferStore(store.buffer, total + term, store.indices)
    for test in reversed(tests):
        body = tirx.IfThenElse(test, body, None)
    new = with_parts(old, body=body)
    sch.state.replace(sch.get_sref(block), new, {old: new})


def _is_conditional(e) -> bool:
    return isinstance(e, Call) and e.op.name == "prim.if_then_else" and isinstance(e.args[2], tirx.FloatImm) and e.args[2].value == 0.0
