"""Index and value expressions: what a stage computes at one point of its iteration space.

One node type serves indices and elements of integer tensors (`int`), other values (`float`) and conditions (`bool`); only `reindex` ever changes one. Nodes know nothing
of targets; the oracle, the formula printer, the counters, the role analysis and every emitter walk the same tree.
"""

from __future__ import annotations

from ..errors import ArgumentError
from ..runtime.sizes import evaluate
from .size import Size, tree_of, value_of

COMPARE = ("==", "!=", "<", "<=", ">", ">=")
INTEGERS = ("int8", "uint8", "int32")  # dtypes whose elements are integer values: their arithmetic is exact, in int32
LOGIC = ("and", "or")


class Expr:
    """A node: `op`, child expressions `args`, result `dtype` ("int", "float" or "bool") and `data`.

    `data` holds the axis name, the constant, the size tree with its value, or a load's tensor name and padding.
    """

    __slots__ = ("op", "args", "dtype", "data", "_loads", "_axes")

    def __init__(self, op, args=(), dtype="float", data=None):
        self.op, self.args, self.dtype, self.data = op, tuple(args), dtype, data
        self._loads = self._axes = None  # found when first asked for: spaces ask thousands of times

    def reindex(self, args):
        """Read at these indices from now on, also in every expression that holds this load already."""
        self.args, self._loads, self._axes = tuple(args), None, None

    def __add__(self, o): return binary("+", self, o)
    def __radd__(self, o): return binary("+", o, self)
    def __sub__(self, o): return binary("-", self, o)
    def __rsub__(self, o): return binary("-", o, self)
    def __mul__(self, o): return binary("*", self, o)
    def __rmul__(self, o): return binary("*", o, self)
    def __truediv__(self, o): return binary("/", self, o)
    def __rtruediv__(self, o): return binary("/", o, self)
    def __floordiv__(self, o): return binary("//", self, o)
    def __rfloordiv__(self, o): return binary("//", o, self)
    def __mod__(self, o): return binary("%", self, o)
    def __neg__(self): return unary("neg", self)
    def __abs__(self): return unary("abs", self)
    def __lt__(self, o): return compare("<", self, o)
    def __le__(self, o): return compare("<=", self, o)
    def __gt__(self, o): return compare(">", self, o)
    def __ge__(self, o): return compare(">=", self, o)
    def __eq__(self, o): return compare("==", self, o)
    def __ne__(self, o): return compare("!=", self, o)
    def __and__(self, o): return Expr("and", (condition(self), condition(o)), "bool")
    def __or__(self, o): return Expr("or", (condition(self), condition(o)), "bool")
    def __invert__(self): return Expr("not", (condition(self),), "bool")

    __hash__ = object.__hash__  # nodes are equal only to themselves; == builds a condition
    equals = __eq__

    def __bool__(self):
        raise ArgumentError("an index or value expression has no truth value while an operator is declared; use o.select(condition, a, b)")

    def walk(self):
        """This node and everything below it."""
        yield self
        for a in self.args:
            yield from a.walk()

    def loads(self) -> list:
        """The reads of tensors that occur, in order."""
        if self._loads is None:
            self._loads = tuple(e for e in self.walk() if e.op == "load")
        return list(self._loads)

    def axes(self) -> list[str]:
        """Names of the axes that occur, in order of first occurrence."""
        if self._axes is None:
            self._axes = tuple(dict.fromkeys(e.data for e in self.walk() if e.op == "axis"))
        return list(self._axes)

    def __repr__(self):
        from .formula import expression
        return expression(self)


class Axis(Expr):
    """A loop of the iteration space. `size` is its extent."""

    __slots__ = ("size",)

    def __init__(self, name, size):
        super().__init__("axis", (), "int", name)
        self.size = size

    @property
    def name(self):
        return self.data


