"""What a declaration talks to: it names axes and tensors, writes stages, and records everything in one Program."""

from __future__ import annotations

from ..errors import ArgumentError
from . import expr as E
from .program import Program, Stage, TensorSpec
from .size import Size, tree_of, value_of

LENGTHS = ("D", "H", "W", "L")  # dims that are positions; sizes made by `out` join them


class Builder:
    """The `o` of a declaration. Dims are attributes (`o.C`), everything else is a method.

    Raises ArgumentError, naming operator and dimension, for a dim that the workload does not give.
    """

    def __init__(self, operator: str, dims: dict, dtype="float32", present=(), parent: "Builder | None" = None, given=None, prefix=""):
        self._operator, self._parent, self._given, self._prefix = operator, parent, given or {}, prefix
        self._dtype, self._present = dtype, set(present)
        if parent is None:
            self._guards, self._tensors, self._stages, self._checks, self._names = [], [], [], [], set()
            self._spatial = set(LENGTHS)
        else:
            self._guards, self._tensors, self._stages = parent._guards, parent._tensors, parent._stages
            self._checks, self._names, self._spatial = parent._checks, parent._names, set(LENGTHS)
        self._sizes = {k: v if isinstance(v, Size) else Size(k, int(v), self._guards) for k, v in dims.items()}
        self._output_axes: list | None = None

    # -- sizes --------------------------------------------------------------------------------------------------------
    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self._sizes[name]
        except KeyError:
            raise ArgumentError(f"{self._operator}: dimension {name} is missing") from None

    def size(self, name: str, value):
        """Name a derived size, so that axes and tensors can use it by letter."""
        self._sizes[name] = value if isinstance(value, Size) else Size(int(value), int(value), self._guards)
        return self._sizes[name]

    def out(self, name: str, value):
        """Name a derived size that is an output position (a row, a column, a time step)."""
        self._spatial.add(name)
        return self.size(name, value)

    def window_size(self, length, kernel, stride, dilation, pad):
        """The usual size rule: floor((length + before + after - dilation (kernel - 1) - 1) / stride) + 1."""
        return (length + pad[0] + pad[1] - dilation * (kernel - 1) - 1) // stride + 1

    def require(self, left, comparison: str, right, message: str):
        """State a check on the arguments, in the words of its error message. It is tested now and shipped with every library."""
        self._checks.append({"test": [comparison, tree_of(left), tree_of(right)], "message": message})
        from ..runtime.sizes import evaluate
        if not evaluate([comparison, value_of(left), value_of(right)], {}):
            raise ArgumentError(f"{self._operator}: {message}, got {value_of(left)} and {value_of(right)}")

    # -- axes and tensors ---------------------------------------------------------------------------------------------
    def _unique(self, name):
        full, i = self._prefix + name, 2
        while full in self._names:
            full, i = f"{self._prefix}{name}{i}", i + 1
        self._names.add(full)
        return full

    def _size_of(self, d):
        return getattr(self, d) if isinstance(d, str) else d

    def axis(self, name: str, size):
        """One loop of the given extent."""
        return E.Axis(self._unique(name), size if isinstance(size, Size) else Size(int(size), int(size), self._guards))

    def axes(self, names: str):
        """Output axes in order, from size letters: o.axes("N C P Q"). The first call states the operator's output."""
        made = [self.axis(n.lower(), self._size_of(n)) for n in names.split()]
        if self._output_axes is None:
            self._output_axes = made
            self._output_spatial = tuple(i for i, n in enumerate(names.split()) if n in self._spatial)
        return made

    def window(self, names: str):
        """Reduced axes, from size letters."""
        made = [self.axis(n.lower(), self._size_of(n)) for n in names.split()]
        return made if len(made) > 1 else made[0]

    def _declare(self, name, kind, dims):
        if len(dims) == 1 and isinstance(dims[0], str):
            dims = dims[0].split()
        if name in self._given:
            return self._given[name]
        sizes = [self._size_of(d) for d in dims]
        spatial = tuple(i for i, d in enumerate(dims) if isinstance(d, str) and d in self._spatial)
        sizes = [s if isinstance(s, Size) else Size(int(s), int(s), self._guards) for s in sizes]
        name = self._unique(name)
        self._tensors.append(TensorSpec(name, kind, [tree_of(s) for s in sizes], tuple(value_of(s) for s in sizes), self._dtype, spatial))
        return E.Tensor(name, sizes)

    def input(self, name: str, *dims, pad=None, mode="zeros") -> E.Tensor:
        """A tensor that changes per call. `dims`: letters in one string, or letters and sizes. `pad`: (before, after) for the last dims."""
        t = self._declare(name, "input", dims)
        return t.padded(pad, mode) if pad is not None else t

    def param(self, name: str, *dims) -> E.Tensor:
        """A tensor that is constant at inference; stages that read only such tensors run once, when they are bound."""
        return self._declare(name, "param", dims)

    def has(self, name: str) -> bool:
        """Whether the workload states that the optional tensor `name` is given."""
        return name in self._present or name in self._given

    # -- values -------------------------------------------------------------------------------------------------------
    def _reduce(self, combiner, body, axes, name):
        axes = list(axes) if isinstance(axes, (tuple, list)) else [axes]
        return self._materialise(E.to_float(body), axes, combiner, name or combiner, None)[1]

    def _materialise(self, body, reduce, combiner, name, axes):
        if axes is None:
            found = {e.data: e for e in body.walk() if e.op == "axis"}
            reduced = {a.data for a in reduce}
            axes = [a for n, a in found.items() if n not in reduced]
            order = [a.data for a in self._root()._output_axes or []]
            axes.sort(key=lambda a: order.index(a.data) if a.data in order else len(order))
        name = self._unique(name)
        stage = Stage(name, list(axes), list(reduce), combiner, body)
        self._stages.append(stage)
        tensor = E.Tensor(name, [a.size for a in axes])
        return tensor, E.Expr("load", axes, "float", (name, None))

    def _root(self):
        return self if self._parent is None or self._output_axes else self._parent._root()

    def sum(self, body, axes, name=None):
        """Sum of `body` over `axes`; the other axes it mentions are the result's."""
        return self._reduce("sum", body, axes, name)

    def max(self, body, axes, name=None):
        return self._reduce("max", body, axes, name)

    def min(self, body, axes, name=None):
        return self._reduce("min", body, axes, name)

    def stage(self, value, axes, name="stage") -> E.Tensor:
        """Give a value its own tensor, to be read at other positions. `axes`: the order of its dimensions."""
        if value.op == "load" and self._stages and value.data == (self._stages[-1].name, None) and [a.data for a in value.args] != [a.data for a in axes]:
            last = self._stages[-1]
            if sorted(a.data for a in last.axes) == sorted(a.data for a in axes):
                last.axes = list(axes)
                return E.Tensor(last.name, [a.size for a in axes])
        if value.op == "load" and self._stages and value.data == (self._stages[-1].name, None):
            return E.Tensor(value.data[0], [a.size for a in axes])
        return self._materialise(E.to_float(value), [], None, name, axes)[0]

    def softmax(self, logits, axis):
        """Softmax of `logits` along `axis`: exp(v - max v) / sum."""
        top = self.max(logits, axis, name="top")
        weights = self.stage(self.exp(logits - top), E_axes(logits), name="exp")
        total = self.sum(weights[tuple(E_axes(logits))], axis, name="total")
        return weights[tuple(E_axes(logits))], total

    def select(self, condition, yes, no):
        """`yes` where the condition holds, else `no`. Only the chosen side is read, so the other may point outside its tensor."""
        yes, no = E.lift(yes), E.lift(no)
        dtype = "int" if yes.dtype == no.dtype == "int" else "float"
        if dtype == "float":
            yes, no = E.to_float(yes), E.to_float(no)
        return E.Expr("select", (condition, yes, no), dtype)

    def concat(self, parts, axis: E.Axis):
        """Join values along `axis`. `parts`: (length, function of the position within the part) in order."""
        value, start, pieces = None, 0, []
        for length, make in parts:
            pieces.append((start, length, make))
            start = start + length
        start, length, make = pieces[-1]
        value = E.to_float(make(axis - start))
        for start, length, make in reversed(pieces[:-1]):
            value = self.select(E.lift(axis) < start + length, make(axis - start), value)
        return value

    def exp(self, v): return E.unary("exp", v)
    def sigmoid(self, v): return E.unary("sigmoid", v)
    def tanh(self, v): return E.unary("tanh", v)
    def erf(self, v): return E.unary("erf", v)
    def sqrt(self, v): return E.unary("sqrt", v)
    def floor(self, v): return E.unary("floor", v)
    def float(self, v): return E.to_float(v)
    def int(self, v): return E.to_int(v)
    def minimum(self, a, b): return E.binary("min", a, b)
    def maximum(self, a, b): return E.binary("max", a, b)

    def activation(self, kind: str | None, v):
        """An activation by its PyTorch name, or the value itself for None."""
        if kind is None:
            return v
        if kind not in ACTIVATIONS:
            raise ArgumentError(f"{self._operator}: activation must be one of {', '.join(ACTIVATIONS)}, got {kind!r}")
        return ACTIVATIONS[kind](self, v)

    # -- the end ------------------------------------------------------------------------------------------------------
    def finish(self, value, flags, channel_axis, **program) -> Program:
        """Append the epilogue the workload asks for, close the output stage, and return the Program."""
        axes = self._output_axes
        last = self._stages[-1] if self._stages else None
        epilogue = flags.get("bias") or flags.get("residual") or flags.get("activation")
        if epilogue and last is not None and last.combiner in ("max", "min") and value.op == "load" and value.data[0] == last.name:
            raise ArgumentError(f"{self._operator}: bias, residual and activation follow a linear last stage only, and this one takes a {last.combiner}")
        if flags.get("bias"):
            channel = axes[channel_axis]
            value = value + self.param("bias", channel.size)[channel]
        if flags.get("residual"):
            residual = self._declare("residual", "input", [a.size for a in axes])
            self._tensors[-1].spatial = self._output_spatial
            value = value + residual[tuple(axes)]
        value = self.activation(flags.get("activation"), value)
        same = last is not None and value.op == "load" and value.data == (last.name, None) and [a.data for a in value.args] == [a.data for a in last.axes] == [a.data for a in axes]
        if not same:
            self._materialise(E.to_float(value), [], None, "out", axes)
        for a in axes:
            if value_of(a.size) < 1:
                raise ArgumentError(f"{self._operator}: output dimension {a.name.upper()} would be {value_of(a.size)}; the window does not fit the input")
            self._checks.append({"test": [">=", tree_of(a.size), 1], "message": "the window must fit the padded input"}) if isinstance(tree_of(a.size), list) else None
        output = TensorSpec("out", "output", [tree_of(a.size) for a in axes], tuple(value_of(a.size) for a in axes), self._dtype, self._output_spatial)
        return Program(self._operator, tensors=self._tensors, stages=self._stages, output=output, when=self._guards, checks=self._checks, flags=flags, **program)


def E_axes(value):
    """The axes of a value in order of first occurrence, as Axis nodes."""
    return list({e.data: e for e in value.walk() if e.op == "axis"}.values())


ACTIVATIONS = {
    "relu": lambda o, v: o.maximum(v, 0.0),
    "relu6": lambda o, v: o.minimum(o.maximum(v, 0.0), 6.0),
    "sigmoid": lambda o, v: o.sigmoid(v),
    "tanh": lambda o, v: o.tanh(v),
    "silu": lambda o, v: v * o.sigmoid(v),
    "gelu": lambda o, v: v * (o.erf(v * 0.7071067811865476) + 1.0) * 0.5,
    "hardswish": lambda o, v: v * o.minimum(o.maximum(v + 3.0, 0.0), 6.0) * (1.0 / 6.0),
}
