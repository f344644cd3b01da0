"""The checked way through a call: resolve it, find its kernel, copy what cannot be read in place, run, return in kind.

Every call that is not an exact repetition of an earlier one goes through here; `calls.py` and `bound.py` remember the outcome.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from dataclasses import dataclass
from typing import Any, Mapping

from convgen.errors import ArgumentError, Error
from convgen.runtime import arrays, native, threads
from convgen.runtime.dispatch import Kernel, Table
from convgen.runtime.layout import FORMATS, compact, formats, order, preferred, strides_of
from convgen.runtime.plans import Builder, Plan
from convgen.runtime.signature import Operator, Resolved
from convgen.runtime.variants import Choice

_PLANS = 1024  # plans kept per library; a call whose plan was dropped makes it again


@dataclass(frozen=True)
class Found:
    """A call, the memory format its output will have, and the kernel that serves it."""

    call: Resolved
    format: str
    kernel: Kernel

    @property
    def output_strides(self) -> tuple[int, ...]:
        """Strides of the result, in elements."""
        return strides_of(self.call.output_shape, self._perm)

    @property
    def _perm(self):
        return order(len(self.call.output_shape), tuple(self.call.signature["output"].get("spatial") or ()), self.format)

    def direct(self, plan: Plan) -> bool:
        """Whether the kernel writes the result's format itself."""
        return compact(self.call.output_shape, plan.output.strides, self._perm)


class Server:
    """Finds and runs the kernels of one variant of a library, for the tensors of one device ("cpu", "cuda:0", ...)."""

    def __init__(self, operators: dict[str, Operator], choice: Choice, builder: Builder, shim: native.Shim, counts: Counter,
                 convert: bool = False, device: str = arrays.CPU):
        self.operators, self.choice, self.builder, self.shim, self.counts, self.device = operators, choice, builder, shim, counts, device
        self.table = Table(operators, choice.variant["kernels"])
        self.convert = convert  # copy into the kernel's memory format instead of raising NoKernel
        builder.check(choice.variant["kernels"])
        self._found: dict = {}
        self._plans: dict = {}
        self._lock = threading.Lock()

    def find(self, operator: str, tensors: Mapping[str, arrays.View], attributes: Mapping[str, Any]) -> Found:
        """The kernel of a call. Raises ArgumentError or NoKernel."""
        if self.device == arrays.CPU:
            threads.attach(self.shim)
        try:
            key = (operator, *[(n, v.shape, v.strides, v.dtype) for n, v in tensors.items()], *attributes.items())
            found = self._found.get(key)
        except TypeError:  # a list among the attributes
            key = found = None
        if found is None:
            found = self._find(operator, tensors, attributes)
            if key is not None:
                if len(self._found) >= _PLANS:
                    self._found.clear()
                self._found[key] = found
        return found

    def _find(self, operator: str, tensors: Mapping[str, arrays.View], attributes: Mapping[str, Any]) -> Found:
        call = self.operators[operator].resolve({n: (v.shape, v.dtype) for n, v in tensors.items()}, attributes)
        layouts = call_formats(call, tensors, self.table.offered[operator])
        if self.convert:
            layouts = (*layouts, *(f for f in FORMATS if f not in layouts))
        return Found(call, layouts[0], self.table.find(call, layouts, self.threads))

    @property
    def threads(self) -> int:
        """Threads that a call would use if it were made now from this thread; 0 on a CUDA device."""
        return self.shim.threads if self.device == arrays.CPU else 0

    def plan(self, found: Found) -> Plan:
        """The plan of an unbound call, which takes the parameters at each call."""
        key = (found.kernel.entry["symbol"], tuple(found.call.dims.items()))
        plan = self._plans.get(key)
        if plan is None:
            plan = self.builder.plan(found.kernel, found.call)
            with self._lock:
                if len(self._plans) >= _PLANS:
                    self._plans.clear()
                self._plans[key] = plan
        return plan

    def run(self, found: Found, plan: Plan, tensors: Mapping[str, arrays.View], out: arrays.View | None) -> tuple[Any, bool]:
        """(result, whether every tensor was used in place). Copies tensors that a kernel cannot read, counted in `counts`."""
        operator, place = found.call.operator, True
        inputs = []
        for name, wanted in zip(plan.names, plan.wanted):
            tensor = tensors[name]
            if not (tensor.aligned and fits(tensor, wanted)):
                _copyable(tensor, operator, name)
                tensor, place = arrays.copy(tensor, wanted.strides), False
                self.counts[f"copies of {operator}.{name}"] += 1
            inputs.append(tensor)
        first = tensors[plan.names[0]]
        shape, dtype = plan.output.shape, plan.output.dtype
        given = out
        if out is None:
            out = arrays.empty(first, shape, found.output_strides, dtype)
        target = out
        if not (out.aligned and fits(out, plan.output)):
            _copyable(out, operator, "out")
            target, place = arrays.empty(out, shape, plan.output.strides, dtype), False
            self.counts[f"copies of {operator}.out"] += 1
        try:
            status = plan.launcher(first)(*(view.pointer for view in inputs), target.pointer)
        except Exception as error:
            raise Error(f"{operator}: the kernel {found.kernel.entry['id']} failed: {error}") from error
        if status == native.SERIAL_AFTER_FORK:
            if self.shim.take_warning():
                threads.warn_after_fork()
        elif status:
            raise refusal(status, operator, plan)
        if target is not out:
            arrays.assign(out, target)
        elif given is not None:
            arrays.written(given.owner)
        return arrays.back(out, first), place


