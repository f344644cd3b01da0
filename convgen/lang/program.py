"""A traced description: tensors, stages in order, and what was assumed. It is the value that every other room reads."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property

from . import expr as E
from .size import Size, tree_of, value_of

FORMAT = 1


@dataclass
class TensorSpec:
    """A tensor at the operator's border. `trees` are its dims as size expressions, `shape` their values here.

    `spatial` lists the dims that are positions in the plane, volume or sequence: they move forward in channels_last memory.
    `values` says what realistic contents look like (sampling.normal, uniform, rows), None for the usual ones.
    `parts`: per dim the caller's dims that it merges, as (tree, size) pairs (lang.merge); None where nothing is merged. Not stored.
    """

    name: str
    kind: str  # "input" changes per call, "param" is constant at inference, "output"
    trees: list
    shape: tuple
    dtype: str
    spatial: tuple = ()
    values: dict | None = None
    parts: tuple | None = None

    def to_json(self):
        return {"name": self.name, "kind": self.kind, "trees": self.trees, "shape": list(self.shape), "dtype": self.dtype,
                "spatial": list(self.spatial), "values": self.values}

    @staticmethod
    def from_json(d):
        return TensorSpec(d["name"], d["kind"], d["trees"], tuple(d["shape"]), d["dtype"], tuple(d["spatial"]), d.get("values"))

    def permutation(self, layout: str) -> tuple:
        """Order of the logical dims in memory: row-major, or (dim 0, spatial, rest) for channels_last data."""
        dims = range(len(self.shape))
        if layout == "channels_first" or self.kind == "param" or not self.spatial:
            return tuple(dims)
        rest = [d for d in dims if d != 0 and d not in self.spatial]
        return (0, *self.spatial, *rest) if 0 not in self.spatial else (*self.spatial, *rest)

    def memory(self, layout: str) -> list:
        """The caller's dims in memory order, each as (logical dim, tree, size)."""
        parts = self.parts or [((tree, size),) for tree, size in zip(self.trees, self.shape)]
        first = [sum(map(len, parts[:d])) for d in range(len(parts))]
        return [(first[d] + k, tree, size) for d in self.permutation(layout) for k, (tree, size) in enumerate(parts[d])]


@dataclass
class Stage:
    """One loop nest: `name[axes] = combine over reduce of body`, or just `body` where nothing is reduced."""

    name: str
    axes: list  # of Axis
    reduce: list  # of Axis
    combiner: str | None  # "sum", "max", "min" or None
    body: E.Expr

    @property
    def shape(self):
        return tuple(value_of(a.size) for a in self.axes)

    @cached_property
    def flops(self) -> int:
        from .count import stage_flops
        return stage_flops(self)

    def to_json(self):
        ax = lambda a: [a.name, tree_of(a.size), value_of(a.size)]
        return {"name": self.name, "axes": [ax(a) for a in self.axes], "reduce": [ax(a) for a in self.reduce], "combiner": self.combiner,
                "body": E.to_json(self.body)}

    @staticmethod
    def from_json(d):
        ax = lambda a: E.Axis(a[0], Size(a[1], a[2], []))
        return Stage(d["name"], [ax(a) for a in d["axes"]], [ax(a) for a in d["reduce"]], d["combiner"], E.from_json(d["body"]))


def bound(tensors, stages) -> tuple:
    """Those of the stages that read only parameters (directly or through such stages): they run once, when weights are bound.

    A stage that reads nothing (a table of positions) belongs to them where one of them reads it.
    """
    constant = {t.name for t in tensors if t.kind == "param"}
    found = {}
    for s in stages:
        loads = {e.data[0] for e in s.body.loads()}
        if loads <= constant:
            constant.add(s.name)
            found[s.name] = loads
    read = {name for loads in found.values() for name in loads}
    return tuple(s for s in stages if s.name in found and (found[s.name] or s.name in read))


