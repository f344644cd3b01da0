"""`@operator`: a declaration becomes an Operator, which makes workloads and can be inlined into other declarations."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import Callable

from ..errors import ArgumentError
from ..runtime import attributes as A
from . import expr as E
from .builder import Builder
from .epilogue import ACTIVATIONS, TENSORS
from .size import Size

EPILOGUE = (*TENSORS, "activation")
WINDOW = ("KD", "KH", "KW", "K")  # dims that an id writes as k3x3, and `kernel=` sets together
_RESERVED = {"dtype", "acc_dtype", "out_dtype", "layout", "any_batch", "kernel", *EPILOGUE}
_TYPES = {bool: "bool", int: "int", float: "float", str: "str"}


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


@dataclass(frozen=True)
class Prepared:
    """A PyTorch formulation in two steps, for peers that fold parameters once: `run(w, **prepare(w, **tensors))`."""

    prepare: Callable
    run: Callable

    def __call__(self, w, **tensors):
        return self.run(w, **self.prepare(w, **tensors))


class Operator:
    """A convolution operator: its name, its dims and attributes, and how to make workloads of it.

    `op(N=1, C=64, ...)` gives a Workload. `op(o, tensor=..., attribute=..., DIM=...)` inside another declaration inlines its stages and returns
    the value; tensors and dims that are not given are the outer declaration's by the same name.
    """

    def __init__(self, fn: Callable, dims: str, cite: str | None, baseline=None, workloads=(), positional: str | None = None,
                 optional: str = "", channel_axis: int = 1, epilogue: bool = True, formulations: dict | None = None, convolution: Callable | None = None,
                 types=()):
        self.types = tuple(types)
        self.convolution = convolution
        self.fn, self.name, self.module = fn, fn.__name__, fn.__module__
        self.citation, self._workloads = cite, tuple(workloads)
        self.formulations = ({"torch": baseline} if baseline is not None else {}) | (formulations or {})  # the first is the baseline
        self.optional, self.channel_axis, self.epilogue = tuple(optional.split()), channel_axis, epilogue
        self.dims, self.dim_defaults = [], {}
        for d in dims.split():
            letter, _, default = d.partition("=")
            self.dims.append(letter)
            if default:
                self.dim_defaults[letter] = int(default)
        self.attributes = {name: {"name": name, **self._spec(name, p.default)} for name, p in list(inspect.signature(fn).parameters.items())[1:]}
        self._check_names()
        if epilogue:
            self.attributes["activation"] = {"name": "activation", "type": "str", "choices": [None, *ACTIVATIONS], "default": None}
        self.positional = positional.split() if positional else None
        self.__doc__ = inspect.getdoc(fn)

    def _spec(self, name, default) -> dict:
        if isinstance(default, dict) and "type" in default:
            spec = default
        elif type(default) in _TYPES:
            spec = {"type": _TYPES[type(default)], "default": default}
        else:
            raise ArgumentError(f"{self.name}: attribute {name} needs a default that is a number, a text, ints(), pads(), choice() or integer()")
        for text in spec.get("choices", [spec["default"]] if spec["type"] == "str" else []):
            check_text(self.name, name, text)
        return spec

    def _check_names(self):
        for d in self.dims:
            if not re.fullmatch("[A-Z]+", d):
                raise ArgumentError(f"{self.name}: dimension {d!r} must consist of capital letters, so that ids can be read back")
        names = [*self.dims, *self.attributes, *self.optional]
        twice = sorted({n for n in names if names.count(n) > 1})
        taken = sorted((_RESERVED if self.epilogue else _RESERVED - set(EPILOGUE)) & set(names))
        if twice or taken:
            raise ArgumentError(f"{self.name}: the name {(twice or taken)[0]!r} " + ("is used twice" if twice else "is reserved"))

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
        return next(iter(self.formulations.values()), None)

    def workloads(self) -> list:
        """The shapes of published models."""
        from .ids import parse
        return [parse(f"{self.name}:{w}", operator=self) for w in self._workloads]

    def window_dims(self) -> list:
        return [d for d in self.dims if d in WINDOW]

    # -- use ----------------------------------------------------------------------------------------------------------
    def __call__(self, *args, **kw):
        if args and isinstance(args[0], Builder):
            return self._inline(args[0], kw)
        if args:
            raise ArgumentError(f"{self.name}: dimensions and attributes are given by keyword, for example {self.name}({self.dims[0]}=1, ...)")
        from .workload import make
        return make(self, kw)

    def _inline(self, outer: Builder, kw):
        trace, values, given = outer._trace, {}, {}
        dims = {d: trace.size(default) for d, default in self.dim_defaults.items()}
        dims |= {d: outer._sizes[d] for d in self.dims if d in outer._sizes}
        for name, v in kw.items():
            if name in self.attributes:
                values[name] = v
            elif name in self.dims and hasattr(v, "__index__"):
                dims[name] = trace.size(v)
            elif isinstance(v, (E.Tensor, E.Expr)):
                given[name] = v
            else:
                raise ArgumentError(f"{self.name}: {name} must be an attribute, a dimension or a tensor, got {v!r}")
        inner = outer._nested(self.name, dims, given)
        attributes = {}
        for n, spec in sorted(self.attributes.items(), key=lambda i: i[1]["type"] == "pads"):
            attributes[n] = inlined(self, spec, values.get(n, spec["default"]), inner, attributes)
        activation = attributes.pop("activation", None)
        value = self.fn(inner, **attributes)
        return outer._adopt(inner, value, [t for t in TENSORS if t in given and self.epilogue], activation, self.channel_axis)

    def __repr__(self):
        return f"<operator {self.name}: {self.summary}>"


def check_text(operator, name, text):
    """Ids carry texts as they are, so a text must not contain what separates an id's parts."""
    if text is not None and not re.fullmatch(r"[A-Za-z0-9_.+-]+", str(text)):
        raise ArgumentError(f"{operator}: {name} must consist of letters, digits and _.+-, got {text!r}")