def lift(v) -> Expr:
    """A number, size or condition as an expression; an expression as it is. Raises ArgumentError for anything else."""
    if isinstance(v, Expr):
        return v
    if isinstance(v, Size):
        if not isinstance(v.tree, (list, str)):
            return Expr("const", (), "int", v.value)
        return Expr("size", (), "int", (v.tree, v.value))
    if isinstance(v, bool):
        return Expr("const", (), "bool", v)
    if isinstance(v, float):
        return Expr("const", (), "float", float(v))
    if hasattr(v, "__index__"):
        return Expr("const", (), "int", int(v))
    raise ArgumentError(f"cannot use {type(v).__name__} in an expression; expected an axis, a tensor element, a size or a number")


def condition(v) -> Expr:
    """`v` as a condition; raises ArgumentError for an index or a value."""
    e = lift(v)
    if e.dtype != "bool":
        raise ArgumentError(f"expected a condition such as a comparison, got the {'index' if e.dtype == 'int' else 'value'} {e!r}")
    return e


def is_const(e: Expr, value=None):
    """Whether e is a known number (a traced size counts only if it cannot change, as a constant does)."""
    return e.op == "const" and (value is None or e.data == value)


def constant(e: Expr):
    """The value of a constant or size node, else None."""
    if e.op == "const":
        return e.data
    return e.data[1] if e.op == "size" else None


def factors(e: Expr) -> list:
    """The factors of a product in order, those of its factors included; of anything else itself."""
    return [f for a in e.args for f in factors(a)] if e.op == "*" else [e]


def binary(op, a, b) -> Expr:
    """`a op b`: of two integers an integer, folded where both are known or one changes nothing; else a float. Raises ArgumentError for conditions and `/` of integers."""
    a, b = lift(a), lift(b)
    if "bool" in (a.dtype, b.dtype):
        raise ArgumentError(f"cannot compute {op} with the condition {a if a.dtype == 'bool' else b!r}; use o.select(condition, 1.0, 0.0)")
    if a.dtype == b.dtype == "int":
        if op == "/":
            raise ArgumentError("/ between indices is ambiguous; use // or o.float(...)")
        if is_const(a) and is_const(b):
            if b.data == 0 and op in ("//", "%"):
                raise ArgumentError(f"cannot divide the index {a!r} by zero")
            return Expr("const", (), "int", evaluate([op, a.data, b.data], {}))
        if op == "+" and is_const(a, 0) or op == "*" and is_const(a, 1):
            return b
        if op in "+-" and is_const(b, 0) or op in ("*", "//") and is_const(b, 1):
            return a
        return Expr(op, (a, b), "int")
    a, b = to_float(a), to_float(b)
    return Expr(op, (a, b), "float")


def unary(op, a) -> Expr:
    """A function of one value: integers stay integers under "neg" and "abs" only."""
    a = lift(a)
    if op in ("neg", "abs"):
        return Expr(op, (a,), a.dtype)
    return Expr(op, (to_float(a),), "float")


def compare(op, a, b) -> Expr:
    """The condition `a op b`; as floats where only one is an integer."""
    a, b = lift(a), lift(b)
    if a.dtype != b.dtype:
        a, b = to_float(a), to_float(b)
    return Expr(op, (a, b), "bool")


def to_float(e) -> Expr:
    """An integer or index as a float value."""
    e = lift(e)
    if e.dtype == "float":
        return e
    if e.op == "const":
        return Expr("const", (), "float", float(e.data))
    return Expr("float", (e,), "float")


def to_int(e) -> Expr:
    """A float value that already is integral, as an index (a gather's coordinate after floor)."""
    e = lift(e)
    return e if e.dtype == "int" else Expr("int", (e,), "int")


def substitute(e: Expr, mapping) -> Expr:
    """Replace axes by expressions. `mapping`: axis name → Expr."""
    if e.op == "axis":
        return mapping.get(e.data, e)
    if not e.args:
        return e
    return Expr(e.op, [substitute(a, mapping) for a in e.args], e.dtype, e.data)


