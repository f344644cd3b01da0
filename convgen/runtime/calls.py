"""Calling an operator of a library: `lib.conv2d(x, weight, padding=1)`. Nothing is remembered about a tensor but its shape."""

from __future__ import annotations

import sys
from typing import Any

from convgen.errors import NoKernel
from convgen.runtime import fallback
from convgen.runtime.serve import Found, Server, output_view, refuse_gradients, views

_READY = 4096  # remembered calls


class OperatorCall:
    """One operator of a library.

    Tensors keep their logical (channels first) shape; the result has the memory format of the first input. A tensor that a
    kernel cannot read in place (gaps, misaligned, other format than the first input) is copied, and `lib.stats()` counts it.
    Parameters that a kernel wants prepared are prepared at every call; `lib.bind` does that once.
    """

    def __init__(self, server: Server, name: str, missing: fallback.Missing):
        self._server, self.__name__, self._missing = server, name, missing
        self._ready: dict = {}
        self._torch: Any = None
        self._types: tuple = ()

    def __repr__(self) -> str:
        operator = self._server.operators[self.__name__]
        names = [*operator.positional, *(n for n in [*operator.tensors, *operator.attributes] if n not in operator.positional)]
        return f"<operator {self.__name__}({', '.join(names)})>"

    def __call__(self, *args, **kwargs):
        """Result of the operator; arguments as in torch.nn.functional, and `out=` for a tensor to write into.

        Raises ArgumentError, NoKernel, or RuntimeError for a tensor that requires grad in grad mode.
        """
        torch, types = self._torch, self._types
        try:
            key = (*[a.shape if type(a) in types else a for a in args],
                   *[(n, a.shape if type(a) in types else a) for n, a in kwargs.items()] if kwargs else ())
            ready = self._ready.get(key)
        except TypeError:  # a list among the arguments, or an array: the long way
            ready = None
        if ready is not None:
            run, picks, shape, strides, dtype, cpu = ready
            tensors = args if picks is None else [args[p] if p.__class__ is int else kwargs[p] for p in picks]
            if torch.is_grad_enabled() and any([t.requires_grad for t in tensors]):
                refuse_gradients(self.__name__, {f"tensor {i}": t for i, t in enumerate(tensors)})
            out = torch.empty_strided(shape, strides, dtype=dtype, device=cpu)
            try:
                if run(*tensors, out) == 0:
                    return out
            except Exception:  # a tensor without memory, or a failing kernel: the long way tells which
                pass
        return self._slow(args, kwargs)

    def _slow(self, args, kwargs):
        kwargs = dict(kwargs)
        out = kwargs.pop("out", None)
        name, server = self.__name__, self._server
        tensors, attributes = server.operators[name].arguments(args, kwargs)
        refuse_gradients(name, {**tensors, "out": out})
        seen = views(name, tensors)
        try:
            found = server.find(name, seen, attributes)
        except NoKernel as problem:
            return self._missing(problem, server.operators[name], tensors, attributes, out)
        first = next(iter(seen.values()))
        plan = server.plan(found)
        result, in_place = server.run(found, plan, seen, output_view(name, out, found, first))
        if in_place and out is None and first.kind == "torch":
            self._remember(args, kwargs, tensors, found, plan)
        return result

    def _remember(self, args, kwargs, tensors, found: Found, plan) -> None:
        torch = sys.modules["torch"]
        types = (torch.Tensor, torch.nn.Parameter)
        places = {id(value): place for place, value in [*enumerate(args), *kwargs.items()]}
        if any(type(t) not in types for t in tensors.values()):
            return
        picks: tuple | None = tuple(places[id(tensors[n])] for n in plan.names)
        if len({id(t) for t in tensors.values()}) != len(tensors):
            return  # one tensor in two places: its place would be ambiguous
        if picks == tuple(range(len(args))):
            picks = None
        self._torch, self._types = torch, types
        if len(self._ready) >= _READY:
            self._ready.clear()
        key = (*[a.shape if type(a) in types else a for a in args], *[(n, a.shape if type(a) in types else a) for n, a in kwargs.items()])
        try:
            self._ready[key] = (plan.run, picks, found.call.output_shape, found.output_strides,
                                getattr(torch, plan.output.dtype), torch.device("cpu"))
        except TypeError:
            pass


