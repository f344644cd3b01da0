"""Calling an operator of a library: `lib.conv2d(x, weight, padding=1)`. Nothing is remembered about a tensor but its shape."""

from __future__ import annotations

import sys
from typing import Any

from convgen.errors import NoKernel
from convgen.runtime import fallback
from convgen.runtime.serve import Found, device_of, output_view, refuse_gradients, views
from convgen.runtime.servers import Servers

_READY = 4096  # remembered calls


class OperatorCall:
    """One operator of a library.

    Tensors keep their logical (channels first) shape; the result has the memory format of the first input. A tensor that a
    kernel cannot read in place (gaps, misaligned, other format than the first input) is copied, and `lib.stats()` counts it.
    Parameters that a kernel wants prepared are prepared at every call; `lib.bind` does that once.
    """

    def __init__(self, servers: Servers, name: str, missing: fallback.Missing):
        self._servers, self.__name__, self._missing = servers, name, missing
        self._ready: dict = {}
        self._torch: Any = None
        self._types: tuple = ()

    def __repr__(self) -> str:
        operator = self._servers.operators[self.__name__]
        names = [*operator.positional, *(n for n in [*operator.tensors, *operator.attributes] if n not in operator.positional)]
        return f"<operator {self.__name__}({', '.join(names)})>"

    def __call__(self, *args, **kwargs):
        """Result of the operator; arguments as in torch.nn.functional, and `out=` for a tensor to write into.

        Raises ArgumentError, NoKernel, or RuntimeError for a tensor that requires grad in grad mode.
        """
        ready = self.ready(args, kwargs)
        if ready is not None:
            tensors = ready.pick(args, kwargs)
            if self._torch.is_grad_enabled() and any([t.requires_grad for t in tensors]):
                refuse_gradients(self.__name__, {f"tensor {i}": t for i, t in enumerate(tensors)})
            result = ready(tensors)
            if result is not None:
                return result
        return self._slow(args, kwargs)

    def ready(self, args, kwargs) -> "Ready | None":
        """What is remembered of an earlier call with arguments like these."""
        try:
            return self._ready.get(self._key(args, kwargs))
        except TypeError:  # a list among the arguments, or an array
            return None

    def _key(self, args, kwargs) -> tuple:
        types = self._types
        # one tuple more around a tuple, which else equals the shape of a tensor in its place
        key = [a.shape if type(a) in types else (a,) if isinstance(a, tuple) else a for a in args]
        if kwargs:
            key += [(n, a.shape if type(a) in types else (a,) if isinstance(a, tuple) else a) for n, a in kwargs.items()]
        if self._servers.has_cuda:
            key.append(device_key(args, kwargs))
        return tuple(key)

    def _slow(self, args, kwargs):
        kwargs = dict(kwargs)
        out = kwargs.pop("out", None)
        name, operator = self.__name__, self._servers.operators[self.__name__]
        tensors, attributes = operator.arguments(args, kwargs)
        refuse_gradients(name, {**tensors, "out": out})
        seen = views(name, tensors)
        try:
            server = self._servers.of(device_of(name, seen), name)
            found = server.find(name, seen, attributes)
            plan = server.plan(found)
        except NoKernel as problem:
            return self._missing(problem, operator, tensors, attributes, out)
        first = next(iter(seen.values()))
        result, in_place = server.run(found, plan, seen, output_view(name, out, found, first))
        if in_place and out is None and first.kind == "torch":
            self._remember(args, kwargs, tensors, found, plan, first)
        return result

    def _remember(self, args, kwargs, tensors, found: Found, plan, first) -> None:
        torch = sys.modules["torch"]
        types = (torch.Tensor, torch.nn.Parameter)
        if any(type(t) not in types for t in tensors.values()) or len({id(t) for t in tensors.values()}) != len(tensors):
            return  # a subclass may mean more than its data; one tensor in two places could not be told apart
        self._torch, self._types = torch, types
        places = {id(value): place for place, value in [*enumerate(args), *kwargs.items()]}
        if len(self._ready) >= _READY:
            self._ready.clear()
        try:
            self._ready[self._key(args, kwargs)] = Ready(torch, plan, found, [places[id(tensors[n])] for n in plan.names], first)
        except TypeError:
            pass


def device_key(args, kwargs):
    """What tells calls on different devices apart; the plan checks that all tensors are on one."""
    return getattr(args[0] if args else next(iter(kwargs.values()), None), "device", None)


class Ready:
    """An earlier call of plain torch tensors, to be repeated for others of the same shapes; the plan checks all but the shapes."""

    __slots__ = ("_run", "_count", "_places", "_empty", "_shape", "_strides", "_dtype", "_device")

    def __init__(self, torch, plan, found: Found, places, first):
        self._run, self._empty = plan.launcher(first), torch.empty_strided
        self._shape, self._strides = found.call.output_shape, found.output_strides
        self._dtype, self._device = getattr(torch, plan.output.dtype), torch.device(first.device)
        self._places = places
        self._count = len(places) if places == list(range(len(places))) else None

    def pick(self, args, kwargs):
        """The tensors of a call in the plan's order."""
        if self._count is not None:
            return args[:self._count]
        return [args[p] if p.__class__ is int else kwargs[p] for p in self._places]

    def __call__(self, tensors):
        """The result, or None if the plan refuses these tensors or fails; the checked way then tells why."""
        out = self._empty(self._shape, self._strides, dtype=self._dtype, device=self._device)
        try:
            return out if self._run(*tensors, out) == 0 else None
        except Exception:
            return None
