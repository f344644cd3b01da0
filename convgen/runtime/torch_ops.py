"""Operators of a library as `torch.ops.convgen_<name>.<operator>`, for torch.compile, torch.export and scripts that want an op.

The schema is the operator's call with PyTorch's types. Explicit padding is written flat, as in torch.nn.functional.pad's order of
dimensions but first dimension first: one int, one per spatial dimension, or (before, after) per spatial dimension.
The fake implementation is shape arithmetic on the signature alone; kernels are looked up when real data arrives.
"""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, Callable, Mapping

import torch

from convgen.errors import LibraryError
from convgen.runtime.calls import OperatorCall, device_key
from convgen.runtime.layout import order, strides_of
from convgen.runtime.serve import call_formats, gradient_error
from convgen.runtime.signature import Operator

_TAGS = tuple(getattr(torch.Tag, name) for name in ("pt2_compliant_tag", "needs_exact_strides") if hasattr(torch.Tag, name))
_PLAIN = (torch.Tensor, torch.nn.Parameter)
_modes = torch._C._len_torch_dispatch_stack
_registered: dict[str, tuple[Any, torch.library.Library]] = {}


def register(library) -> None:
    """Define the library's operators; a second call does nothing. Raises LibraryError if the namespace is another library's."""
    namespace = f"convgen_{library.name}"
    if namespace in _registered:
        if _registered[namespace][0].sha256 != library.sha256:
            raise LibraryError(f"torch.ops.{namespace} belongs to another library; use load(path, name=...)")
        return
    definitions = torch.library.Library(namespace, "FRAGMENT")
    _registered[namespace] = (library, definitions)  # the definitions vanish with the object
    for name in library.operators:
        operator = library._operator(name)
        definitions.define(f"{name}{schema(operator)}", tags=_TAGS)
        operation = _Operation(namespace, operator, getattr(library, name), library._servers.has_cuda)
        for device in ("CPU", "CUDA"):  # tensors that the library does not serve get its own words
            definitions.impl(name, operation.real, device)
            definitions.impl(name, operation.autograd, f"Autograd{device}")
        offered = library._servers.first.table.offered[name]
        torch.library.register_fake(f"{namespace}::{name}", _fake(operator, offered), lib=definitions)


def schema(operator: Operator) -> str:
    """The torch schema of an operator: positional arguments in PyTorch's order, everything else by keyword only."""
    named = [n for n in [*operator.tensors, *operator.attributes] if n not in operator.positional]
    required = [n in operator.tensors and operator.required(n) for n in operator.positional]
    # PyTorch's grammar: an argument before a required one has no default.
    parts = [_argument(operator, n).partition("=")[0] if any(required[i + 1:]) else _argument(operator, n) for i, n in enumerate(operator.positional)]
    if named:
        parts += ["*", *(_argument(operator, n) for n in named)]
    return f"({', '.join(parts)}) -> Tensor"


def _argument(operator: Operator, name: str) -> str:
    if name not in operator.attributes:
        return f"Tensor {name}" if name in operator.tensors and operator.required(name) else f"Tensor? {name}=None"
    spec = operator.attributes[name]
    kind, default = spec["type"], spec.get("default")
    types = {"ints": f"int[{spec.get('rank', 1)}]", "pads": f"int[{spec.get('rank', 1)}]", "int": "int", "float": "float", "bool": "bool"}
    text = types.get(kind, "str")
    if default is None:
        return f"{text}? {name}=None"
    if kind == "pads":
        default = _flat(default)
    return f"{text} {name}={json.dumps(default) if not isinstance(default, bool) else default}"


def _flat(value):
    """Padding pairs as one flat list."""
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], (list, tuple)):
        return [side for pair in value for side in pair]
    return {"same": 0, "valid": 0}.get(value, value) if isinstance(value, str) else value


