"""Builds kernels and checks them, many in one process of its own, because it imports TVM; the parent is tests/emit/kernels.py."""

import hashlib
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from convgen.workers.child import serve

_shims, _loaded = [], []


def built(description, target, choice, folder):
    """(kernel entry, function from dims to its kernel, seconds of compiling)."""
    from convgen import emulate
    from convgen.emit import build_kernel

    if not _loaded:
        build_kernel(description, target, choice, folder, "cg_first")  # the compiler loads here, outside any time
        _loaded.append(True)
    begun = time.perf_counter()
    entry = build_kernel(description, target, choice, folder, "cg_test")
    seconds = time.perf_counter() - begun
    return entry, (emulate.opener if target["family"] in emulate.FAMILIES else linked)(entry, folder, target), seconds


def linked(entry, folder, target):
    """How to open a kernel for the processor."""
    from convgen.export.link import compile_shim, link_objects
    from convgen.tune.kernel import NativeKernel

    if not _shims:
        _shims.append(os.path.join(os.getcwd(), "shim.so"))
        compile_shim(_shims[0])
    path = Path(folder, "kernel.so")
    link_objects([Path(folder, entry["object"])], path)
    return lambda dims: NativeKernel(str(path), entry, dims, _shims[0])


def check(description, target, choice=None, others=(), thorough=True):
    """Compile one kernel and judge it on its own workload and on `others` (descriptions that the same kernel must serve).

    Returns the verdict of each, how long compiling took, and the source of kernels that have one.
    """
    from convgen.lang.program import Program
    from convgen.tune.cases import CaseBook
    from convgen.tune.verify import verify

    with tempfile.TemporaryDirectory() as folder:
        entry, kernel, seconds = built(description, target, choice, folder)
        text = Path(folder, entry["source"]).read_text() if entry.get("source") else None
        digest = hashlib.sha256(Path(folder, entry["object"] or entry["source"]).read_bytes()).hexdigest()
        verdicts = []
        for d in [description, *others]:
            verdicts.append(verify(kernel(d["dims"]), CaseBook(Program.from_json(d)), thorough).to_json())
        return {"verdicts": verdicts, "seconds": seconds, "digest": digest, "entry": entry, "source": text}


def source(description, target, choice=None):
    """The entry and source of a kernel, nothing compiled."""
    from convgen.emit import build_kernel

    with tempfile.TemporaryDirectory() as folder:
        entry = build_kernel(description, target, choice, folder, "cg_test")
        return {"entry": entry, "source": Path(folder, entry["source"]).read_text()}


def run(description, target, tensors):
    """The default kernel's output for these tensors (nested lists)."""
    from convgen.lang.program import Program
    from convgen.tune.cases import Case
    from convgen.tune.verify import Run

    with tempfile.TemporaryDirectory() as folder:
        _, kernel, _ = built(description, target, None, folder)
        case = Case("F", 0, {name: np.array(value, np.float32) for name, value in tensors.items()}, None)
        once = Run(kernel(description["dims"]), Program.from_json(description), case)
        reason = once.first()
        assert reason is None, reason
        return once.result().tolist()


def scheduled(description, target, choice):
    """The scheduled function as text, and per block whether its copy turns in registers."""
    from convgen import schedules
    from convgen.emit import lower, plan

    program = schedules.space(description, target).program(choice)
    low = lower.lower(plan.make(program, choice, target["lanes"]["float32"]), "k")
    return {"turned": [[b.name, b.turn is not None] for b in low.blocks], "text": schedules.apply(low.run, low.blocks, choice, target).script()}


