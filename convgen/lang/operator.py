"""`@operator`: a declaration becomes an Operator, which makes workloads and can be inlined into other declarations."""

from __future__ import annotations

import inspect
from typing import Callable

from ..errors import ArgumentError
from ..runtime import attributes as A
from . import expr as E
from .builder import Builder
from .size import Size

EPILOGUE = ("bias", "activation", "residual")
_RESERVED = {"dtype", "acc_dtype", "out_dtype", "layout", "any_batch", "kernel", *EPILOGUE}


def ints(rank: int, default: int = 1, minimum: int = 1) -> dict:
    """Attribute of `rank` integers, one per spatial dim; an int stands for all."""
    return {"type": "ints", "rank": rank, "default": default, "minimum": minimum}


def pads(rank: int, default=0) -> dict:
    """Attribute of `rank` paddings: int, ints, (before, after) pairs, 'same' or 'valid'."""
    return {"type": "pads", "rank": rank, "default": default}


def choice(*values) -> dict:
    """Attribute that is one of a few names; the first is the default."""
    return {"type": "str", "choices": list(values), "default": values[0]}


def integer(default: int = 1, minimum: int = 1) -> dict:
    """Integer attribute."""
    return {"type": "int", "default": default, "minimum": minimum}


class Operator:
    """A convolution operator: its name, its dims and attributes, and how to make workloads of it.

    `op(N=1, C=64, ...)` gives a Workload. `op(o, tensor=..., attribute=...)` inside another declaration inlines its stages and returns the value.
    """

    def __init__(self, fn: Callable, dims: str, cite: str | None, baseline=None, sample=None, workloads=(), positional: str | None = None,
                 optional: str = "", channel_axis: int = 1, epilogue: bool = True):
        self.fn, self.name = fn, fn.__name__
        self.citation, self._baseline, self.sampler, self._workloads = cite, baseline, sample, tuple(workloads)
        self.optional, self.channel_axis, self.epilogue = tuple(optional.split()), channel_axis, epilogue
        self.dims, self.dim_defaults = [], {}
        for d in dims.split():
            letter, _, default = d.partition("=")
            self.dims.append(letter)
            if default:
                self.dim_defaults[letter] = int(default)
        self.attributes = {}
        for name, p in list(inspect.signature(fn).parameters.items())[1:]:
            self.attributes[name] = {"name": name, **_spec(p.default)}
        if epilogue:
            self.attributes["activation"] = {"name": "activation", "type": "str", "default": None}
        if _RESERVED & (set(self.attributes) - {"activation"}):
            raise ArgumentError(f"{self.name}: attribute names {sorted(_RESERVED & set(self.attributes))} are reserved")
        self.positional = positional.split() if positional else None
        self.__doc__ = inspect.getdoc(fn)
        self.module = fn.__module__

    # -- facts --------------------------------------------------------------------------------------------------------
    @property
    def summary(self) -> str:
        return (self.__doc__ or "").split("\n")[0]

    @property
    def formula(self) -> str:
        """The stages in index notation, for the first published workload."""
        from .formula import formula
        return formula(self.workloads()[0].program) if self._workloads else f"{self.name} (no workload to print a formula for)"

    @property
    def baseline(self):
        """What people run in PyTorch today: f(workload, **tensors) -> tensor, or None."""
        return self._baseline

    def workloads(self) -> list:
        """The shapes of published models."""
        from .workload import parse
        return [parse(f"{self.name}:{w}", operator=self) for w in self._workloads]

    def window_dims(self) -> list:
        return [d for d in self.dims if d in ("KD", "KH", "KW", "K")]

    # -- use ----------------------------------------------------------------------------------------------------------
    def __call__(self, *args, **kw):
        if args and isinstance(args[0], Builder):
            return self._inline(args[0], kw)
        if args:
            raise ArgumentError(f"{self.name}: dimensions and attributes are given by keyword, for example {self.name}({self.dims[0]}=1, ...)")
        from .workload import make
        return make(self, kw)

    def _inline(self, outer: Builder, kw):
        values, given, dims = {}, {}, dict(outer._sizes)
        for name, v in kw.items():
            if name in self.attributes:
                values[name] = v
            elif name in self.dims:
                dims[name] = v
            elif isinstance(v, (E.Tensor, E.Expr)):
                given[name] = v
            else:
                raise ArgumentError(f"{self.name}: {name!r} is neither an attribute, a dimension nor a tensor")
        for d, default in self.dim_defaults.items():
            dims.setdefault(d, default)
        inner = Builder(self.name, dims, outer._dtype, outer._present, parent=outer, given=given)
        attributes = {n: values.get(n, traced(n, s, A.canonical(self.name, s, s["default"]), outer._guards, plain=True)) for n, s in self.attributes.items() if n != "activation"}
        return inner.activation(values.get("activation"), self.fn(inner, **attributes))

    def __repr__(self):
        return f"<operator {self.name}: {self.summary}>"


def _spec(default) -> dict:
    if isinstance(default, dict):
        return default
    if default is inspect.Parameter.empty:
        raise ArgumentError("every attribute of a declaration needs a default")
    kind = {bool: "bool", int: "int", float: "float", str: "str"}.get(type(default), "str")
    return {"type": kind, "default": default}


def traced(name, spec, value, guards, plain=False):
    """An attribute as the declaration sees it: integers as traced sizes (unless `plain`), everything else as it is."""
    def number(symbol, v):
        return Size(v if plain else symbol, v, guards)

    if spec["type"] == "ints":
        return tuple(number(f"{name}.{i}", v) for i, v in enumerate(value))
    if spec["type"] == "pads":
        return tuple((number(f"{name}.{i}.lo", lo), number(f"{name}.{i}.hi", hi)) for i, (lo, hi) in enumerate(value))
    return number(name, value) if spec["type"] == "int" else value


def operator(*, dims: str, cite: str | None = None, baseline=None, sample=None, workloads=(), positional: str | None = None, optional: str = "",
             channel_axis: int = 1, epilogue: bool = True):
    """Declare an operator.

    dims: the sizes a workload gives, as letters in order, "M=1" for a default. cite: paper. baseline(w, **tensors): the PyTorch formulation.
    sample(w, rng): realistic input values by tensor name, for those that should not be standard normal. workloads: published shapes, as ids without the name.
    positional: order of the call's positional arguments where PyTorch has the function; default: tensors, then keywords. optional: names of tensors that a
    workload may leave out. channel_axis: which output axis bias follows. epilogue: whether bias, activation and residual may be appended.
    """
    def wrap(fn):
        return Operator(fn, dims, cite, baseline, sample, workloads, positional, optional, channel_axis, epilogue)
    return wrap
