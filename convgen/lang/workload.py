"""A Workload: one operator at one set of sizes, attributes, dtypes and layout."""

from __future__ import annotations

from functools import cached_property
from math import prod

from ..errors import ArgumentError
from ..runtime import attributes as A
from . import ids
from .batch import obstacle
from .builder import Builder, Trace
from .count import INDEXABLE
from .epilogue import TENSORS, in_torch, stated
from .operator import Prepared, check_text, traced
from .program import Program

STORAGE = ("float32", "float16", "bfloat16")


class Workload:
    """One case to tune, export and run. Equal ids mean equal workloads.

    .id .operator .dims .attributes .dtype .acc_dtype .out_dtype .layout .flags .program .flops .bytes
    """

    def __init__(self, op, dims, attributes, flags, dtype, acc_dtype, out_dtype, layout):
        self.op, self.dims, self.attributes, self.flags = op, dims, attributes, flags
        self.dtype, self.acc_dtype, self.out_dtype, self.layout = dtype, acc_dtype, out_dtype, layout
        self.program  # trace now: a bad size is reported where it was written

    @property
    def operator(self) -> str:
        return self.op.name

    # -- the description ----------------------------------------------------------------------------------------------
    @cached_property
    def program(self) -> Program:
        op = self.op
        symbols = dict(self.dims)
        for n, spec in op.attributes.items():
            symbols |= A.symbol_values(spec, self.attributes[n])
        o = Builder(op.name, self.dims, Trace(self.dtype, symbols, self.out_dtype), present=[f for f in op.optional if self.flags.get(f)])
        values = {n: traced(s, self.attributes[n], o._trace.guards) for n, s in op.attributes.items() if n != "activation" or not op.epilogue}
        program = o.finish(op.fn(o, **values), stated(self), self.attributes["activation"] if op.epilogue else None, op.channel_axis, flags=dict(self.flags), dims=dict(self.dims),
                           attributes={k: _plain(v) for k, v in self.attributes.items()}, layout=self.layout, acc_dtype=self.acc_dtype)
        why = obstacle(program) if self.flags.get("any_batch") else None
        if why:
            raise ArgumentError(f"{op.name}: any_batch needs a batch of independent samples, and {why}")
        large = next((t for t in [*program.tensors, program.output] if prod(t.shape) > INDEXABLE), None)
        if large is not None:
            raise ArgumentError(f"{op.name}: {large.name} would have {prod(large.shape)} elements; kernels count them in 32 bits, so that at most {INDEXABLE} are possible")
        program.output.dtype = self.out_dtype
        for n, spec in op.attributes.items():
            if spec["type"] in ("str", "bool", "float"):
                program.when.append(["==", n, ["const", self.attributes[n]]])
        program.signature = self._signature(program)
        program.id = ids.of(self, program)
        return program

    def _signature(self, p: Program) -> dict:
        from .formula import formula
        op = self.op
        tensors = [{"name": t.name, "kind": t.kind, "dims": t.trees, "dtype": t.dtype, "spatial": list(t.spatial)} for t in p.tensors]
        specs = list(op.attributes.values())
        every = [t["name"] for t in tensors]
        tensors_first = every if "bias" in every or not op.epilogue else [*every, "bias"]
        window = {n: window_trees(op) for n, s in op.attributes.items() if s["type"] == "pads" and len(op.window_dims()) == s["rank"]}
        return {
            "operator": op.name, "hash": p.hash[:8], "summary": op.summary, "formula": formula(p), "tensors": tensors, "attributes": specs,
            "positional": op.positional or tensors_first, "when": p.when, "checks": p.checks,
            "output": {"dims": p.output.trees, "dtype": self.out_dtype, "spatial": list(p.output.spatial)}, "pad_window": window,
        }

    @property
    def description(self) -> dict:
        """Self-contained JSON of this workload: enough to verify, compile and serve it where the declaration's file is unknown."""
        return self.program.to_json()

    @property
    def signature(self) -> dict:
        return self.program.signature

    # -- identity -----------------------------------------------------------------------------------------------------
    @property
    def id(self) -> str:
        return self.program.id

    def __eq__(self, other):
        return isinstance(other, Workload) and self.id == other.id

    def __hash__(self):
        return hash(self.id)

    def __repr__(self):
        return self.id

    # -- work ---------------------------------------------------------------------------------------------------------
    @property
    def flops(self) -> int:
        """Floating-point operations of one call (a multiply-add counts 2)."""
        return self.program.flops

    @property
    def bytes(self) -> int:
        """Least traffic of one call in bytes: inputs, prepared parameters and output once each."""
        return self.program.bytes

    def sample(self, seed: int = 0) -> dict:
        """Realistic inputs and parameters by tensor name: torch tensors in this workload's dtype and layout (numpy arrays without torch)."""
        from .sampling import to_torch
        return to_torch(self.program, self.program.sample(seed))

    def reference(self, **tensors):
        """The float64 result (numpy), from the description alone. Tensors: torch or numpy, logical shapes."""
        from .sampling import to_numpy
        return self.program.reference({k: to_numpy(v) for k, v in tensors.items()})

    def baseline(self, **tensors):
        """The typical PyTorch formulation of this operator on torch tensors. Raises ArgumentError if the operator has none."""
        if self.op.baseline is None:
            raise ArgumentError(f"{self.operator}: no PyTorch baseline is declared")
        return self._bound(self.op.baseline, tensors)()

    def formulations(self, **tensors) -> dict:
        """label → call without arguments, for every PyTorch formulation of this operator, the baseline first.

        Parameters are already folded where one folds them, as ours are when they are bound: benchmarks time these calls.
        """
        return {label: self._bound(f, tensors) for label, f in self.op.formulations.items()}

    def _bound(self, f, tensors):
        own = {k: v for k, v in tensors.items() if k not in stated(self)}
        if isinstance(f, Prepared):
            ready = f.prepare(self, **own)
            return lambda: in_torch(self, f.run(self, **ready), tensors)
        return lambda: in_torch(self, f(self, **own), tensors)

    @property
    def has_baseline(self) -> bool:
        return self.op.baseline is not None


