"""What a declaration talks to: it names axes and tensors, writes stages, and records everything in one Program."""

from __future__ import annotations

from ..errors import ArgumentError
from ..runtime import sizes
from . import expr as E
from .epilogue import ACTIVATIONS, appended
from .program import Program, Stage, TensorSpec
from .ranges import outside
from .size import Size, combine, tree_of, value_of

LENGTHS = ("D", "H", "W", "L")  # dims that are positions; sizes made by `out` join them


class Trace:
    """What a declaration, and everything inlined into it, has recorded so far. `symbols`: values of dims and attributes, for messages."""

    def __init__(self, dtype, symbols, out_dtype=None):
        self.dtype, self.symbols, self.out_dtype = dtype, symbols, out_dtype or dtype
        self.guards, self.tensors, self.stages, self.checks = [], [], [], []
        self.names = {"out": None}  # of axes, tensors and stages, in the order they were made; the output's is taken

    def unique(self, name):
        full, i = name, 2
        while full in self.names:
            full, i = f"{name}{i}", i + 1
        self.names[full] = None
        return full

    def in_order(self, axes):
        """Axes in the order they were made."""
        made = list(self.names)
        return sorted(axes, key=lambda a: made.index(a.data))

    def size(self, v) -> Size:
        return v if isinstance(v, Size) else Size(int(v), int(v), self.guards)