def traced(spec, value, guards):
    """A canonical attribute as the declaration sees it: integers as traced sizes, everything else as it is."""
    name = spec["name"]
    if spec["type"] == "ints":
        return tuple(Size(f"{name}.{i}", v, guards) for i, v in enumerate(value))
    if spec["type"] == "pads":
        return tuple((Size(f"{name}.{i}.lo", lo, guards), Size(f"{name}.{i}.hi", hi, guards)) for i, (lo, hi) in enumerate(value))
    return Size(name, value, guards) if spec["type"] == "int" else value


def inlined(op: Operator, spec, value, inner: Builder, known):
    """An attribute of an inlined operator: numbers, or the outer declaration's sizes, which stay symbolic."""
    size = inner._trace.size
    if spec["type"] == "pads" and value == "same":
        window = [getattr(inner, d) for d in op.window_dims()]
        dilation = known.get("dilation", (1,) * len(window))
        totals = [(k - 1) * d for k, d in zip(window, dilation)]
        return tuple((size(t // 2), size(t - t // 2)) for t in totals)
    canonical = A.canonical(op.name, spec, _plain(value))  # refuses what does not fit; also the form of all that holds no size
    if spec["type"] == "int":
        return size(value)
    if spec["type"] == "ints":
        return tuple(map(size, value if isinstance(value, (tuple, list)) else (value,) * spec["rank"]))
    if spec["type"] == "pads":
        value = canonical if isinstance(value, str) else value if isinstance(value, (tuple, list)) else (value,) * spec["rank"]
        return tuple(tuple(map(size, v if isinstance(v, (tuple, list)) else (v, v))) for v in value)
    return canonical


def _plain(value):
    """The value with numbers for sizes, without recording a guard."""
    if isinstance(value, (tuple, list)):
        return tuple(_plain(v) for v in value)
    return value.value if isinstance(value, Size) else value


def operator(*, dims: str, cite: str | None = None, baseline=None, workloads=(), positional: str | None = None, optional: str = "",
             channel_axis: int = 1, epilogue: bool = True, formulations: dict | None = None, convolution: Callable | None = None, types=()):
    """Declare an operator.

    dims: the sizes a workload gives, as capital letters in order, "M=1" for a default. cite: paper. baseline(w, **tensors): the typical PyTorch
    formulation. formulations: several by label, for benchmarks, the typical one first; instead of baseline or beside it. workloads: published shapes, as ids
    without the name. positional: order of the call's positional arguments where PyTorch has the function; default: tensors, then keywords. optional: names
    of tensors that a workload may leave out. channel_axis: which output axis bias follows. epilogue: whether bias, bn, residual, activation and gate may be appended.
    convolution(w, **parameters): the ordinary convolution that a workload is (see convgen/ops/plain.py), where libraries that know only those can do it.
    types: the dtypes it exists in, as ids write them ("u8.i32.u8"), the usual one first; default: any floating storage.
    """
    def wrap(fn):
        return Operator(fn, dims, cite, baseline, workloads, positional, optional, channel_axis, epilogue, formulations, convolution, types)
    return wrap
