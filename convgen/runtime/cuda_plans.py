"""Plans on one CUDA device: modules loaded when a kernel is first asked for, launches on the caller's stream."""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass
from math import prod
from typing import Callable, Mapping

from convgen.errors import ArgumentError
from convgen.runtime import arrays, cuda, cuda_arrays, native
from convgen.runtime.arrays import Memory
from convgen.runtime.dispatch import Kernel
from convgen.runtime.native import SCRATCH, VALUE, CudaProgram, Launch, Shim
from convgen.runtime.plans import Builder, Plan, nbytes_of, slot_of
from convgen.runtime.signature import Resolved
from convgen.runtime.sizes import evaluate

_SCRATCH_ALIGNMENT = 256


@dataclass(frozen=True)
class CudaPlan(Plan):
    """A plan whose `run` takes two more numbers after its tensors: the address of `scratch` bytes, unless that is 0, and the stream."""

    scratch: int = 0

    def launcher(self, like: arrays.View) -> Callable:
        if like.kind == "torch":
            return TorchLaunch(self, cuda_arrays.ordinal(like.device))
        return lambda *tensors: self._run_with(like, tensors)

    def _run_with(self, like: arrays.View, tensors) -> int:
        stream = cuda_arrays.stream(like)
        if not self.scratch:
            return self.run(*tensors, stream)
        # Given back right after the launch: the allocator hands it out again in the order of the stream.
        scratch = cuda_arrays.memory(like, self.scratch)
        return self.run(*tensors, scratch.pointer, stream)


class TorchLaunch:
    """Runs a plan on torch's current stream, with scratch memory from torch's allocator.

    Memory that a bound call holds belongs to the stream on which it was made. Where another stream reads it, the allocator is told
    (once), so that it waits for that stream before the memory, once released, is used for something else.
    """

    __slots__ = ("_run", "_index", "_stream", "_empty", "_bytes", "_device", "_held", "_met", "_scratch")

    def __init__(self, plan: CudaPlan, index: int):
        torch = sys.modules["torch"]
        self._run, self._scratch, self._index = plan.run, plan.scratch, index
        self._stream, self._empty, self._bytes, self._device = cuda_arrays.torch_stream(), torch.empty, torch.uint8, torch.device("cuda", index)
        self._held = [memory.keep for memory in plan.keep if isinstance(memory, Memory)]
        self._met: set[int] | None = set() if self._held else None

    def __call__(self, *tensors) -> int:
        stream = self._stream(self._index)
        if self._met is not None and stream not in self._met:
            self._meet(stream)
        if not self._scratch:
            return self._run(*tensors, stream)
        scratch = self._empty(self._scratch, dtype=self._bytes, device=self._device)
        return self._run(*tensors, scratch.data_ptr(), stream)

    def _meet(self, stream: int) -> None:
        current = sys.modules["torch"].cuda.current_stream(self._index)
        for tensor in self._held:
            tensor.record_stream(current)
        self._met.add(stream)


class CudaBuilder(Builder):
    """Makes plans from the kernels of one CUDA variant for one device. `images`: code by kernel symbol, verified."""

    def __init__(self, shim: Shim, device: cuda.Device, images: Callable[[str], bytes]):
        super().__init__(shim, None)
        shim.use_driver(cuda.LIBRARY)
        self.device, self._images = device, images
        self._modules: dict[str, int] = {}
        self._functions: dict[str, int] = {}
        self._lock = threading.Lock()

    def check(self, entries) -> None:
        """Nothing: code is loaded when a kernel is first asked for."""

    def settle(self, like: arrays.View | None) -> None:
        if like is not None:
            self.device.wait(cuda_arrays.stream(like))

    def _program(self) -> CudaProgram:
        return CudaProgram(device=(native.CUDA, self.device.index), context=self.device.context)

    def _memory(self, nbytes: int, like: arrays.View | None) -> Memory:
        if like is None:
            raise ArgumentError(f"{self.device}: memory can only be prepared beside a tensor")
        return cuda_arrays.memory(like, nbytes)

    def _finish(self, program: CudaProgram, kernel: Kernel, names: tuple, keep: tuple) -> CudaPlan:
        return CudaPlan(self._shim.compile(program), kernel, names, tuple(program.calls), keep, sum(program.scratch))

    @staticmethod
    def _scratch(program: CudaProgram, argument: Mapping, call: Resolved) -> tuple[int, int]:
        program.scratch.append(-(-nbytes_of(argument, call) // _SCRATCH_ALIGNMENT) * _SCRATCH_ALIGNMENT)
        return SCRATCH, len(program.scratch) - 1

    def _add(self, program: CudaProgram, step: dict, slots: Mapping, call: Resolved, entry: dict) -> None:
        slots = {**slots, **{t["name"]: self._scratch(program, t, call) for t in step.get("temporaries") or ()}}
        values = call.symbols

        def parameter(argument) -> tuple[int, int]:
            return (VALUE, int(evaluate(argument["size"], values))) if isinstance(argument, dict) else slot_of(step, argument, slots)

        for launch in step["launches"]:
            grid, block = (tuple(int(evaluate(size, values)) for size in launch[key]) for key in ("grid", "block"))
            function = self._function(entry["symbol"], launch["symbol"], prod(block), launch.get("shared") or 0)
            program.steps.append(Launch(function, grid, block, launch.get("shared") or 0, tuple(parameter(a) for a in launch["args"])))

    def _function(self, image: str, symbol: str, threads: int, shared: int) -> int:
        with self._lock:
            if symbol not in self._functions:
                if image not in self._modules:
                    self._modules[image] = self.device.load(self._images(image))
                self._functions[symbol] = self.device.function(self._modules[image], symbol, threads, shared)
            return self._functions[symbol]
