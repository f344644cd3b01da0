"""Tiles of sums on the stack, where LLVM keeps them in registers.

TVM takes every temporary of a kilobyte or more from the workspace. LLVM must then write what a register tile of that size held back to it, though nobody reads it there.
"""

from __future__ import annotations

import tvm_ffi
from tvm import ir, tirx

_TAKE, _GIVE = "TVMBackendAllocWorkspace", "TVMBackendFreeWorkspace"


def on_stack(module, most: int):
    """The module of finished functions with the temporaries of up to `most` bytes on the stack."""
    return type(module)({name: f.with_body(_moved(f.body, most)) for name, f in module.functions.items()})


def _moved(s, most):
    if isinstance(s, tirx.SeqStmt):
        moved = [x.buffer.data for x in s.seq if _small(x, most)]
        kept = [x for x in s.seq if not (isinstance(x, tirx.IfThenElse) and any(tvm_ffi.structural_equal(a, m) for a in _asked(x.condition) for m in moved))]
        return tirx.SeqStmt([_moved(x, most) for x in kept])
    if isinstance(s, tirx.For):
        return tirx.For(s.loop_var, s.min, s.extent, s.kind, _moved(s.body, most), s.thread_binding, s.annotations)
    if isinstance(s, tirx.While):
        return tirx.While(s.condition, _moved(s.body, most))
    if isinstance(s, tirx.AttrStmt):
        return tirx.AttrStmt(s.node, s.attr_key, s.value, _moved(s.body, most))
    if isinstance(s, tirx.IfThenElse):
        return tirx.IfThenElse(s.condition, _moved(s.then_case, most), s.else_case and _moved(s.else_case, most))
    return tirx.AllocBuffer(s.buffer) if _small(s, most) else s


def _small(s, most) -> bool:
    return isinstance(s, tirx.DeclBuffer) and isinstance(s.data, ir.Call) and s.data.op.name.endswith(_TAKE) and isinstance(s.data.args[2], tirx.IntImm) and int(s.data.args[2]) <= most


def _asked(condition) -> list:
    """The memory that a test after taking it or on giving it back is about, if it is one."""
    calls = [e for e in (condition, getattr(condition, "a", None)) if isinstance(e, ir.Call)]
    return [c.args[-1] for c in calls if c.op.name.endswith((_GIVE, "isnullptr"))]