def _copyable(tensor: arrays.View, operator: str, name: str) -> None:
    if tensor.kind == "array":
        raise ArgumentError(f"{operator}: {name} must lie compact in the kernel's memory format, aligned to {native.ALIGNMENT} bytes; "
                            "on CUDA devices only torch tensors are copied")


def refusal(status: int, operator: str, plan: Plan) -> ArgumentError:
    """A plan's complaint about tensors that passed the checks in Python: memory that overlaps, in practice."""
    why, index = native.reason(status)
    name = [*plan.names, "out"][index]
    return ArgumentError(f"{operator}: " + (f"the memory of {name} overlaps an input" if why == "overlap" else f"{name} has a wrong {why}"))


def fits(view: arrays.View, wanted: native.Wanted) -> bool:
    """Whether a kernel may read or write a tensor in place (its shape and dtype are known to be right)."""
    return all(size == 1 or have == want for size, have, want in zip(view.shape, view.strides, wanted.strides))


def call_formats(call: Resolved, tensors, offered) -> tuple[str, ...]:
    """Memory formats in which a call's kernel may read its tensors; the first is the output's.

    The first input with spatial dimensions decides. `tensors` maps names to anything with .shape and .strides.
    """
    for tensor in call.signature["tensors"]:
        if tensor["kind"] == "input" and tensor.get("spatial"):
            given = tensors[tensor["name"]]
            best = preferred(given.shape, given.strides, tensor["spatial"], offered)
            both = len(formats(given.shape, given.strides, tensor["spatial"])) == 2
            return (best, *(f for f in FORMATS if both and f != best))
    return (offered[0], *(f for f in FORMATS if f != offered[0]))


def views(operator: str, tensors: Mapping[str, Any]) -> dict[str, arrays.View]:
    """Views of a call's tensors, which must all be of one kind and on one device. Raises ArgumentError."""
    seen = {name: arrays.view(value, f"{operator}: {name}") for name, value in tensors.items()}
    device_of(operator, seen)
    kinds = {view.kind for view in seen.values()}
    if len(kinds) > 1:
        raise ArgumentError(f"{operator}: all tensors of a call must be of one kind, got {' and '.join(sorted(kinds))}")
    return seen


def device_of(operator: str, seen: Mapping[str, arrays.View], default: str = arrays.CPU) -> str:
    """The device that all views are on, `default` for none. Raises ArgumentError for several."""
    places = {view.device: name for name, view in reversed(seen.items())}
    if len(places) > 1:
        where = " and ".join(f"{name} on {device}" for device, name in reversed(places.items()))
        raise ArgumentError(f"{operator}: all tensors of a call must be on one device, got {where}")
    return next(iter(places), default)


def output_view(operator: str, out, found: Found, like: arrays.View) -> arrays.View | None:
    """The caller's output tensor, checked. Raises ArgumentError."""
    if out is None:
        return None
    view = arrays.view(out, f"{operator}: out")
    if view.device != like.device:
        raise ArgumentError(f"{operator}: out must be on the device of the inputs ({like.device}), got {view.device}")
    if view.kind != like.kind:
        raise ArgumentError(f"{operator}: out must be of the same kind as the input ({like.kind}), got {view.kind}")
    wanted, dtype = found.call.output_shape, found.kernel.entry["output_dtype"]
    if view.shape != tuple(wanted) or view.dtype != dtype:
        raise ArgumentError(f"{operator}: out must be {dtype} {tuple(wanted)}, got {view.dtype} {view.shape}")
    if view.kind in ("numpy", "dlpack") and not view.keep.flags.writeable:
        raise ArgumentError(f"{operator}: out must be writeable")
    if any(size > 1 and stride == 0 for size, stride in zip(view.shape, view.strides)):
        raise ArgumentError(f"{operator}: out must not be an expanded tensor")
    return view


def refuse_gradients(operator: str, tensors: Mapping[str, Any]) -> None:
    """Raises RuntimeError when a torch tensor wants a gradient: kernels have none, and dropping it would go unnoticed."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.is_grad_enabled():
        return
    wanting = [n for n, t in tensors.items() if isinstance(t, torch.Tensor) and t.requires_grad]
    if wanting:
        raise gradient_error(operator, wanting)


def gradient_error(operator: str, names) -> RuntimeError:
    return RuntimeError(f"{operator}: {', '.join(names)} requires grad, and this kernel has no gradient; "
                        "call it under torch.no_grad() or torch.inference_mode(), or pass detached tensors")
