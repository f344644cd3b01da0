"""Compiles the kernels of the test library; run as a script in a process of its own, because it imports TVM.

Usage: kernel_builder.py FOLDER. Writes object files and entries.json, {target name: {"target": ..., "entries": [...]}}.
"""

import json
import sys
from pathlib import Path

import tvm
from tvm import te, tirx

TARGETS = {
    "x86:avx2": {"name": "x86:avx2", "family": "x86", "mcpu": "x86-64-v3", "features": ["avx2", "fma"], "vector_bits": 256},
    "x86:avx512": {"name": "x86:avx512", "family": "x86", "mcpu": "x86-64-v4", "features": ["avx2", "fma", "avx512f"], "vector_bits": 512},
}
LAST = [0, 2, 3, 1]


def physical(shape, perm):
    return [shape[d] for d in perm] if perm else list(shape)


def argument(name, kind, shape, perm=None, dtype="float32"):
    return {"name": name, "kind": kind, "shape": physical(shape, perm), "perm": perm, "dtype": dtype}


def schedule(symbol, tensors, parallel=None):
    """An IRModule of one function; `parallel` names the block whose outermost loop runs in parallel."""
    function = te.create_prim_func(tensors).with_attr("global_symbol", symbol)
    sch = tvm.s_tir.Schedule(tvm.IRModule({symbol: function}))
    if parallel:
        block = sch.get_sblock(parallel, func_name=symbol)
        sch.parallel(sch.get_loops(block)[1 if parallel == "conv" else 0])
    return sch.mod


def conv(n, c, o, h, w, k, pad, last=False, bias=False, pack=False):
    """conv2d by its definition. In channels_last the weight may be packed as [KH, KW, C, O]."""
    shape = (n, h, w, c) if last else (n, c, h, w)
    x = te.placeholder(shape, "float32", name="x")
    weight = te.placeholder((k, k, c, o) if pack else (o, c, k, k), "float32", name="weight")
    b = te.placeholder((o,), "float32", name="bias")
    rc, rh, rw = (te.reduce_axis((0, e), name=r) for r, e in (("rc", c), ("rh", k), ("rw", k)))
    oh, ow = h + 2 * pad - k + 1, w + 2 * pad - k + 1

    def read(i, ch, y, z):
        inside = tirx.all(y >= 0, y < h, z >= 0, z < w)
        yy, zz = tirx.max(tirx.min(y, h - 1), 0), tirx.max(tirx.min(z, w - 1), 0)
        return tirx.if_then_else(inside, x[i, yy, zz, ch] if last else x[i, ch, yy, zz], tirx.const(0, "float32"))

    def body(i, f, y, z):
        tap = weight[rh, rw, rc, f] if pack else weight[f, rc, rh, rw]
        return te.sum(read(i, rc, y + rh - pad, z + rw - pad) * tap, axis=[rc, rh, rw])

    if last:
        out = te.compute((n, oh, ow, o), lambda i, y, z, f: body(i, f, y, z), name="conv")
    else:
        out = te.compute((n, o, oh, ow), body, name="conv")
    tensors = [x, weight, out]
    if bias:
        total = te.compute(out.shape, lambda i, f, y, z: out[i, f, y, z] + b[f], name="total")
        tensors = [x, weight, b, total]
    return tensors


def conv_entry(symbol, n, c, o, h, w, k, pad, last=False, bias=False, pack=False, parallel=True):
    any_n = n is None
    size = te.var("n") if any_n else n
    mods = [schedule(symbol, conv(size, c, o, h, w, k, pad, last, bias, pack), "conv" if parallel else None)]
    perm = LAST if last else None
    oh, ow = h + 2 * pad - k + 1, w + 2 * pad - k + 1
    rows = "N" if any_n else n
    args = [argument("x", "input", (rows, c, h, w), perm), argument("weight", "param", (o, c, k, k))]
    prepare = None
    if pack:
        source = te.placeholder((o, c, k, k), "float32", name="weight")
        packed = te.compute((k, k, c, o), lambda a, b, d, e: source[e, d, a, b], name="packed")
        name = symbol.replace("_run", "_prepare")
        mods.append(schedule(name, [source, packed]))
        args[1] = argument("packed0", "packed", (k, k, c, o))
        prepare = {"symbol": name, "args": [argument("weight", "param", (o, c, k, k)), args[1]]}
    if bias:
        args.append(argument("bias", "param", (o,)))
    args.append(argument("out", "output", (rows, o, oh, ow), perm))
    dtypes = {"x": "float32", "weight": "float32", **({"bias": "float32"} if bias else {})}
    return mods, {
        "id": f"conv2d:n{'8+' if any_n else n},c{c},o{o},h{h},w{w},k{k}x{k};padding={pad}:f32.f32.f32:{'nhwc' if last else 'nchw'}{':bias' if bias else ''}",
        "operator": "conv2d", "dims": {"N": {"min": 1} if any_n else n, "C": c, "O": o, "H": h, "W": w, "KH": k, "KW": k},
        "attributes": {"stride": [1, 1], "padding": [[pad, pad], [pad, pad]], "groups": 1}, "layout": "channels_last" if last else "channels_first",
        "dtypes": dtypes, "output_dtype": "float32", "args": args, "prepare": prepare, "workspace": 0,
    }