class Builder:
    """The `o` of a declaration. Dims are attributes (`o.C`), everything else is a method.

    Raises ArgumentError, naming operator and dimension, for a dim that the workload does not give.
    """

    def __init__(self, operator: str, dims: dict, trace: Trace, present=(), given=None):
        self._operator, self._trace, self._given, self._present = operator, trace, given or {}, set(present)
        self._sizes = {k: v if isinstance(v, Size) else Size(k, int(v), trace.guards) for k, v in dims.items()}
        self._spatial, self._used = set(LENGTHS), set()
        self._output_axes, self._output_spatial, self._stated = None, (), False

    def _refuse(self, why):
        raise ArgumentError(f"{self._operator}: {why}")

    # -- sizes --------------------------------------------------------------------------------------------------------
    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in self._sizes:
            self._refuse(f"dimension {name} is missing")
        return self._sizes[name]

    @property
    def out_dtype(self) -> str:
        """The dtype that the workload asks its output to have."""
        return self._trace.out_dtype

    def size(self, name: str, value):
        """Name a derived size, so that axes and tensors can use it by letter."""
        self._sizes[name] = self._trace.size(value)
        return self._sizes[name]

    def out(self, name: str, value):
        """Name a derived size that is an output position (a row, a column, a time step)."""
        self._spatial.add(name)
        return self.size(name, value)

    def window_size(self, length, kernel, stride, dilation, pad):
        """The usual size rule: floor((length + before + after - dilation (kernel - 1) - 1) / stride) + 1."""
        return (length + pad[0] + pad[1] - dilation * (kernel - 1) - 1) // stride + 1

    def larger(self, a, b):
        """The larger of two sizes, kept symbolic (Python's max would fix which one it is)."""
        return combine("max", a, b, self._trace.guards)

    def smaller(self, a, b):
        """The smaller of two sizes, kept symbolic."""
        return combine("min", a, b, self._trace.guards)

    def require(self, left, comparison: str, right, message: str):
        """State a check on the arguments, in the words of its error message. It is tested now and shipped with every library."""
        test = [comparison, tree_of(left), tree_of(right)]
        symbols = sorted(sizes.symbols(test))
        if symbols and {"test": test, "message": message} not in self._trace.checks:
            self._trace.checks.append({"test": test, "message": message})
        if not sizes.evaluate([comparison, value_of(left), value_of(right)], {}):
            got = ", ".join(f"{n} = {self._trace.symbols[n]}" for n in symbols) or f"{value_of(left)} and {value_of(right)}"
            self._refuse(f"{message}, got {got}")

    # -- axes and tensors ---------------------------------------------------------------------------------------------
    def _size_of(self, d):
        return self._trace.size(getattr(self, d) if isinstance(d, str) else d)

    def axis(self, name: str, size):
        """One loop of the given extent."""
        size = self._trace.size(size)
        if size.value < 1:
            self._refuse(f"axis {name} would have {size.value} elements, expected at least 1")
        return E.Axis(self._trace.unique(name), size)

    def axes(self, names: str):
        """Output axes in order, from size letters: o.axes("N C P Q"). The first call states the operator's output."""
        letters = names.split()
        for n in letters:
            size = self._size_of(n)
            if isinstance(size.tree, list):
                self.require(size, ">=", 1, f"output dimension {n} must be at least 1")
        made = [self.axis(n.lower(), self._size_of(n)) for n in letters]
        if not self._stated:
            self._stated, self._output_axes = True, made
            self._output_spatial = tuple(i for i, n in enumerate(letters) if n in self._spatial)
        return made

    def window(self, names: str):
        """Reduced axes, from size letters."""
        made = [self.axis(n.lower(), self._size_of(n)) for n in names.split()]
        return made if len(made) > 1 else made[0]

    def _declare(self, name, kind, dims, values=None, spatial=None, dtype=None):
        if len(dims) == 1 and isinstance(dims[0], str):
            dims = dims[0].split()
        extents = [self._size_of(d) for d in dims]
        shape = tuple(value_of(s) for s in extents)
        if name in self._given:
            self._used.add(name)
            given = self._given[name]
            found = tuple(value_of(s) for s in given.sizes)
            if found != shape:
                self._refuse(f"{name} must have shape {shape}, got {given.name} of shape {found}")
            return given
        if name in self._trace.names:
            self._refuse(f"the name {name} is taken; call the tensor otherwise, or hand the inner operator its own as {name}=...")
        if spatial is None:
            spatial = tuple(i for i, d in enumerate(dims) if isinstance(d, str) and d in self._spatial)
        self._trace.unique(name)
        dtype = dtype or self._trace.dtype
        self._trace.tensors.append(TensorSpec(name, kind, [tree_of(s) for s in extents], shape, dtype, spatial, values))
        return E.Tensor(name, extents, kind="int" if dtype in E.INTEGERS else "float")

    def input(self, name: str, *dims, pad=None, mode="zeros", fill=None, values: dict | None = None, dtype: str | None = None) -> E.Tensor:
        """A tensor that changes per call. `dims`: letters in one string, or letters and sizes. `pad`: (before, after) for the last dims.

        `fill`: an element of a parameter that continues it, for mode "value". `values`: what realistic contents are, where standard normal is not
        (sampling.normal, uniform, rows, whole). `dtype`: its storage where that is not the workload's own.
        """
        t = self._declare(name, "input", dims, values, dtype=dtype)
        return t.padded(pad, mode, fill) if pad is not None else t

    def param(self, name: str, *dims, values: dict | None = None, dtype: str | None = None) -> E.Tensor:
        """A tensor that is constant at inference; stages that read only such tensors run once, when they are bound."""
        return self._declare(name, "param", dims, values, dtype=dtype)

    def has(self, name: str) -> bool:
        """Whether the workload states that the optional tensor `name` is given."""
        return name in self._present or name in self._given

    # -- values -------------------------------------------------------------------------------------------------------
    def _reduce(self, combiner, body, axes, name):
        axes = list(axes) if isinstance(axes, (tuple, list)) else [axes]
        return self._materialise(body, axes, combiner, name or combiner, None)[1]

    def _materialise(self, body, reduce, combiner, name, axes):
        body = _value(body)
        reduced = {a.data for a in reduce}
        free = {e.data: e for e in body.walk() if e.op == "axis" and e.data not in reduced}
        if axes is None:
            axes = self._trace.in_order(free.values())
        left = [n for n in free if n not in {a.data for a in axes}]
        if left:
            self._refuse(f"the stage {name} depends on axis {left[0]}, which is neither reduced nor one of its own ({', '.join(a.data for a in axes)})")
        stage = Stage(self._trace.unique(name), list(axes), list(reduce), combiner, body)
        self._trace.stages.append(stage)
        tensor = E.Tensor(stage.name, [a.size for a in axes], kind=body.dtype)
        return tensor, tensor[tuple(axes)]

    def sum(self, body, axes, name=None):
        """Sum of `body` over `axes`; the other axes it mentions are the result's."""
        return self._reduce("sum", body, axes, name)

    def max(self, body, axes, name=None):
        """Maximum of `body` over `axes`."""
        return self._reduce("max", body, axes, name)

    def min(self, body, axes, name=None):
        """Minimum of `body` over `axes`."""
        return self._reduce("min", body, axes, name)

    def stage(self, value, axes=None, name="stage") -> E.Tensor:
        """Give a value its own tensor, to be read at other positions. `axes`: the order of its dimensions; default: as the axes were made."""
        value = _value(value)
        axes = self._trace.in_order(set_of_axes(value)) if axes is None else list(axes)
        last = self._trace.stages[-1] if self._trace.stages else None
        if last is not None and value.op == "load" and value.data == (last.name, None) and all(a.op == "axis" for a in value.args):
            if sorted(a.data for a in value.args) == sorted(a.data for a in axes) == sorted(a.data for a in last.axes):
                last.axes = axes  # no stage has read it yet: store it in the order asked for
                value.reindex(axes)
                return E.Tensor(last.name, [a.size for a in axes], kind=value.dtype)
        return self._materialise(value, [], None, name, axes)[0]

    def softmax(self, logits, axis):
        """Softmax of `logits` along `axis` as two tensors, over the axes of `logits` in order and over those without `axis`: exp(v - max v), and its sum."""
        axes = set_of_axes(logits)
        rest = [a for a in axes if a.data != axis.data]
        top = self.stage(self.max(logits, axis, name="top"), rest)
        weights = self.stage(self.exp(logits - top[tuple(rest)]), axes, name="exp")
        return weights, self.stage(self.sum(weights[tuple(axes)], axis, name="total"), rest)

    def select(self, condition, yes, no):
        """`yes` where the condition holds, else `no`. Only the chosen side is read, so the other may point outside its tensor."""
        condition, yes, no = E.condition(condition), E.lift(yes), E.lift(no)
        dtype = "int" if yes.dtype == no.dtype == "int" else "float"
        if dtype == "float":
            yes, no = E.to_float(yes), E.to_float(no)
        return E.Expr("select", (condition, yes, no), dtype)

    def concat(self, parts, axis: E.Axis):
        """Join values along `axis`. `parts`: (length, function of the position within the part) in order."""
        start, pieces = 0, []
        for length, make in parts:
            pieces.append((start, length, make))
            start = start + length
        start, length, make = pieces[-1]
        value = E.to_float(make(axis - start))
        for start, length, make in reversed(pieces[:-1]):
            value = self.select(axis < start + length, make(axis - start), value)
        return value

    def exp(self, v): return E.unary("exp", v)
    def sigmoid(self, v): return E.unary("sigmoid", v)
    def tanh(self, v): return E.unary("tanh", v)
    def erf(self, v): return E.unary("erf", v)
    def sqrt(self, v): return E.unary("sqrt", v)
    def floor(self, v): return E.unary("floor", v)

    def round(self, v):
        """The nearest integer, halves to the even one."""
        return E.unary("round", v)

    def single(self, v):
        """`v` rounded to float32: where every operation is, the result is defined bit by bit."""
        return E.unary("single", v)

    def float(self, v): return E.to_float(v)
    def int(self, v): return E.to_int(v)
    def minimum(self, a, b): return E.binary("min", a, b)
    def maximum(self, a, b): return E.binary("max", a, b)

    def activation(self, kind: str | None, v):
        """An activation by its PyTorch name, or the value itself for None."""
        if kind is None:
            return v
        if kind not in ACTIVATIONS:
            self._refuse(f"activation must be one of {', '.join(ACTIVATIONS)}, got {kind!r}")
        return ACTIVATIONS[kind](self, v)

    # -- the end ------------------------------------------------------------------------------------------------------
    def _result(self, value):
        """Check what a declaration returned."""
        if not isinstance(value, E.Expr):
            self._refuse(f"a declaration returns the value of one output element, got {type(value).__name__}")
        if self._output_axes is None:
            self._refuse("a declaration states its output axes with o.axes(...)")
        return _value(value)

    def finish(self, value, present, activation, channel_axis, **program) -> Program:
        """Append the epilogue the workload asks for, close the output stage, and return the Program."""
        trace, value = self._trace, self._result(value)
        axes = self._output_axes
        value = appended(self, value, present, activation, channel_axis)
        last, names = trace.stages[-1] if trace.stages else None, [a.data for a in axes]
        loaded = [a.data if a.op == "axis" else None for a in value.args]
        if last is None or value.op != "load" or value.data != (last.name, None) or not loaded == [a.data for a in last.axes] == names:
            del trace.names["out"]
            self._materialise(value, [], None, "out", axes)
        self._check_reads()
        output = TensorSpec("out", "output", [tree_of(a.size) for a in axes], tuple(value_of(a.size) for a in axes), trace.dtype, self._output_spatial)
        return Program(self._operator, tensors=trace.tensors, stages=trace.stages, output=output, when=trace.guards, checks=trace.checks, **program)

    def _check_reads(self):
        sizes_of = {t.name: t.shape for t in self._trace.tensors} | {s.name: s.shape for s in self._trace.stages}
        for stage in self._trace.stages:
            found = outside(stage, sizes_of)
            if found:
                tensor, d, (lo, hi), n = found
                self._refuse(f"the stage {stage.name} reads {tensor} at {lo} to {hi} of dimension {d}, "
                             f"which has {n} elements; pad it, clamp the index or use o.select")

    # -- composition --------------------------------------------------------------------------------------------------
    def _nested(self, operator, dims, given) -> "Builder":
        """The builder of an operator that is inlined here."""
        return Builder(operator, dims, self._trace, given={n: self._as_tensor(operator, n, v) for n, v in given.items()})

    def _as_tensor(self, operator, name, value) -> E.Tensor:
        """A tensor from a tensor, or from a value that is a whole stage."""
        if isinstance(value, E.Tensor):
            return value
        stage = next((s for s in self._trace.stages if value.op == "load" and value.data == (s.name, None)), None)
        if stage is None or [a.data if a.op == "axis" else None for a in value.args] != [a.data for a in stage.axes]:
            raise ArgumentError(f"{operator}: {name} must be a tensor; make one with o.stage(value, axes)")
        return E.Tensor(stage.name, [a.size for a in stage.axes], kind=stage.body.dtype)

    def _adopt(self, inner, value, present, activation, channel_axis):
        """The value of an inlined operator. This operator's output axes are those of the last one inlined, unless it states its own."""
        value = appended(inner, inner._result(value), present, activation, channel_axis)
        inner._used |= set(present)
        unused = sorted(set(inner._given) - inner._used)
        if unused:
            inner._refuse(f"there is no tensor {unused[0]} to give")
        if not self._stated:
            self._output_axes, self._output_spatial = inner._output_axes, inner._output_spatial
        return value


def _value(e) -> E.Expr:
    """What a stage computes: an integer where it comes from elements of integer tensors alone, else a float."""
    e = E.lift(e)
    return e if e.dtype == "int" and any(l.dtype == "int" for l in e.loads()) else E.to_float(e)


def set_of_axes(value):
    """The axes a value depends on, each once."""
    return list({e.data: e for e in value.walk() if e.op == "axis"}.values())

