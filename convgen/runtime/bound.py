"""Bound calls: an operator with its parameters, prepared once."""

from __future__ import annotations

import sys
import threading
from typing import Any, Mapping

from convgen.errors import ArgumentError, NoKernel
from convgen.runtime import arrays, fallback
from convgen.runtime.attributes import symbol_values
from convgen.runtime.dispatch import Kernel, matches
from convgen.runtime.layout import strides_of
from convgen.runtime.serve import Server, device_of, output_view, refuse_gradients, views
from convgen.runtime.servers import Servers
from convgen.runtime.signature import Operator, Resolved, _listed
from convgen.runtime.sizes import evaluate


class _State:
    """One set of parameters and all that was made of it. Replaced as a whole by `update`, so a call sees one set only."""

    def __init__(self, given: dict, seen: dict, served: bool):
        self.given, self.seen = given, seen
        self.versions = {name: _version(tensor) for name, tensor in given.items()}
        self.wants_gradient = any(getattr(tensor, "requires_grad", False) for tensor in given.values())
        self.raw = {n: arrays.snapshot(v, strides_of(v.shape, range(len(v.shape)))) for n, v in seen.items()} if served else {}
        self.shapes = {n: (v.shape, v.dtype) for n, v in seen.items()}
        self.held: dict = {}
        self.plans: dict = {}
        self.ready: dict = {}
        self.complete = False  # the only kernel that can serve is prepared, so `raw` was let go
        self.lock = threading.Lock()