def gate_entry(symbol, dtype, last=False):
    """gate2d: y = x * gate[n, c]; two inputs, one without spatial dimensions."""
    n, c, h, w = 2, 3, 4, 5
    x = te.placeholder((n, h, w, c) if last else (n, c, h, w), dtype, name="x")
    gate = te.placeholder((n, c), dtype, name="gate")
    out = te.compute(x.shape, lambda i, a, b, d: x[i, a, b, d] * gate[i, d if last else a], name="gated")
    perm = LAST if last else None
    short = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}[dtype]
    return [schedule(symbol, [x, gate, out])], {
        "id": f"gate2d:n{n},c{c},h{h},w{w}:{short}.{short}.{short}:{'nhwc' if last else 'nchw'}", "operator": "gate2d",
        "dims": {"N": n, "C": c, "H": h, "W": w}, "attributes": {}, "layout": "channels_last" if last else "channels_first",
        "dtypes": {"x": dtype, "gate": dtype}, "output_dtype": dtype, "prepare": None, "workspace": 0,
        "args": [argument("x", "input", (n, c, h, w), perm, dtype), argument("gate", "input", (n, c), None, dtype),
                 argument("out", "output", (n, c, h, w), perm, dtype)],
    }


def edge_entry(symbol):
    """edge2d: one channel to four, channels_last only, so that tensors that are both formats take it."""
    n, c, h, w = 1, 1, 6, 6
    x = te.placeholder((n, h, w, c), "float32", name="x")
    out = te.compute((n, h, w, 4), lambda i, a, b, f: x[i, a, b, 0] * (tirx.Cast("float32", f) + 1.0), name="edges")
    return [schedule(symbol, [x, out])], {
        "id": "edge2d:n1,c1,h6,w6:f32.f32.f32:nhwc", "operator": "edge2d", "dims": {"N": n, "C": c, "H": h, "W": w}, "attributes": {},
        "layout": "channels_last", "dtypes": {"x": "float32"}, "output_dtype": "float32", "prepare": None, "workspace": 0,
        "args": [argument("x", "input", (n, c, h, w), LAST), argument("out", "output", (n, 4, h, w), LAST)],
    }


def square_entry(symbol):
    """square2d: (x + 1)^2 through a temporary too large for the stack, so the kernel allocates scratch memory."""
    shape = (1, 8, 64, 64)
    x = te.placeholder(shape, "float32", name="x")
    temporary = te.compute(shape, lambda *i: x(*i) + 1.0, name="temporary")
    out = te.compute(shape, lambda i, c, a, b: temporary[i, c, a, b] * temporary[i, c, 63 - a, b], name="square")
    mod = schedule(symbol, [x, out])
    sch = tvm.s_tir.Schedule(mod)
    for name in ("temporary", "square"):
        sch.parallel(sch.get_loops(sch.get_sblock(name, func_name=symbol))[1])
    return [sch.mod], {
        "id": "square2d:n1,c8,h64,w64:f32.f32.f32:nchw", "operator": "square2d", "dims": dict(zip("NCHW", shape)), "attributes": {},
        "layout": "channels_first", "dtypes": {"x": "float32"}, "output_dtype": "float32", "prepare": None, "workspace": 131072,
        "args": [argument("x", "input", shape), argument("out", "output", shape)],
    }


def entries():
    yield "cg_first_run", conv_entry("cg_first_run", 1, 4, 8, 6, 6, 3, 1)
    yield "cg_last_run", conv_entry("cg_last_run", 1, 4, 8, 6, 6, 3, 1, last=True, pack=True)
    yield "cg_anyn_run", conv_entry("cg_anyn_run", None, 4, 8, 5, 5, 3, 1)
    yield "cg_bias_run", conv_entry("cg_bias_run", 1, 4, 8, 6, 6, 3, 1, bias=True)
    yield "cg_small_run", conv_entry("cg_small_run", 2, 2, 2, 4, 4, 1, 0, parallel=False)
    for dtype in ("float32", "bfloat16", "float16"):
        yield f"cg_gate_{dtype}_run", gate_entry(f"cg_gate_{dtype}_run", dtype)
    yield "cg_gate_last_run", gate_entry("cg_gate_last_run", "float32", last=True)
    yield "cg_edge_run", edge_entry("cg_edge_run")
    yield "cg_square_run", square_entry("cg_square_run")


def main(folder: Path):
    found = {}
    for name, target in TARGETS.items():
        device = tvm.target.Target({"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": target["mcpu"], "num-cores": 2})
        found[name] = {"target": target, "entries": []}
        for symbol, (mods, entry) in entries():
            both = tvm.IRModule({g: f for mod in mods for g, f in mod.functions.items()})
            path = folder / f"{symbol}-{target['mcpu']}.o"
            tvm.compile(both, device).mod.write_to_file(str(path), "o")
            found[name]["entries"].append({**entry, "symbol": symbol, "target": name, "features": target["features"], "threads": 2, "choice": {},
                                           "origin": "exact", "measured_us": 10.0, "torch_us": 20.0, "object": str(path)})
    (folder / "entries.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
