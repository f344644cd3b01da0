"""Workload ids, which name a workload in one line and read back.

Grammar: OP[@hash8]:DIMS;ATTRS:DTYPES:LAYOUT[:FLAGS], for example
depthwise_conv2d:n1,c96,h56,w56,k7x7;padding=3:f32.f32.f32:nchw
"""

from __future__ import annotations

import re

from ..errors import ArgumentError
from ..runtime import attributes as A

SHORT = {"float32": "f32", "float16": "f16", "bfloat16": "bf16", "int8": "i8", "uint8": "u8", "int32": "i32", "float64": "f64"}
LONG = {v: k for k, v in SHORT.items()}
_FIRST = {1: "ncl", 2: "nchw", 3: "ncdhw"}
_LAST = {1: "nlc", 2: "nhwc", 3: "ndhwc"}
LAYOUTS = {"channels_first": "channels_first", "channels_last": "channels_last"}
LAYOUTS |= {v: "channels_first" for v in _FIRST.values()} | {v: "channels_last" for v in _LAST.values()}


def of(w, program) -> str:
    """The id of the workload `w`, whose description is `program`."""
    from ..ops import table
    op = w.op
    name = op.name if table.is_catalogued(op) else f"{op.name}@{program.hash[:8]}"
    any_batch = {"N": "+"} if w.flags.get("any_batch") else {}
    dims = [f"{d.lower()}{w.dims[d]}{any_batch.get(d, '')}" for d in op.dims
            if d not in op.window_dims() and (w.dims[d] != op.dim_defaults.get(d) or d in any_batch)]
    if op.window_dims():
        dims.append("k" + "x".join(str(w.dims[d]) for d in op.window_dims()))
    attrs = [f"{n}={attribute_text(s, w.attributes[n])}" for n, s in op.attributes.items()
             if not (n == "activation" and op.epilogue) and w.attributes[n] != A.canonical(op.name, s, s["default"])]
    types = ".".join(SHORT[d] for d in (w.dtype, w.acc_dtype, w.out_dtype))
    rank = min(max(len(program.output.spatial), 1), 3)
    layout = (_FIRST if w.layout == "channels_first" else _LAST)[rank]
    activation = w.attributes["activation"] if op.epilogue else None
    flags = sorted([f for f in w.flags if f != "any_batch"] + ([f"act={activation}"] if activation else []))
    return f"{name}:{','.join(dims)}" + (";" + ",".join(attrs) if attrs else "") + f":{types}:{layout}" + (":" + ",".join(flags) if flags else "")


def attribute_text(spec, v) -> str:
    """An attribute's value as ids write it."""
    if spec["type"] == "ints":
        return str(v[0]) if len(set(v)) == 1 else "x".join(map(str, v))
    if spec["type"] == "pads":
        if all(lo == hi for lo, hi in v):
            return attribute_text({"type": "ints"}, [lo for lo, _ in v])
        return "x".join(f"{lo}_{hi}" for lo, hi in v)
    if spec["type"] == "bool":
        return "true" if v else "false"
    return repr(v) if spec["type"] == "float" else str(v)


def attribute_from_text(spec, text: str):
    """The inverse of an id's attribute text; raises ValueError."""
    if spec["type"] == "ints":
        parts = [int(t) for t in text.split("x")]
        return parts * spec["rank"] if len(parts) == 1 else parts
    if spec["type"] == "pads":
        if text in ("same", "valid"):
            return text
        parts = [tuple(map(int, t.split("_"))) if "_" in t else int(t) for t in text.split("x")]
        return parts * spec["rank"] if len(parts) == 1 else parts
    if spec["type"] == "bool":
        return {"true": True, "false": False}[text]
    return {"int": int, "float": float}.get(spec["type"], str)(text)


def parse(text: str, operator=None):
    """The Workload that an id names. `operator`: the Operator, where it is not in the catalogue. Raises ArgumentError."""
    from .workload import flag_names, make

    def bad(why):
        raise ArgumentError(f"workload id {text!r}: {why}")

    if not isinstance(text, str):
        raise ArgumentError(f"a workload id is a text, got {type(text).__name__}")
    fields = text.strip().split(":")
    if len(fields) not in (4, 5):
        bad("expected OP:DIMS;ATTRS:DTYPES:LAYOUT[:FLAGS]")
    name, _, digest = fields[0].partition("@")
    if operator is None:
        from ..ops import table
        operator = table.get(name)
    if name != operator.name:
        bad(f"it names {name}, and the operator is {operator.name}")
    kw = {}
    dims, _, attrs = fields[1].partition(";")
    letters = {d.lower(): d for d in operator.dims}
    for item in filter(None, dims.split(",")):
        m = re.fullmatch(r"([a-z]+)(\d+(?:x\d+)*)(\+?)", item)
        if not m:
            bad(f"cannot read dimension {item!r}")
        if m[1] == "k" and operator.window_dims():
            kw["kernel"] = tuple(map(int, m[2].split("x")))
        elif m[1] in letters and "x" not in m[2]:
            kw[letters[m[1]]] = int(m[2])
            if m[3] and m[1] != "n":
                bad(f"only n may be any size, got {item!r}")
            if m[3]:
                kw["any_batch"] = True
        else:
            bad(f"{operator.name} has no dimension {m[1].upper()}")
    for item in filter(None, attrs.split(",")):
        n, eq, v = item.partition("=")
        if n not in operator.attributes or not eq or n == "activation" and operator.epilogue:
            bad(f"{operator.name} has no attribute {n!r}")
        try:
            kw[n] = attribute_from_text(operator.attributes[n], v)
        except (ValueError, KeyError):
            bad(f"cannot read attribute {item!r}")
    types = fields[2].split(".")
    if len(types) != 3 or any(t not in LONG for t in types):
        bad(f"dtypes are input.accumulator.output, got {fields[2]!r}")
    kw["dtype"], kw["acc_dtype"], kw["out_dtype"] = types
    kw["layout"] = fields[3]
    for flag in filter(None, (fields[4] if len(fields) == 5 else "").split(",")):
        if flag.startswith("act=") and operator.epilogue:
            kw["activation"] = flag[4:]
        elif flag in flag_names(operator):
            kw[flag] = True
        else:
            bad(f"{operator.name} has no flag {flag!r}")
    w = make(operator, kw)
    if digest and w.program.hash[:8] != digest:
        bad(f"the description of {name} is {w.program.hash[:8]} now; this id was made for another one")
    return w
