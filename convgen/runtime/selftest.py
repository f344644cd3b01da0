"""A health check that needs nothing but the library: every kernel runs here, on buffers with guards.

Inputs are small integers from a fixed generator, so sums are exact and two runs, with one thread and with all, must agree bit for
bit. A kernel that fails, leaves an output unwritten, writes outside it, or depends on the number of threads is reported. CUDA kernels
run on the default stream, in memory that the driver gives, so that neither torch nor any other library is needed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from math import prod
from typing import Mapping

import numpy as np

from convgen.errors import ArgumentError, Error, NoKernel
from convgen.runtime import arrays
from convgen.runtime.dispatch import Kernel
from convgen.runtime.native import itemsize
from convgen.runtime.serve import Server
from convgen.runtime.signature import Resolved
from convgen.runtime.sizes import evaluate

_GUARD = 4096  # bytes
_FILL = 0xFF  # a NaN in every floating dtype, -1 or 255 in integers
_WIDE = {"float16": np.float16, "float32": np.float32, "float64": np.float64, "int8": np.int8, "uint8": np.uint8, "int32": np.int32,
         "int64": np.int64, "bool": np.uint8}


@dataclass(frozen=True)
class Finding:
    """Outcome of one kernel: `problem` is None if it is healthy."""

    kernel: str
    symbol: str
    problem: str | None
    device: str = arrays.CPU

    @property
    def place(self) -> str:
        """The device, where it has to be named."""
        return "" if self.device == arrays.CPU else f" on {self.device}"


def integers(name: str, count: int, limit: int) -> np.ndarray:
    """`count` int64 numbers in [-limit, limit], the same on every machine for the same tensor name."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    index = np.arange(count, dtype=np.uint64) + np.uint64(seed & 0xFFFFFFFF)
    mixed = (index * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)
    return (mixed % np.uint64(2 * limit + 1)).astype(np.int64) - limit


def encode(values: np.ndarray, dtype: str) -> np.ndarray:
    """Integers as the bytes of a dtype (bfloat16 keeps the upper half of a float32)."""
    if dtype == "bfloat16":
        return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
    if dtype in ("uint8", "bool"):
        values = np.abs(values) if dtype == "uint8" else values & 1
    return np.ascontiguousarray(values.astype(_WIDE[dtype])).view(np.uint8)


def smallest_call(server: Server, kernel: Kernel) -> Resolved:
    """The call that a kernel was made for, or the smallest it takes."""
    entry = kernel.entry
    dims = {d: p if isinstance(p, int) else max(p.get("min", 1), p.get("multiple", 1)) for d, p in entry["dims"].items()}
    operator = server.operators[entry["operator"]]
    problems = []
    for signature in operator.signatures:
        if {t["name"]: t["dtype"] for t in signature["tensors"]} == entry["dtypes"]:
            values = {**dims, **_symbols(signature, kernel.attributes)}
            shapes = {t["name"]: (tuple(evaluate(d, values) for d in t["dims"]), t["dtype"]) for t in signature["tensors"]}
            try:
                return operator.resolve(shapes, kernel.attributes)
            except (ArgumentError, NoKernel) as problem:
                problems.append(str(problem))
    raise Error(f"the kernel {entry['symbol']} fits no signature of {entry['operator']}" + (f": {problems[0]}" if problems else ""))


def _symbols(signature: Mapping, attributes: Mapping) -> dict:
    from convgen.runtime.attributes import symbol_values

    return {k: v for s in signature["attributes"] for k, v in symbol_values(s, attributes[s["name"]]).items()}


class _Buffer:
    """Bytes where a server's kernels can reach them. `content` is aligned host memory: itself on the CPU, copied elsewhere."""

    def __init__(self, server: Server, content: np.ndarray):
        self._content = content
        self._block = None if server.device == arrays.CPU else server.builder.device.memory(content.nbytes)
        self.pointer = content.ctypes.data if self._block is None else self._block.pointer
        if self._block:
            self._block.write(content)

    def seen(self) -> np.ndarray:
        """The bytes as they are now."""
        if self._block:
            self._block.read(self._content)
        return self._content


def _run(server: Server, plan, pointers) -> None:
    if server.device == arrays.CPU:
        plan.run(*pointers)
        return
    device = server.builder.device
    scratch = device.memory(plan.scratch) if plan.scratch else None
    plan.run(*pointers, *([scratch.pointer] if scratch else []), 0)
    device.wait(0)


def _inputs(server: Server, plan, limit: int) -> list[_Buffer]:
    buffers = []
    for name, wanted in zip(plan.names, plan.wanted):
        count = prod(wanted.shape)
        # Numbers belong to logical positions, so the memory format changes nothing in the result.
        values = integers(name, count, limit).reshape(wanted.shape)
        perm = sorted(range(len(wanted.shape)), key=lambda d: (-wanted.strides[d], d))
        data = encode(values.transpose(perm).reshape(-1), wanted.dtype)
        buffer = arrays.memory(max(data.nbytes, 1))
        buffer[:data.nbytes] = data
        buffers.append(_Buffer(server, buffer))
    return buffers


def run_once(server: Server, kernel: Kernel) -> None:
    """Run a kernel on its smallest call and forget the result."""
    plan = server.builder.plan(kernel, smallest_call(server, kernel))
    buffers = [*_inputs(server, plan, 1), _Buffer(server, arrays.memory(prod(plan.output.shape) * itemsize(plan.output.dtype)))]
    _run(server, plan, [b.pointer for b in buffers])


def check(server: Server, kernel: Kernel, limit: int = 3) -> str | None:
    """What is wrong with a kernel, or None. Changes the thread cap; the caller sets it back."""
    plan = server.builder.plan(kernel, smallest_call(server, kernel))
    buffers = _inputs(server, plan, limit)
    nbytes = prod(plan.output.shape) * itemsize(plan.output.dtype)
    outputs = []
    for threads in (1, 0):
        content = arrays.memory(nbytes + 2 * _GUARD)
        content[:] = _FILL
        target = _Buffer(server, content)
        server.shim.limit_threads(threads)
        try:
            _run(server, plan, [*(b.pointer for b in buffers), target.pointer + _GUARD])
            whole = target.seen()
        except Exception as error:
            return f"it failed: {error}"
        if (whole[:_GUARD] != _FILL).any() or (whole[_GUARD + nbytes:] != _FILL).any():
            return "it writes outside its output"
        outputs.append(whole[_GUARD:_GUARD + nbytes].copy())
    size = itemsize(plan.output.dtype)
    if plan.output.dtype.startswith(("float", "bfloat")) and (outputs[0].reshape(-1, size) == _FILL).all(axis=1).any():
        return "it leaves a part of its output unwritten"
    if not np.array_equal(outputs[0], outputs[1]):
        return "its result depends on the number of threads" if server.device == arrays.CPU else "two runs give two results"
    return None
