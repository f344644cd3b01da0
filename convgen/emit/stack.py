"""Tiles of sums on the stack, where LLVM keeps them in registers.

TVM takes every temporary of a kilobyte or more from the workspace. LLVM must then write what a register tile of that size held back to it, though nobody reads it there.
"""

from __future__ import annotations

import tvm_ffi
from tvm import ir, tirx

from .statements import rebuilt

_TAKE, _GIVE = "TVMBackendAllocWorkspace", "TVMBackendFreeWorkspace"


def on_stack(module, most: int):
    """The module of finished functions with the temporaries of up to `most` bytes on the stack."""
    return type(module)({name: f.with_body(_moved(f.body, most)) for name, f in module.functions.items()})


def _moved(s, most):
    if isinstance(s, tirx.SeqStmt):
        moved = [x.buffer.data for x in s.seq if _small(x, most)]
        kept = [x for x in s.seq if not (isinstance(x, tirx.IfThenElse) and any(tvm_ffi.structural_equal(a, m) for a in _asked(x.condition) for m in moved))]
        s = tirx.SeqStmt(kept)
    return tirx.AllocBuffer(s.buffer) if _small(s, most) else rebuilt(s, lambda inner: _moved(inner, most))


def _small(s, most) -> bool:
    return isinstance(s, tirx.DeclBuffer) and isinstance(s.data, ir.Call) and s.data.op.name.endswith(_TAKE) and isinstance(s.data.args[2], tirx.IntImm) and int(s.data.args[2]) <= most


def _asked(condition) -> list:
    """The memory that a test after taking it or on giving it back is about, if it is one."""
    calls = [e for e in (condition, getattr(condition, "a", None)) if isinstance(e, ir.Call)]
    return [c.args[-1] for c in calls if c.op.name.endswith((_GIVE, "isnullptr"))]