def _decoder(spec: Mapping) -> Callable | None:
    """What turns an argument of the torch schema into an attribute as the call takes it."""
    rank = spec.get("rank", 1)
    if spec["type"] == "ints":
        return lambda v: v if v is None else v[0] if len(v) == 1 else tuple(v)
    if spec["type"] == "pads":
        def pads(v):
            if len(v) == 1:
                return v[0]
            return tuple(zip(v[::2], v[1::2])) if len(v) == 2 * rank else tuple(v)
        return pads
    return None


def _decoded(operator: Operator) -> Callable[[tuple, dict], tuple[tuple, dict]]:
    decoders = {n: d for n, s in operator.attributes.items() if (d := _decoder(s))}
    places = {i: decoders[n] for i, n in enumerate(operator.positional) if n in decoders}
    first = min(places, default=len(operator.positional))

    def decode(args, kwargs):
        if len(args) > first:
            args = (*args[:first], *[places[i](a) if i in places else a for i, a in enumerate(args[first:], first)])
        if kwargs:
            kwargs = {n: decoders[n](v) if n in decoders else v for n, v in kwargs.items()}
        return args, kwargs

    return decode


class _Operation:
    """The implementations of one operator for real tensors, with a memory of calls keyed by the arguments as torch passes them."""

    def __init__(self, namespace: str, operator: Operator, call: OperatorCall, several: bool):
        self._namespace, self._name, self._call = namespace, operator.name, call
        self._several = several  # devices
        self._decode = _decoded(operator)
        self._ready: dict = {}
        self._operation = None

    def _known(self, args, kwargs):
        if kwargs:
            return None
        try:
            return self._ready.get(self._key(args))
        except TypeError:  # symbolic sizes
            return None

    def _key(self, args) -> tuple:
        key = [a.shape if type(a) in _PLAIN else tuple(a) if a.__class__ is list else a for a in args]
        if self._several:
            key.append(device_key(args, {}))
        return tuple(key)

    def real(self, *args, **kwargs):
        ready = self._known(args, kwargs)
        result = None if ready is None else ready(ready.pick(args, kwargs))
        return self._first(args, kwargs) if result is None else result

    def _first(self, args, kwargs):
        decoded = self._decode(args, kwargs)
        result = self._call(*decoded[0], **decoded[1])
        ready = self._call.ready(*decoded)
        if ready is not None and not kwargs:
            if len(self._ready) >= 4096:
                self._ready.clear()
            self._ready[self._key(args)] = ready
        return result

    def autograd(self, *args, **kwargs):
        """Refuses to drop a gradient, and goes straight to the kernel when nothing else wants to see the call."""
        if torch.is_grad_enabled() and any([a.requires_grad for a in (*args, *kwargs.values()) if isinstance(a, torch.Tensor)]):
            raise gradient_error(self._name, ["a tensor"])
        if not _modes():
            ready = self._known(args, kwargs)
            if ready is not None:
                result = ready(ready.pick(args, kwargs))
                if result is not None:
                    return result
        if self._operation is None:
            self._operation = getattr(getattr(torch.ops, self._namespace), self._name).default
        with torch._C._AutoDispatchBelowAutograd():
            return self._operation(*args, **kwargs)


def _fake(operator: Operator, offered) -> Callable:
    decode = _decoded(operator)

    def fake(*args, **kwargs):
        args, kwargs = decode(args, kwargs)
        tensors, attributes = operator.arguments(args, kwargs)
        seen = {n: SimpleNamespace(shape=t.shape, strides=t.stride(), dtype=str(t.dtype).removeprefix("torch.")) for n, t in tensors.items()}
        call = operator.resolve({n: (t.shape, t.dtype) for n, t in seen.items()}, attributes)
        output = call.signature["output"]
        best = call_formats(call, seen, offered)[0]
        perm = order(len(call.output_shape), tuple(output.get("spatial") or ()), best)
        like = next(iter(tensors.values()))
        return like.new_empty_strided(call.output_shape, strides_of(call.output_shape, perm), dtype=getattr(torch, output["dtype"]))

    return fake