@dataclass
class Program:
    """An operator at one workload. `stages` are in order of dependence; the last one is the output."""

    operator: str
    dims: dict
    attributes: dict
    flags: dict  # bias, activation, residual, any_batch and the optional tensors that are present
    layout: str
    acc_dtype: str
    tensors: list
    stages: list
    output: TensorSpec
    when: list = field(default_factory=list)
    checks: list = field(default_factory=list)
    id: str = ""
    signature: dict = field(default_factory=dict)

    # -- structure ---------------------------------------------------------------------------------------------------
    def stage(self, name) -> Stage | None:
        return next((s for s in self.stages if s.name == name), None)

    def tensor(self, name) -> TensorSpec | None:
        return next((t for t in self.tensors if t.name == name), None)

    def shape(self, name) -> tuple:
        """Extents of a tensor or a stage's result."""
        return (self.tensor(name) or self.stage(name)).shape

    @cached_property
    def bind_stages(self) -> tuple:
        """Those of `bound`; the last stage runs with every call."""
        return bound(self.tensors, self.stages[:-1])

    @cached_property
    def run_stages(self) -> tuple:
        """All others: they run with every call."""
        bound = {s.name for s in self.bind_stages}
        return tuple(s for s in self.stages if s.name not in bound)

    @cached_property
    def constants(self) -> frozenset:
        """Names of everything that does not change from call to call: parameters, and stages computed when they are bound."""
        return frozenset(t.name for t in self.tensors if t.kind == "param") | {s.name for s in self.bind_stages}

    @property
    def any_batch(self) -> bool:
        return bool(self.flags.get("any_batch"))

    # -- identity ----------------------------------------------------------------------------------------------------
    def to_json(self) -> dict:
        return {
            "format": FORMAT, "operator": self.operator, "dims": self.dims, "attributes": self.attributes, "flags": self.flags, "layout": self.layout,
            "acc_dtype": self.acc_dtype, "tensors": [t.to_json() for t in self.tensors], "stages": [s.to_json() for s in self.stages],
            "output": self.output.to_json(), "when": self.when, "checks": self.checks, "id": self.id, "signature": self.signature,
        }

    @staticmethod
    def from_json(d) -> "Program":
        if d.get("format") != FORMAT:
            raise ValueError(f"description format {d.get('format')!r} is unknown; this release reads {FORMAT}")
        return Program(
            d["operator"], d["dims"], d["attributes"], d["flags"], d["layout"], d["acc_dtype"], [TensorSpec.from_json(t) for t in d["tensors"]],
            [Stage.from_json(s) for s in d["stages"]], TensorSpec.from_json(d["output"]), d["when"], d["checks"], d["id"], d["signature"])

    @property
    def hash(self) -> str:
        """sha256 of the symbolic description: what is computed, free of the sizes of this workload where they stayed symbolic."""
        symbolic = {
            "operator": self.operator, "tensors": [[t.name, t.kind, t.trees] for t in self.tensors], "output": self.output.trees,
            "stages": [_symbolic(s.to_json()) for s in self.stages],
        }
        return hashlib.sha256(json.dumps(symbolic, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    # -- derived ------------------------------------------------------------------------------------------------------
    @property
    def flops(self) -> int:
        from .count import flops
        return flops(self)

    @property
    def bytes(self) -> int:
        from .count import least_bytes
        return least_bytes(self)

    @property
    def integral(self) -> bool:
        """Whether it computes with elements of integer tensors."""
        return any(t.dtype in E.INTEGERS for t in self.tensors)

    @property
    def exact(self) -> bool:
        """Whether the result is defined bit by bit (oracle E applies).

        On integers: sums are of integers, and every float operation is rounded to float32 at once. Else, where integers stay integers: only sums,
        products, maxima, minima and selections, and no fractions among constants.
        """
        if self.integral:
            return all((s.combiner is None or s.body.dtype == "int") and _bitwise(s.body) for s in self.stages)
        allowed = {"load", "const", "size", "axis", "float", "+", "-", "*", "min", "max", "neg", "abs", "select", "//", "%", *E.COMPARE, *E.LOGIC, "not"}
        return all(e.op in allowed and (e.op != "const" or float(e.data).is_integer()) for s in self.stages for e in s.body.walk())

    def reference(self, tensors):
        """Float64 result, computed without TVM. `tensors`: name → array of the tensor's logical shape."""
        from .oracle import evaluate
        return evaluate(self, tensors)[0]

    def reference_with_bound(self, tensors):
        """(y, S, n): float64 result, condition sum (for a convolution the sum of |w| |x|; carry.Rounding), number of accumulations.

        An evaluation in precision u differs by at most c·min(n, 4 sqrt n)·u·S with c = 2, before its result is rounded to storage.
        """
        from .carry import Rounding
        from .oracle import evaluate
        return evaluate(self, tensors, Rounding())

    def sample(self, seed=0):
        from .sampling import realistic
        return realistic(self, seed)

    def sample_integers(self, seed=0, limit=2**24):
        from .sampling import integers
        return integers(self, seed, limit)


_STEPS = {"load", "const", "min", "max", "select", "round", "floor", "neg", "abs", "single"}  # float values that need no rounding


def _bitwise(e, rounded=False) -> bool:
    """Whether every float operation below is rounded to float32 on its own. `rounded`: the result of this one is."""
    if e.dtype == "float" and e.op not in _STEPS and not (rounded and e.op in ("+", "-", "*", "/", "sqrt", "float")):
        return False
    return all(_bitwise(a, e.op == "single") for a in e.args)


def _symbolic(j):
    """A stage's JSON without the values that sizes happen to have here."""
    if isinstance(j, dict):
        return {k: _symbolic(v) if k != "axes" and k != "reduce" else [a[:2] for a in v] for k, v in j.items() if k != "amounts"} | (
            {"amounts": [[a[0] for a in pair] for pair in j["amounts"]]} if "amounts" in j else {})
    if isinstance(j, list):
        return ["size", j[1]] if len(j) == 3 and j[0] == "size" else [_symbolic(v) for v in j]
    return j
