"""What to launch: symbol, arguments, grid, block and shared memory of every device function, read from the lowered functions themselves."""

from __future__ import annotations

import math

from tvm import tirx

from ..errors import EmitError
from ..lang.count import BYTES

_AXES = ("x", "y", "z")


def of(module) -> list:
    """One launch per device function, in the order in which the host calls them (the order of their names). Extents are ints or size expressions."""
    functions = sorted(((g.name_hint, f) for g, f in module.functions.items()), key=lambda pair: _number(pair[0]))
    return [_launch(name, f) for name, f in functions]


def _number(name: str) -> tuple:
    """Kernels of one function are called f_kernel, f_kernel_1, f_kernel_2, ..."""
    base, _, last = name.rpartition("_kernel")
    return base, int(last[1:] or 0)


def _launch(name, f) -> dict:
    extents, shared = {}, {"shared": 0, "shared.dyn": 0}
    for node in _walk(f.body):
        if isinstance(node, tirx.AttrStmt) and node.attr_key == "thread_extent":
            extents[node.node.thread_tag] = size(node.value)
        elif isinstance(node, tirx.AllocBuffer) and node.buffer.scope() in shared:
            shared[node.buffer.scope()] += BYTES[str(node.buffer.dtype)] * math.prod(int(n) for n in node.buffer.shape)
    return {"symbol": name, "args": [_argument(p) for p in f.params], "grid": [extents.get(f"blockIdx.{a}", 1) for a in _AXES],
            "block": [extents.get(f"threadIdx.{a}", 1) for a in _AXES], "shared": shared["shared.dyn"], "shared_static": shared["shared"]}


def _argument(p):
    """A buffer's name (parameters are called after it), or a size that the caller fills in."""
    return p.name.removesuffix("_ptr") if p.name.endswith("_ptr") else {"size": p.name}


def _walk(stmt):
    """Every statement of a body, outermost first."""
    left = [stmt]
    while left:
        node = left.pop()
        yield node
        if isinstance(node, tirx.SeqStmt):
            left.extend(reversed(list(node.seq)))
        elif isinstance(node, tirx.IfThenElse):
            left.extend(n for n in (node.else_case, node.then_case) if n is not None)
        elif getattr(node, "body", None) is not None:
            left.append(node.body)


_BINARY = {"Add": "+", "Sub": "-", "Mul": "*", "FloorDiv": "//", "Div": "//", "FloorMod": "%", "Mod": "%", "Min": "min", "Max": "max"}


def size(e):
    """A size expression (convgen.runtime.sizes) of a TIR expression over sizes, which are never negative."""
    if isinstance(e, int) or hasattr(e, "value") and isinstance(e.value, int):
        return int(getattr(e, "value", e))
    kind = type(e).__name__
    if kind == "Var":
        return e.name
    if kind == "Cast":
        return size(e.value)
    if kind in _BINARY:
        return [_BINARY[kind], size(e.a), size(e.b)]
    if kind == "Call" and e.op.name == "tirx.shift_right":
        return ["//", size(e.args[0]), 2 ** size(e.args[1])]
    raise EmitError(f"a grid of {e} blocks cannot be told before the call")