def window_trees(op) -> list:
    """What padding='same' adds up to per spatial dim: dilation (kernel - 1)."""
    dilated = op.attributes.get("dilation", {}).get("type") == "ints"
    trees = []
    for i, k in enumerate(op.window_dims()):
        trees.append(["*", f"dilation.{i}", ["-", k, 1]] if dilated else ["-", k, 1])
    return trees


def flag_names(op) -> tuple:
    """The yes-or-no facts that a workload of `op` may state."""
    return (*(TENSORS if op.epilogue else ()), *op.optional, *(("any_batch",) if "N" in op.dims else ()))


def make(op, kw) -> Workload:
    """A Workload from keywords: dims by letter, `kernel=`, attributes, flags, dtype, acc_dtype, out_dtype, layout."""
    kw = _with_kernel(op, dict(kw))
    dtypes = _dtypes(op, kw)
    given = kw.pop("layout", "channels_first")
    layout = ids.LAYOUTS.get(str(given).lower())
    if layout is None:
        raise ArgumentError(f"{op.name}: layout must be channels_first, channels_last or an alias such as NCHW or NHWC, got {given!r}")
    flags = _flags(op, kw)
    dims = _dims(op, kw)
    attributes = _attributes(op, kw, dims)
    if kw:
        known = ", ".join([*op.dims, *op.attributes, *flag_names(op)])
        raise ArgumentError(f"{op.name}: unknown argument {sorted(kw)[0]!r}; it takes {known}, kernel, dtype, acc_dtype, out_dtype and layout")
    return Workload(op, dims, attributes, flags, *dtypes, layout)