class Padding:
    """How a tensor continues outside its extents: per dimension (before, after) and a mode.

    Modes as in torch.nn.functional.pad: zeros, reflect, replicate, circular; and "value": an element `fill` of a parameter.
    Indices count from the first padded position, as the formula of a window reads: x[p * stride + r * dilation].
    """

    MODES = ("zeros", "reflect", "replicate", "circular", "value")
    __slots__ = ("amounts", "mode", "fill")

    def __init__(self, amounts, mode="zeros", fill=None):
        if mode not in self.MODES:
            raise ArgumentError(f"padding mode must be one of {', '.join(self.MODES)}, got {mode!r}")
        if (mode == "value") != (fill is not None) or fill is not None and (fill.op != "load" or fill.axes()):
            raise ArgumentError("padding by value takes one element of a parameter, and no other mode takes any")
        self.amounts, self.mode, self.fill = tuple(amounts), mode, fill

    def to_json(self):
        filled = {"fill": to_json(self.fill)} if self.fill is not None else {}
        return {"amounts": [[[tree_of(a), value_of(a)] for a in pair] for pair in self.amounts], "mode": self.mode, **filled}

    @staticmethod
    def from_json(d, guards):
        return Padding([tuple(Size(t, v, guards) for t, v in pair) for pair in d["amounts"]], d["mode"], from_json(d["fill"]) if "fill" in d else None)


class Tensor:
    """Something that can be indexed: an input, a parameter or a stage's result. Indexing gives an element's expression.

    `kind`: "int" where its elements are integers, else "float".
    """

    def __init__(self, name, sizes, padding: Padding | None = None, kind="float"):
        self.name, self.sizes, self.padding, self.kind = name, tuple(sizes), padding, kind

    def __getitem__(self, index) -> Expr:
        index = index if isinstance(index, tuple) else (index,)
        if len(index) != len(self.sizes):
            raise ArgumentError(f"{self.name} has {len(self.sizes)} dimensions, but is indexed by {len(index)}")
        return Expr("load", [lift(i) for i in index], self.kind, (self.name, self.padding))

    def padded(self, amounts, mode="zeros", fill: Expr | None = None) -> "Tensor":
        """The same tensor, readable outside its extents. `amounts`: (before, after) for the last len(amounts) dimensions; `fill`: for mode "value"."""
        if len(amounts) > len(self.sizes) or not all(isinstance(a, (tuple, list)) and len(a) == 2 for a in amounts):
            raise ArgumentError(f"padding of {self.name} must be (before, after) pairs for at most {len(self.sizes)} dimensions, got {amounts!r}")
        full = [(0, 0)] * (len(self.sizes) - len(amounts)) + [tuple(a) for a in amounts]
        return Tensor(self.name, self.sizes, Padding(full, mode, fill), self.kind)


def to_json(e: Expr):
    """As lists, strings and numbers; `from_json` makes the same expression of them."""
    if e.op == "axis":
        return ["axis", e.data]
    if e.op == "const":
        return ["const", e.dtype, e.data]
    if e.op == "size":
        return ["size", *e.data]
    if e.op == "load":
        name, padding = e.data
        return ["load", name, padding.to_json() if padding else None, [to_json(a) for a in e.args], *(["int"] if e.dtype == "int" else [])]
    if e.op == "table":
        return ["table", list(e.data), to_json(e.args[0])]
    return [e.op, e.dtype, [to_json(a) for a in e.args]]


def from_json(j) -> Expr:
    if j[0] == "axis":
        return Expr("axis", (), "int", j[1])
    if j[0] == "const":
        return Expr("const", (), j[1], j[2])
    if j[0] == "size":
        return Expr("size", (), "int", (j[1], j[2]))
    if j[0] == "load":
        padding = Padding.from_json(j[2], []) if j[2] else None
        return Expr("load", [from_json(a) for a in j[3]], j[4] if len(j) > 4 else "float", (j[1], padding))
    if j[0] == "table":
        return Expr("table", [from_json(j[2])], "float", tuple(j[1]))
    return Expr(j[0], [from_json(a) for a in j[2]], j[1])
