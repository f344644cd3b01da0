"""Arguments whose dims the loops merge: scheduling sees the merged dims, the function takes the caller's.

Both describe the same compact memory, so only the shape that a call checks is different.
"""

from __future__ import annotations

import tvm
from tvm import tirx

from .statements import around

_NOTE = "convgen.caller_shapes"


def noted(f, shapes):
    """The function with the caller's shape of each parameter (None: as it is) written beside it."""
    return f.with_attr(_NOTE, [s or [] for s in shapes]) if any(shapes) else f


def restored(module):
    """The module with every parameter of the shape that its note says."""
    f = module["main"]
    if f.attrs is None or _NOTE not in f.attrs:
        return module
    params, views = list(f.params), []
    for i, (merged, shape) in enumerate(zip(f.params, f.attrs[_NOTE])):
        if len(shape):
            params[i] = tirx.decl_buffer(list(shape), merged.dtype, merged.name)
            views.append(tirx.DeclBuffer(merged, data=params[i].data))
    f = tirx.PrimFunc(params, around(f.body, body=tirx.SeqStmt([*views, f.body.block.body])), f.ret_type, f.attrs)
    return tvm.IRModule({"main": f.without_attr(_NOTE)})
