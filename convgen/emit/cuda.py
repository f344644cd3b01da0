"""CUDA code of scheduled functions: one .cu with all kernels, a cubin of it, and the launches of one call."""

from __future__ import annotations

from pathlib import Path

import tvm
from tvm import tirx

from .. import schedules
from ..errors import EmitError
from ..lang.count import BYTES
from ..runtime.sizes import evaluate
from . import device_math, launches, limits, nvcc
from .statements import around

MATH = device_math


def code(lowered, run, target: dict, program, directory: str, symbol: str) -> tuple:
    """Write `<directory>/<symbol>.cu` and its cubin, and return the entry's fields about code, and its temporaries, name → bytes. A target that asks for "source" alone gets no cubin.

    `run`: the scheduled module of one call; every root nest of it is a launch, and what lies between them is memory that the caller brings.
    """
    compiled = target.get("output") != "source"
    functions = {f"{symbol}_run": run["main"]}
    if lowered.prepare is not None:
        functions[f"{symbol}_prepare"] = schedules.prepare(lowered.prepare, target)["main"]
    temporaries, found = {}, {}
    for name, f in functions.items():
        given = {a["name"] for a in (lowered.args if name.endswith("_run") else lowered.prepare_args)}
        functions[name], temporaries[name] = _with_temporaries(f.with_attr("global_symbol", name), given)
    # TVM's own reuse of memory confuses fragments and their slices where a loop over slices has one step; shared.dyn is merged all the same
    config = {"tirx.disable_storage_rewrite": True} if any(b.matrix is not None for b in lowered.blocks) else {}
    device, text = _device(functions, target, config)
    for launch in launches.of(device):
        limits.refuse(launch, target["limits"])
        found.setdefault(launch["symbol"].rpartition("_kernel")[0], []).append(launch)
    source = Path(directory, f"{symbol}.cu")
    source.write_text(_own(text))
    used = nvcc.compile_cuda(source, Path(directory, f"{symbol}.cubin"), target["isa"]) if compiled else {}
    for launch in (l for part in found.values() for l in part):
        launch |= used.get(launch["symbol"], {})
    part = lambda name: {"temporaries": temporaries[name], "launches": found.get(name, [])}
    bytes_of = lambda t: BYTES[t["dtype"]] * _elements(t, program)
    return {
        "symbol": f"{symbol}_run", **part(f"{symbol}_run"),
        "prepare": {"symbol": f"{symbol}_prepare", "args": lowered.prepare_args, **part(f"{symbol}_prepare")} if lowered.prepare is not None else None,
        "source": source.name, "object": f"{symbol}.cubin" if compiled else None,
    }, {t["name"]: bytes_of(t) for t in temporaries[f"{symbol}_run"]}


def _elements(temporary, program) -> int:
    n = 1
    for tree in temporary["shape"]:
        n *= evaluate(tree, program.dims)
    return n


def _with_temporaries(f, given):
    """The function with every global temporary as a parameter, and what they are."""
    kept, moved = [], []
    for b in f.body.block.alloc_buffers:
        (moved if b.scope() in ("", "global") else kept).append(b)
    names = [b.name for b in moved]
    if len({*names, *given}) < len(names) + len(given):
        raise EmitError(f"temporaries {names} and arguments {sorted(given)} share a name")
    f = tirx.PrimFunc([*f.params, *moved], around(f.body, alloc_buffers=kept), f.ret_type, f.attrs)
    return f, [{"name": b.name, "shape": [launches.size(n) for n in b.shape], "dtype": str(b.dtype)} for b in moved]


@tvm.register_global_func("tvm_callback_cuda_compile", override=True)
def _not_now(text):
    """Where there is a driver TVM would go on to compile the text itself, in its own way, and fail where it lacks a package; nvcc does that here."""
    return b"not compiled"


def _device(functions, target, config):
    """(device functions, their CUDA C)."""
    gpu = tvm.target.Target(target_of(target) | {"host": {"kind": "llvm"}})
    pipeline, _, finalize = tirx.get_default_tir_pipeline(gpu)
    with gpu, tvm.transform.PassContext(config=config):
        module = pipeline(tirx.transform.BindTarget(gpu)(tvm.IRModule(functions)))
        module = finalize()(tirx.transform.Filter(lambda f: str(f.attrs["target"].kind.name) == "cuda")(module))
        return module, tvm.get_global_func("target.build.cuda")(module, gpu).inspect_source()


def target_of(target: dict) -> dict:
    """What TVM needs to know of a GPU."""
    limits = target["limits"]
    return {"kind": "cuda", "arch": target["isa"], "max_threads_per_block": limits["threads_per_block"], "max_shared_memory_per_block": limits["shared_per_block"], "thread_warp_size": limits["warp"]}


def _own(text: str) -> str:
    """TVM's text with our functions in front of its kernels."""
    at = text.index('extern "C" __global__')
    return text[:at].lstrip() + device_math.TEXT + text[at:].rstrip() + "\n"
