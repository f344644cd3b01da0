"""A description in the notation of papers: one line per stage."""

from __future__ import annotations

from ..runtime import sizes
from . import expr as E

_PRECEDENCE = {"or": 1, "and": 2, "+": 4, "-": 4, "*": 5, "/": 5, "//": 5, "%": 5} | {c: 3 for c in E.COMPARE}


def expression(e: E.Expr, outer=0) -> str:
    if e.op == "axis":
        return e.data
    if e.op == "const":
        return f"{e.data:g}" if e.dtype == "float" else str(e.data)
    if e.op == "size":
        return sizes.text(e.data[0])
    if e.op == "load":
        name, padding = e.data
        mode = "" if padding is None or padding.mode == "zeros" else f"_{padding.mode}"
        before = [_amount(p[0]) for p in padding.amounts] if padding else ["0"] * len(e.args)
        inside = ", ".join(expression(a) + (f" - {b}" if b != "0" else "") for a, b in zip(e.args, before))
        return f"{name}{mode}[{inside}]"
    if e.op in _PRECEDENCE:
        own = _PRECEDENCE[e.op]
        body = f"{expression(e.args[0], own)} {e.op} {expression(e.args[1], own + (e.op in ('-', '/', '//', '%')))}"
        return f"({body})" if own < outer else body
    if e.op == "select":
        c, a, b = (expression(x) for x in e.args)
        return f"({a} if {c} else {b})"
    if e.op in ("float", "int"):
        return expression(e.args[0], outer)
    if e.op == "neg":
        return f"-{expression(e.args[0], 6)}"
    return f"{e.op}({', '.join(expression(a) for a in e.args)})"


def _amount(a):
    return sizes.text(E.tree_of(a))


def formula(program) -> str:
    """All stages, one line each, the output named y."""
    lines = []
    last = program.stages[-1].name
    for s in program.stages:
        head = f"{'y' if s.name == last else s.name}[{', '.join(a.name for a in s.axes)}] = "
        body = expression(s.body)
        if s.combiner:
            body = f"{s.combiner}_{{{', '.join(a.name for a in s.reduce)}}} {body}"
        lines.append(head + body)
    return "\n".join(lines)
