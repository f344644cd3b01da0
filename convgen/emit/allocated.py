"""What compiled code allocates: read off a function when every allocation has become a call, as the machine will make it."""

from __future__ import annotations

from tvm import ir, tirx

_TAKE = "TVMBackendAllocWorkspace"


def at_peak(f, threads: int) -> dict | None:
    """Temporary → bytes, of those that live together when a call of so many threads holds the most. None where sizes depend on the batch.

    A temporary lives until the loop around its allocation ends its step; one inside a parallel loop exists once for every thread that has a part of the loop.
    """
    most = {}

    def visit(s, times, held):
        """What else lives after a statement of the same loop."""
        nonlocal most
        if isinstance(s, tirx.SeqStmt):
            for x in s.seq:
                held = visit(x, times, held)
        elif isinstance(s, tirx.For):
            sharing = min(threads, int(s.extent) if isinstance(s.extent, tirx.IntImm) else threads) if s.kind == tirx.ForKind.PARALLEL else 1
            visit(s.body, times * sharing, held)
        elif isinstance(s, (tirx.AttrStmt, tirx.While)):
            visit(s.body, times, held)
        elif isinstance(s, tirx.IfThenElse):
            visit(s.then_case, times, held)
            if s.else_case is not None:
                visit(s.else_case, times, held)
        elif isinstance(s, tirx.DeclBuffer) and isinstance(s.data, ir.Call) and s.data.op.name.endswith(_TAKE):
            name, size = s.buffer.name, int(s.data.args[2]) * times
            held = held | {name: held.get(name, 0) + size}
            most = max(most, held, key=lambda h: sum(h.values()))
        return held
    try:
        visit(f.body, 1, {})
    except TypeError:  # a size that is an expression
        return None
    return most
