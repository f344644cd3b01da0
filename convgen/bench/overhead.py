"""What a call costs beyond the kernel itself: a bound call and a torch.library call against the kernel called from C in a loop."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Sequence

from ..errors import ArgumentError, Error
from ..tune.timing import quartiles

_SOURCE = Path(__file__).with_name("call_loop.c")
ROUNDS, CALLS = 31, 300
# So small that the kernel is a fraction of its call.
WORKLOADS = ("depthwise_conv2d:n1,c16,h4,w4,k3x3;padding=1:f32.f32.f32:nhwc", "conv2d:n1,c16,o16,h4,w4,k1x1:f32.f32.f32:nchw")


@dataclass(frozen=True)
class Overhead:
    """Medians in µs per call. `kernel` is the compiled function in a C loop, `prepare` its parameters' preparation (0 if none), which a
    torch.library call repeats each time and a bound call does once."""

    workload: str
    kernel: float
    prepare: float
    bound: float
    library: float

    @property
    def of_bound(self) -> float:
        """What a bound call adds, its output's allocation included."""
        return self.bound - self.kernel

    @property
    def of_library(self) -> float:
        """What a torch.library call adds."""
        return self.library - self.kernel - self.prepare

    def to_json(self) -> dict:
        return {"workload": self.workload, "kernel_us": self.kernel, "prepare_us": self.prepare, "bound_us": self.bound, "torch_library_us": self.library,
                "bound_overhead_us": self.of_bound, "torch_library_overhead_us": self.of_library}


def overhead(workloads: Sequence = (), target="native", threads: int = 1, logs=None) -> list[Overhead]:
    """Measure the call overhead on workloads (default: two tiny ones), in a process of its own. Raises ArgumentError, Error."""
    import convgen

    from ..targets import resolve
    from .field import TURN_TIMEOUT, reference_of
    from .stage import Stage
    machine = resolve(target).with_threads(threads)
    found = []
    with Stage(threads) as stage, tempfile.TemporaryDirectory(prefix="convgen-bench-") as scratch:
        loop = _compile(os.path.join(scratch, "loop.so"))
        for number, w in enumerate(workloads or map(convgen.workload, WORKLOADS)):
            if w.layout == "channels_last" and len(w.program.output.shape) == 3:
                raise ArgumentError(f"{w.id}: PyTorch has no channels_last format for three dimensions")
            path = os.path.join(scratch, f"overhead{number}.cvg")
            convgen.export([w], path, machine, logs=logs, name=f"overhead{number}")
            times = stage.ask("overhead", TURN_TIMEOUT, "overhead", library=path, loop=loop, workload=w.id, reference=reference_of(w), threads=threads)
            found.append(Overhead(w.id, **times))
    return found


def overhead_table(rows: Sequence[Overhead]) -> str:
    """The printed table."""
    from ..cli.output import table
    return table([(r.workload, *(f"{v:.2f}" for v in (r.kernel, r.prepare, r.bound, r.of_bound, r.library, r.of_library))) for r in rows],
                 ["workload", "kernel µs", "prepare", "bound", "overhead", "torch.library", "overhead"])


def _compile(path: str) -> str:
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
    if compiler is None:
        raise Error("bench: measuring the call overhead needs a C compiler, and none was found")
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", path, str(_SOURCE)], check=True, capture_output=True)
    return path


def measured(library: str, loop: str, workload: str, reference: str | None = None, threads: int = 1) -> dict:
    """In the worker: median µs of each kind of call, interleaved."""
    import torch

    import convgen

    from ..runtime.cpu import family
    from ..runtime.manifest import shim_name
    from ..tune import timing
    from .worker import case_of
    torch.set_num_threads(threads)
    case = case_of(workload, reference, 0, threads, tempfile.gettempdir())
    lib = convgen.load(library)
    entry = lib.manifest["variants"][0]["kernels"][0]
    bound, inputs = lib.bind(entry["operator"], **case.parameters, **case.workload.attributes), list(case.inputs.values())
    operation = getattr(getattr(torch.ops, f"convgen_{lib.name}"), entry["operator"])
    arguments = _arguments(lib.manifest["operators"][entry["operator"]]["signatures"][0], case)
    run, prepare = _raw(Path(library, lib.manifest["variants"][0]["file"]), Path(library, shim_name(family())), loop, entry, case)
    calls = {"kernel": run, "prepare": prepare, "bound": lambda: bound(*inputs), "library": lambda: operation(*arguments)}
    times: dict = {name: [] for name in calls}
    with torch.inference_mode():
        for _ in range(ROUNDS):
            for name, call in calls.items():
                if call is None:
                    times[name].append(0.0)
                elif name in ("kernel", "prepare"):
                    call(CALLS // 10)
                    times[name].append(call(CALLS) / CALLS)
                else:
                    timing.sample(call, CALLS // 10)
                    times[name].append(timing.sample(call, CALLS))
    return {name: quartiles(values)[1] * 1e6 for name, values in times.items()}


def _arguments(signature: dict, case) -> list:
    """The call's positional arguments as people write them: one number where all are equal, nothing where the rest is default."""
    given, specs = case.workload.attributes, {s["name"]: s for s in signature["attributes"]}
    special = [n for n, s in specs.items() if n not in signature["positional"] and given[n] != s["default"]]
    if special:
        raise ArgumentError(f"{case.workload.id}: the call overhead is measured on calls with positional arguments, and {special[0]} is none")
    values = [_short(given[n]) if n in specs else case.tensors.get(n) for n in signature["positional"]]
    omitted = [specs[n]["default"] if n in specs else None for n in signature["positional"]]
    while values[-1] is None or isinstance(values[-1], int) and values[-1] == omitted[len(values) - 1]:
        values.pop()
    return values


def _short(value):
    """A canonical attribute as a number where it is one, else flat."""
    if not isinstance(value, tuple):
        return value
    flat = [side for part in value for side in (part if isinstance(part, tuple) else (part,))]
    return flat[0] if len(set(flat)) == 1 else flat


def _raw(kernels: Path, shim: Path, loop: str, entry: dict, case):
    """(kernel, its prepare function or None): f(calls) -> seconds, on buffers that hold zeros."""
    from ..tune.kernel import NativeKernel, argument_block
    native = NativeKernel(str(kernels), entry, case.workload.dims, str(shim))
    timed = ctypes.CDLL(loop).call_loop
    timed.restype, timed.argtypes = ctypes.c_double, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_long]
    prepare = entry.get("prepare")
    buffers = native.buffers(prepare["args"] if prepare else [])
    buffers |= native.buffers(entry["args"], buffers)
    for buffer in buffers.values():
        buffer.bytes[:] = 0

    def caller(step):
        block, result = argument_block([buffers[a["name"]] for a in step["args"]]), ctypes.create_string_buffer(16)
        address = ctypes.cast(getattr(native.library, "__tvm_ffi_" + step["symbol"]), ctypes.c_void_p)

        def call(times, keep=(block, buffers, native)):
            seconds = timed(address, block, len(step["args"]), result, times)
            if seconds < 0:
                raise Error(f"the kernel {step['symbol']} stopped with an error")
            return seconds
        return call
    return caller(entry), caller(prepare) if prepare else None