# -- each of these takes what it is about out of the keywords ----------------------------------------------------------
def _with_kernel(op, kw) -> dict:
    """The keywords with a dim of the window for each number of `kernel`."""
    window = op.window_dims()
    if "kernel" in kw and window:
        k = kw.pop("kernel")
        sizes = tuple(k) if isinstance(k, (tuple, list)) else (k,) * len(window)
        if len(sizes) != len(window):
            raise ArgumentError(f"{op.name}: kernel must be an int or {len(window)} ints, got {k!r}")
        for d, size in zip(window, sizes):
            if kw.setdefault(d, size) is not size:
                raise ArgumentError(f"{op.name}: {d} is given twice, as {kw[d]!r} and by kernel={k!r}")
    return kw


def _flags(op, kw) -> dict:
    flags = {}
    for f in flag_names(op):
        v = kw.pop(f, False)
        if not isinstance(v, bool):
            raise ArgumentError(f"{op.name}: {f} states whether the tensor is given; expected True or False, got {v!r}")
        if v:
            flags[f] = True
    return flags


def _dims(op, kw) -> dict:
    dims = dict(op.dim_defaults)
    for d in op.dims:
        if d in kw:
            v = kw.pop(d)
            if not hasattr(v, "__index__") or isinstance(v, bool) or int(v) < 1:
                raise ArgumentError(f"{op.name}: dimension {d} must be a positive int, got {v!r}")
            dims[d] = int(v)
    missing = [d for d in op.dims if d not in dims]
    if missing:
        raise ArgumentError(f"{op.name}: dimension{'s' if len(missing) > 1 else ''} {', '.join(missing)} missing; it needs {', '.join(op.dims)}")
    return {d: dims[d] for d in op.dims}


def _attributes(op, kw, dims) -> dict:
    from ..runtime.sizes import evaluate
    window, found, scope = op.window_dims(), {}, dict(dims)
    for n, spec in sorted(op.attributes.items(), key=lambda i: i[1]["type"] == "pads"):
        total = None
        value = kw.pop(n, spec["default"])
        if spec["type"] == "pads" and isinstance(value, str) and value == "same" and len(window) == spec["rank"]:
            if any(v != 1 for v in found.get("stride", ())):
                raise ArgumentError(f"{op.name}: padding='same' needs stride 1, got {found['stride']}")
            total = [evaluate(t, scope) for t in window_trees(op)]
        found[n] = A.canonical(op.name, spec, value, total)
        if spec["type"] == "str":
            check_text(op.name, n, found[n])
        scope |= A.symbol_values(spec, found[n])
    return {n: found[n] for n in op.attributes}


def _dtypes(op, kw) -> tuple:
    """(dtype, acc_dtype, out_dtype), taken out of the keywords."""
    if not op.types:
        dtype = _dtype(op, kw.pop("dtype", "float32"), "dtype", STORAGE)
        acc = _dtype(op, kw.pop("acc_dtype", "float32"), "acc_dtype", ("float32",))
        return dtype, acc, _dtype(op, kw.pop("out_dtype", None) or dtype, "out_dtype", STORAGE)
    known, found = [tuple(ids.LONG[t] for t in types.split(".")) for types in op.types], []
    for i, name in enumerate(("dtype", "acc_dtype", "out_dtype")):
        fitting = [k[i] for k in known if list(k[:i]) == found]
        found.append(_dtype(op, kw.pop(name, None) or fitting[0], name, tuple(dict.fromkeys(fitting))))
    return tuple(found)


def _dtype(op, d, name, allowed):
    text = str(d).removeprefix("torch.")
    text = ids.LONG.get(text, text)
    if text not in allowed:
        raise ArgumentError(f"{op.name}: {name} must be one of {', '.join(allowed)}, got {d}")
    return text


def _plain(v):
    return [_plain(x) for x in v] if isinstance(v, (tuple, list)) else v
