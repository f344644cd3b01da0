"""From expressions of the language to TIR: operations, positions, and elements of tensors with their padding."""

from __future__ import annotations

from tvm import te, tirx

from ..lang import access, expr as E
from ..lang.ranges import interval
from ..lang.size import tree_of, value_of
from . import vector_math

_LEAST = -(1 << 20)  # below every index whose axes are not known
COMBINE = {"sum": te.sum, "max": te.max, "min": te.min}
_OPS = {
    "+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "/": lambda a, b: a / b, "//": tirx.floordiv, "%": tirx.floormod,
    "min": te.min, "max": te.max, "==": lambda a, b: a.equal(b) if hasattr(a, "equal") else tirx.EQ(a, b), "!=": lambda a, b: tirx.NE(a, b), "<": lambda a, b: a < b, "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b, ">=": lambda a, b: a >= b, "and": tirx.all, "or": tirx.any, "not": lambda a: tirx.Not(a), "neg": lambda a: 0 - a,
    "abs": te.abs, "sqrt": te.sqrt, "floor": te.floor, "round": tirx.nearbyint, "single": lambda a: a, "float": lambda a: a.astype("float32"), "int": lambda a: a.astype("int32"),
}


class Values:
    """The values of one Program. `math` says how functions are written (vector_math, device_math).

    `border`: name of each of the caller's tensors → (placeholder, its order of dims in memory). `tensors`: name of each stage → (its result, Layout, stage), and of
    each copy and packed parameter → tensor. `ranges`: axis → (first, last) of the stage at hand.
    """

    def __init__(self, program, math=vector_math):
        self.program, self.math = program, math
        self.batch = te.var("N") if program.any_batch else None
        self.tensors, self.border, self.ranges = {}, {}, {}
        for t in program.tensors:
            perm = t.permutation(program.layout)
            shape = [self.dim(t.trees[d], t.shape[d]) for d in perm]
            self.border[t.name] = (te.placeholder(shape, t.dtype, name=t.name), perm)

    def dim(self, tree, value):
        """A size: the batch where its tree says so and that is open, else `value`."""
        return self.batch if self.batch is not None and tree == "N" else value

    def extent_of(self, name, d):
        """The size of dim `d` of a tensor of the caller or of a stage's result."""
        spec = self.program.tensor(name)
        if spec is not None:
            return self.dim(spec.trees[d], spec.shape[d])
        return value_of(self.program.stage(name).axes[d].size)

    def value(self, e, axes, read, indexing=False):
        """A TIR expression. `axes`: axis name → index; `read(load, index)`: the element of a tensor; `indexing`: it becomes a position."""
        op = e.op
        if op == "axis":
            return axes[e.data]
        if op == "const":
            return tirx.const(e.data, access.computed(e))
        if op == "size":
            return self.dim(e.data[0], tirx.const(e.data[1], "int32"))
        if op == "load":
            return read(e, [self.value(a, axes, read) for a in e.args])
        if op == "table":  # folds to one constant where the loops are unrolled
            at, chosen = self.value(e.args[0], axes, read), tirx.const(e.data[-1], "float32")
            for i, v in reversed(list(enumerate(e.data[:-1]))):
                chosen = tirx.Select(tirx.EQ(at, tirx.const(i, "int32")), tirx.const(v, "float32"), chosen)
            return chosen
        if op == "single" and e.args[0].op in self.math.ROUNDED:
            return self.math.ROUNDED[e.args[0].op](*(self.value(x, axes, read, indexing) for x in e.args[0].args))
        if op == "+" and e.args[0].op in self.math.PLUS_ONE and E.constant(e.args[1]) == 1:
            return self.math.PLUS_ONE[e.args[0].op](self.value(e.args[0].args[0], axes, read, indexing))
        a = [self.value(x, axes, read, indexing or op == "int") for x in e.args]
        if op == "//" and e.args[0].op in ("+", "-") and (d := E.constant(e.args[1])):
            # TVM 0.27 takes (i % m + k) // d, which fused loops become, for ((i + k) % m) // d; a truncating division it leaves alone
            low = _LEAST if set(e.args[0].axes()) - set(self.ranges) else interval(e.args[0], self.ranges)[0]
            up = 0 if low >= 0 else -(max(low, _LEAST) // d)
            return tirx.truncdiv(a[0] + up * d, a[1]) - up
        if op == "select":
            heavy = any(x.op == "load" for x in e.args[1].walk()) or any(x.op == "load" for x in e.args[2].walk())
            return tirx.if_then_else(*a) if heavy else tirx.Select(*a)
        if op in self.math.FUNCTIONS:
            return self.math.FUNCTIONS[op](a[0])
        if op in ("min", "max") and e.dtype == "float":
            limits = [not x.loads() for x in e.args]
            # A comparison with NaN is false and takes the second operand: relu keeps NaN as PyTorch does, a clamped position stays inside.
            if limits[0] != limits[1] and limits[1] != indexing:
                a.reverse()
        return _OPS[op](*a)

    def element(self, name, index, padding, skip=(), fill=None, stored=False):
        """One element of a border tensor or stage result in the dtype of computing, or as it is `stored`, padding included. `index` counts from the first padded position.

        Dims in `skip` are never read at their padding. `fill`: what continues the tensor where that is a parameter's value.
        """
        of = element_of if not stored else lambda tensor, at: tensor(*at)
        if name in self.border:
            tensor, perm = self.border[name]
            spec = self.program.tensor(name)
            extents = [self.dim(spec.trees[d], spec.shape[d]) for d in range(len(index))]
            place = lambda i: [i[d] for d in perm]
        else:
            tensor, layout, stage = self.tensors[name]
            extents = [self.dim(tree_of(a.size), value_of(a.size)) for a in stage.axes]
            place = layout.index
        if padding is None:
            return of(tensor, place(index))
        guard, mapped = [], []
        for d, (i, n, pair) in enumerate(zip(index, extents, padding.amounts)):
            lo, hi = (value_of(v) for v in pair)
            if not lo and not hi:
                mapped.append(i)
                continue
            i = i - lo
            if d in skip:
                pass
            elif padding.mode in ("zeros", "value"):
                guard.append(tirx.all(i >= 0, i < n))
            elif padding.mode == "replicate":
                i = te.max(te.min(i, n - 1), 0)
            elif padding.mode == "circular":
                i = tirx.floormod(i, n)
            else:
                i = tirx.Select(i < 0, 0 - i, i)
                i = te.max(tirx.Select(i > n - 1, 2 * (n - 1) - i, i), 0)
            mapped.append(i)
        value = of(tensor, place(mapped))
        return tirx.if_then_else(tirx.all(*guard), value, zero(value) if fill is None else fill) if guard else value


def element_of(tensor, index):
    """An element in the dtype of computing: integers in int32, other values in float32."""
    value, stored = tensor(*index), str(tensor.dtype)
    if stored == "uint16":  # the bits of a bfloat16
        return tirx.reinterpret("float32", value.astype("uint32") << 16)
    wide = "int32" if stored in E.INTEGERS else "float32"
    return value if stored == wide else value.astype(wide)


def stored_as(value, dtype):
    """A value of computing as a copy keeps it."""
    return (tirx.reinterpret("uint32", value) >> 16).astype(dtype) if dtype == "uint16" else value.astype(dtype)


def zero(value):
    """Zero in the dtype of a value."""
    return tirx.const(0, str(value.ty))