class Bound:
    """`f = lib.bind("conv2d", weight=w, padding=1)`, then `f(x)` or `f(x, out=y)`.

    The parameters are copied and prepared when they are bound: changing them in place afterwards changes nothing (`check` tells),
    `update` takes new ones. Several threads may call one bound call at once, also while another updates it.

    On a CUDA device binding and updating wait for the device, so that every stream may call; calls never do. A captured graph reads the
    memory that this object held then: keep it, and do not update it, as long as the graph is replayed.
    """

    def __init__(self, servers: Servers, operator: Operator, missing: fallback.Missing, parameters: Mapping[str, Any],
                 attributes: Mapping[str, Any]):
        self._servers, self._operator, self._missing = servers, operator, missing
        self._attributes = dict(attributes)
        for name in parameters:
            if name not in operator.parameters:
                what = "an input, given at each call" if name in operator.tensors else "no parameter of it"
                raise ArgumentError(f"bind: {operator.name} takes {', '.join(operator.parameters) or 'no parameters'}; {name} is {what}")
        for name in operator.parameters:
            if operator.required(name) and name not in parameters:
                raise ArgumentError(f"bind: {operator.name} needs the parameter {name}")
        self._update_lock = threading.Lock()
        self._torch: Any = None
        self._tensor: Any = None
        self._state = self._make(dict(parameters))

    @property
    def operator(self) -> str:
        """Name of the operator."""
        return self._operator.name

    def __call__(self, *inputs, out=None, **named):
        """The operator on inputs (in the operator's order or by name). `out`: tensor to write into.

        Raises ArgumentError, NoKernel, or RuntimeError if an input or a bound parameter requires grad in grad mode.
        """
        state, torch, tensor = self._state, self._torch, self._tensor
        if tensor is not None and inputs and not named and type(inputs[0]) is tensor:
            ready = state.ready.get(inputs[0].shape)
            if ready is not None and (len(inputs) == 1 or all([type(t) is tensor for t in inputs])) and (out is None or type(out) is tensor):
                if torch.is_grad_enabled():
                    wants = state.wants_gradient or out is not None and out.requires_grad
                    if wants or any([t.requires_grad for t in inputs]):
                        self._refuse(state, inputs, out)
                run, shape, strides, dtype, device = ready
                result = torch.empty_strided(shape, strides, dtype=dtype, device=device) if out is None else out
                try:
                    if run(*inputs, result) == 0:
                        if out is not None:
                            arrays.written(out)
                        return result
                except Exception:  # a tensor without memory, or a failing kernel: the long way tells which
                    pass
        return self._slow(state, inputs, named, out)

    def _slow(self, state: _State, inputs, named, out):
        name = self._operator.name
        tensors = self._inputs(inputs, named)
        self._refuse(state, tensors.values(), out)
        seen = views(name, tensors)
        try:
            server, found, plan = self._plan(state, seen)
        except NoKernel as problem:
            everything = {**tensors, **state.given}
            ordered = {n: everything[n] for n in self._operator.tensors if n in everything}
            return self._missing(problem, self._operator, ordered, self._attributes, out)
        first = next(iter(seen.values()))
        result, in_place = server.run(found, plan, seen, output_view(name, out, found, first))
        if in_place and first.kind == "torch" and found.direct(plan) and not named and plan.names == tuple(tensors):
            torch = self._torch = sys.modules["torch"]
            self._tensor = torch.Tensor
            if len(state.ready) >= 256:
                state.ready.clear()
            dtype = getattr(torch, plan.output.dtype)
            state.ready[tensors[plan.names[0]].shape] = (
                plan.launcher(first), found.call.output_shape, found.output_strides, dtype, torch.device(first.device))
        return result

    def _inputs(self, inputs, named) -> dict:
        names = self._operator.inputs
        if len(inputs) > len(names):
            raise ArgumentError(f"{self.operator}: a bound call takes the inputs {', '.join(names)}, got {len(inputs)} tensors")
        tensors = dict(zip(names, inputs))
        for name, value in named.items():
            if name not in names or name in tensors:
                raise ArgumentError(f"{self.operator}: a bound call takes the inputs {', '.join(names)} once each, got {name}")
            tensors[name] = value
        for name in names:
            if tensors.get(name) is None:
                tensors.pop(name, None)
                if self._operator.required(name):
                    raise ArgumentError(f"{self.operator}: the tensor {name} is required, got None or nothing")
        return tensors

    def _refuse(self, state: _State, inputs, out) -> None:
        wanted = {f"input {i}": t for i, t in enumerate(inputs)}
        refuse_gradients(self.operator, {**wanted, "out": out, **state.given})

    def _plan(self, state: _State, seen):
        everything = {**seen, **state.seen}
        server = self._servers.of(device_of(self.operator, everything), self.operator)
        found = server.find(self.operator, everything, self._attributes)
        key = (server.device, found.kernel.entry["symbol"], tuple(found.call.dims.items()))
        with state.lock:
            plan = state.plans.get(key)
            if plan is None:
                held = self._held(state, server, found.kernel, found.call, next(iter(everything.values())))
                plan = server.builder.plan(found.kernel, found.call, held)
                if len(state.plans) >= 256:
                    state.plans.clear()
                state.plans[key] = plan
        return server, found, plan

    def _held(self, state: _State, server: Server, kernel: Kernel, call: Resolved, like: arrays.View | None) -> dict:
        """What a kernel wants of the parameters; shared by all sizes for which its prepared buffers have the same shape."""
        entry = kernel.entry
        sizes = [evaluate(tree, call.symbols) for a in (entry.get("prepare") or {"args": []})["args"] for tree in a["shape"]]
        key = (server.device, entry["symbol"], *sizes)
        if key not in state.held:
            held = server.builder.prepare(kernel, call, state.raw, like)
            server.builder.settle(like)
            state.held[key] = held
        return state.held[key]

    def _make(self, given: dict) -> _State:
        given = {n: t for n, t in given.items() if t is not None}
        seen = views(self.operator, given)
        first = next(iter(seen.values()), None)
        device = device_of(self.operator, seen, self._servers.first.device)
        try:
            server = self._servers.of(device, self.operator)
            return self._prepared(_State(given, seen, True), server, first)
        except NoKernel:
            if self._missing.mode == "error":
                raise
        return _State(given, seen, False)

    def _prepared(self, state: _State, server: Server, first: arrays.View | None) -> _State:
        """The state with what can be prepared before the inputs are known. Raises NoKernel if no kernel can ever serve it."""
        candidates = self._candidates(state, server)
        if not candidates:
            raise NoKernel(self._no_candidate(state, server))
        if len(candidates) == 1 and not candidates[0][0].general and (first or server.device == arrays.CPU):
            self._held(state, server, *candidates[0], first)
            state.raw = {}
        server.builder.settle(first)
        return state

    def _candidates(self, state: _State, server: Server) -> list[tuple[Kernel, Resolved]]:
        """Kernels that these parameters and attributes can be for, each with the call it was made for."""
        found = []
        for kernel in server.table.all(self.operator):
            try:
                call = self._operator.resolve({**self._imagined(kernel), **state.shapes}, self._attributes)
            except (ArgumentError, NoKernel):
                continue
            if matches(kernel, call, kernel.entry["layout"]):
                found.append((kernel, call))
        return found

    def _imagined(self, kernel: Kernel) -> dict:
        """Shapes and dtypes of the inputs that a kernel was made for (its smallest sizes where it takes several)."""
        entry = kernel.entry
        dims = {d: p if isinstance(p, int) else max(p.get("min", 1), p.get("multiple", 1)) for d, p in entry["dims"].items()}
        for signature in self._operator.signatures:
            names = {t["name"]: t["dtype"] for t in signature["tensors"]}
            if names == entry["dtypes"]:
                values = dict(dims)
                for spec in signature["attributes"]:
                    values.update(symbol_values(spec, kernel.attributes[spec["name"]]))
                inputs = [t for t in signature["tensors"] if t["kind"] == "input"]
                return {t["name"]: (tuple(evaluate(d, values) for d in t["dims"]), t["dtype"]) for t in inputs}
        return {}

    def _no_candidate(self, state: _State, server: Server) -> str:
        shapes = ", ".join(f"{n} {v.dtype} {v.shape}" for n, v in state.seen.items())
        attributes = ", ".join(f"{n}={_listed(v)}" for n, v in self._attributes.items())
        ids = "; ".join(k.entry["id"] for k in server.table.all(self.operator)[:3]) or "none at all"
        what = (shapes or "no parameters") + (f" with {attributes}" if attributes else "")
        return f"bind: no kernel of {self.operator} fits {what}; the library holds {ids}"

    def update(self, **parameters) -> None:
        """Take new values for some parameters; the others are read again from the tensors given before. Calls see all or none."""
        with self._update_lock:
            for name in parameters:
                if name not in self._state.given:
                    bound = ", ".join(self._state.given) or "no parameters"
                    raise ArgumentError(f"update: this call was bound with {bound}, not with {name}")
            self._state = self._make({**self._state.given, **parameters})

    def check(self) -> list[str]:
        """Names of parameters that were changed in place since they were bound (torch only: by the tensor's version counter)."""
        state = self._state
        return [n for n, version in state.versions.items() if version is not None and _version(state.given[n]) != version]

    @property
    def nbytes(self) -> int:
        """Bytes that this call holds: prepared and copied parameters, and an algorithm's constant matrices."""
        state = self._state
        buffers = {b.pointer: b.nbytes for held in [state.raw, *state.held.values()] for b in held.values()}
        return sum(buffers.values())

    def __repr__(self) -> str:
        given = ", ".join(f"{n}{list(v.shape)}" for n, v in self._state.seen.items())
        return f"<bound {self.operator}({given})>"

    def __deepcopy__(self, memo):
        """A second bound call. Parameters copied in the same deepcopy (a module's) become its own; prepared memory is shared."""
        twin = object.__new__(Bound)
        twin.__dict__.update(self.__dict__)
        twin._update_lock = threading.Lock()
        copied = {n: memo[id(t)] for n, t in self._state.given.items() if id(t) in memo}
        if copied:
            twin._state = twin._make({**self._state.given, **copied})
        memo[id(self)] = twin
        return twin

    def __copy__(self):
        return self.__deepcopy__({})

    def __reduce_ex__(self, protocol):
        raise TypeError(f"a bound call of {self.operator} holds prepared memory of this process and cannot be pickled; "
                        "pickle the parameters, and call lib.bind again where they are loaded")


def _version(tensor) -> int | None:
    """Torch's count of in-place changes; None where it is not kept (numpy, inference tensors)."""
    if not arrays.is_torch(tensor) or tensor.is_inference():
        return None
    return tensor._version