def lines(description, target, choice=None, tasks=2, line=64):
    """[lines of the output that several threads write, lines that are written], each thread's share of every parallel loop run on its own, twice over other bytes."""
    import ctypes

    with tempfile.TemporaryDirectory() as folder:
        entry, kernel, _ = built(description, target, choice, folder)
        kernel = kernel(description["dims"])
        buffers = kernel.buffers(entry["args"])
        for name, b in buffers.items():
            if name != "out":
                b.bytes[:] = 0
        out, wrote = buffers["out"].bytes, np.zeros((tasks, -(-buffers["out"].nbytes // line) * line), bool)
        body = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)

        class Group(ctypes.Structure):
            _fields_ = [("sync", ctypes.c_void_p), ("tasks", ctypes.c_int)]
        group = Group(None, tasks)

        @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)
        def launch(function, closure, _):
            for task in range(tasks):
                for byte in (0xA5, 0x5A):
                    out[:] = byte
                    if code := body(function)(task, ctypes.addressof(group), closure):
                        return code
                    wrote[task, :len(out)] |= out != byte
            return 0
        ctypes.c_void_p.in_dll(kernel.library, "__TVMBackendParallelLaunch").value = ctypes.cast(launch, ctypes.c_void_p).value
        kernel.caller(buffers)()
        touched = wrote.reshape(tasks, -1, line).any(2).sum(0)
        assert wrote[:, :len(out)].any(0).all()
        return [int((touched > 1).sum()), int((touched > 0).sum())]


def plain(description):
    """Relative L2 error of the unscheduled plain form of a workload, and how it takes its arguments."""
    import tvm

    from convgen.emit.plain import plain as form_of
    from convgen.lang.program import Program

    program = Program.from_json(description)
    form, given = form_of(program), program.sample(0)
    build = lambda f: tvm.compile(tvm.IRModule({"main": f.with_attr("global_symbol", "main")}), tvm.target.Target({"kind": "llvm", "mcpu": "x86-64-v3"}))["main"]
    values = {t.name: tvm.runtime.tensor(np.ascontiguousarray(np.transpose(given[t.name], t.permutation(program.layout)))) for t in program.tensors}
    if form.prepare is not None:
        for name, shape, dtype in form.prepare_args[form.prepared:]:
            values[name] = tvm.runtime.empty(shape, dtype)
        build(form.prepare)(*(values[name] for name, _, _ in form.prepare_args))
    *arguments, (_, shape, dtype) = form.run_args
    out = tvm.runtime.empty(shape, dtype)
    build(form.run)(*(values[name] for name, _, _ in arguments), out)
    order = program.output.permutation(program.layout)
    found, expected = np.transpose(out.numpy(), [order.index(d) for d in range(len(order))]), program.reference(given)
    error = float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
    return {"error": error, "arguments": [name for name, _, _ in arguments], "constants": [arguments[i][0] for i in form.constants]}


def functions(names, values):
    """Vector functions at float32 `values`, evaluated by compiled code: {name: list of float32}."""
    import tvm
    from tvm import te

    from convgen.emit.vector_math import FUNCTIONS, PLUS_ONE

    code = FUNCTIONS | {f"{name}_plus_one": function for name, function in PLUS_ONE.items()}
    x = np.asarray(values, np.float32)
    found = {}
    for name in names:
        a = te.placeholder(x.shape, "float32", name="a")
        b = te.compute(x.shape, lambda i: code[name](a[i]), name="b")
        sch = tvm.s_tir.Schedule(te.create_prim_func([a, b]).with_attr("global_symbol", "main"))
        _, inner = sch.split(sch.get_loops(sch.get_sblock("b"))[0], [None, 16])
        sch.vectorize(inner)
        out = tvm.runtime.empty(x.shape, "float32")
        tvm.compile(sch.mod, tvm.target.Target({"kind": "llvm", "mcpu": "x86-64-v3"}))["main"](tvm.runtime.tensor(x), out)
        found[name] = out.numpy().tolist()
    return found


def device_functions(names, values):
    """The same by the functions of CUDA sources, emulated."""
    from convgen.emit.device_math import TEXT
    from convgen.emulate import cuda

    argument = lambda name: {"name": name, "kind": "input", "shape": [len(values)], "dtype": "float32"}
    kernel = 'extern "C" __global__ void __launch_bounds__(256) {0}_of(float* __restrict__ out, float* __restrict__ x, int n) {{\n  int i = blockIdx.x * 256 + threadIdx.x;\n  if (i < n) out[i] = convgen_{0}(x[i]);\n}}\n'
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "functions.cu")
        source.write_text(TEXT + "".join(map(kernel.format, names)))
        program = cuda.build(source, Path(folder, "functions"))
        for name in names:
            launch = {"symbol": f"{name}_of", "args": ["out", "x", {"size": "n"}], "grid": [-(-len(values) // 256), 1, 1], "block": [256, 1, 1], "shared": 0}
            one = cuda.EmulatedKernel(program, {"launches": [launch], "temporaries": [], "prepare": None}, {"n": len(values)})
            buffers = one.buffers([argument("out"), argument("x")])
            buffers["x"].array[:] = values
            one.caller(buffers)()
            found[name] = buffers["out"].array.tolist()
    return found


if __name__ == "__main__":
    serve({"check": check, "source": source, "run": run, "scheduled": scheduled, "lines": lines, "plain": plain, "functions": functions, "device_functions": device_functions}, default_kind="compile_error")
