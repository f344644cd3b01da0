"""What happens when a library holds no kernel for a call: an error, or the operator's PyTorch formulation on request."""

from __future__ import annotations

import threading
import warnings
from collections import Counter
from typing import Any, Mapping

from convgen.errors import ArgumentError, NoKernel
from convgen.runtime import arrays
from convgen.runtime.signature import Operator

MODES = ("error", "torch")


class Missing:
    """The policy of one library: `on_missing="error"` raises NoKernel, `"torch"` computes by PyTorch, warning once per shape."""

    def __init__(self, mode: str, counts: Counter):
        if mode not in MODES:
            raise ArgumentError(f"on_missing must be 'error' or 'torch', got {mode!r}")
        self.mode, self._counts = mode, counts
        self._warned: set = set()
        self._lock = threading.Lock()

    def __call__(self, problem: NoKernel, operator: Operator, tensors: Mapping[str, Any], attributes: Mapping[str, Any], out=None):
        if self.mode == "error":
            raise problem
        workload = _workload(problem, operator, tensors, attributes)
        case = str(workload)
        with self._lock:
            self._counts[f"missing {operator.name}"] += 1
            news = case not in self._warned
            self._warned.add(case)
        if news:
            warnings.warn(f"{problem}; computing it with PyTorch (on_missing='torch')", RuntimeWarning, stacklevel=4)
        result = workload.baseline(**tensors)
        if out is None:
            return result
        out.copy_(result)
        return out


def _workload(problem: NoKernel, operator: Operator, tensors, attributes):
    """The call as a workload of the catalogue, which knows its PyTorch formulation. Raises `problem` where there is none."""
    try:
        from convgen.lang.workload import flag_names
        from convgen.ops import table
    except ImportError:
        raise problem from None
    if table.baseline(operator.name) is None or not all(arrays.is_torch(t) for t in tensors.values()):
        raise problem
    description = table.get(operator.name)
    call = _loosely_resolved(operator, tensors, attributes)
    flags = {name: True for name in flag_names(description) if name in tensors}
    dtype = str(next(iter(tensors.values())).dtype).removeprefix("torch.")
    dims = {d: int(call.dims[d]) for d in description.dims if d in call.dims}
    given = {n: v for n, v in call.attributes.items() if n in description.attributes}
    try:
        return description(**dims, **given, **flags, dtype=dtype)
    except ArgumentError as error:
        raise problem from error


def _loosely_resolved(operator: Operator, tensors, attributes):
    """Dimensions and attributes by the variant that shares most tensors with the call, whatever dtypes it was made for."""
    signature = max(operator.signatures, key=lambda s: sum(t["name"] in tensors for t in s["tensors"]))
    shared = [t for t in signature["tensors"] if t["name"] in tensors]
    shapes = {t["name"]: (tuple(tensors[t["name"]].shape), t["dtype"]) for t in shared}
    return Operator(operator.name, [{**signature, "tensors": shared, "when": []}]).resolve(shapes, attributes)
