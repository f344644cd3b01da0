"""Tensors of any library seen the same way: shape, strides, dtype by name, address. Results go back in kind.

torch and numpy are handled directly; anything else comes in through DLPack and goes back through the `from_dlpack` of its own
namespace (on CUDA devices: cuda_arrays.py). Nothing here imports torch: a torch tensor can only arrive when torch is loaded.
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from convgen.errors import ArgumentError
from convgen.runtime.native import ALIGNMENT, CUDA, DTYPES, itemsize


CPU = "cpu"
_DLPACK_CPU = 1


@dataclass(frozen=True)
class View:
    """One tensor argument. `owner` is the caller's object; `keep` is what holds the memory; strides count elements."""

    owner: Any
    kind: str  # "torch", "numpy", "dlpack", or "array" (through DLPack on a CUDA device)
    keep: Any
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str
    pointer: int
    device: str = CPU  # or "cuda:0", ...

    @property
    def aligned(self) -> bool:
        return self.pointer % ALIGNMENT == 0


@dataclass(frozen=True)
class Memory:
    """Memory that a bound call holds."""

    keep: Any
    pointer: int
    nbytes: int


def is_torch(value) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def view(value, where: str) -> View:
    """The tensor as a View. `where` names the operator and argument in messages. Raises ArgumentError for what cannot serve."""
    if is_torch(value):
        return _from_torch(value, where)
    if isinstance(value, np.ndarray):
        return _from_numpy(value, value, "numpy", where)
    if hasattr(value, "__dlpack__"):
        kind, index = value.__dlpack_device__() if hasattr(value, "__dlpack_device__") else (_DLPACK_CPU, 0)
        if kind == CUDA:
            from convgen.runtime import cuda_arrays

            return cuda_arrays.view(value, int(index), where)
        try:
            return _from_numpy(value, np.from_dlpack(value), "dlpack", where)
        except Exception as error:
            raise ArgumentError(f"{where} must be a CPU or CUDA tensor that can be read through DLPack: {error}") from error
    raise ArgumentError(f"{where} must be a tensor (torch, numpy or DLPack), got {type(value).__name__}")


def _from_torch(tensor, where: str) -> View:
    torch = sys.modules["torch"]
    device = tensor.device
    if device.type not in ("cpu", "cuda"):
        raise ArgumentError(f"{where} must be on the CPU or a CUDA device, got a tensor on {device}")
    if tensor.layout is not torch.strided:
        raise ArgumentError(f"{where} must be a strided tensor, got layout {tensor.layout}")
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype not in DTYPES:
        raise ArgumentError(f"{where} has dtype {dtype}, which no kernel takes")
    plain = tensor.detach()
    if plain.is_neg():
        plain = plain.resolve_neg()
    try:
        pointer = 0 if isinstance(plain, torch._subclasses.FakeTensor) else plain.data_ptr()
    except RuntimeError:
        pointer = 0
    if pointer == 0 and plain.numel():
        raise ArgumentError(f"{where} has no memory to read (a fake or functional tensor); call the operator through "
                            "torch.ops inside torch.compile, torch.export and function transforms")
    return View(tensor, "torch", plain, tuple(plain.shape), tuple(plain.stride()), dtype, pointer, place(device))


def place(device) -> str:
    """The name of a torch.device in views."""
    return CPU if device.type == "cpu" else f"cuda:{device.index or 0}"


def _from_numpy(owner, array: np.ndarray, kind: str, where: str) -> View:
    dtype = array.dtype.name
    if dtype not in DTYPES or not array.dtype.isnative:
        raise ArgumentError(f"{where} has dtype {array.dtype}, which no kernel takes")
    size = array.itemsize
    if any(stride % size for stride, extent in zip(array.strides, array.shape) if extent > 1):
        raise ArgumentError(f"{where} has strides that are no multiple of its element size")
    strides = tuple(stride // size for stride in array.strides)
    return View(owner, kind, array, array.shape, strides, dtype, array.ctypes.data)


def memory(nbytes: int) -> np.ndarray:
    """Aligned bytes, as a numpy array that owns them."""
    raw = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start:start + nbytes]


def _element_type(like: View, dtype: str):
    if like.kind == "numpy" and like.dtype == dtype:
        return like.keep.dtype
    if dtype == "bfloat16":
        try:
            import ml_dtypes
        except ImportError:
            raise ArgumentError("numpy has no bfloat16; pass torch tensors, or install ml_dtypes") from None
        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(dtype)


def empty(like: View, shape, strides, dtype: str) -> View:
    """An uninitialised aligned tensor of the same kind and on the same device as `like` (numpy memory for DLPack kinds on the CPU)."""
    if like.kind == "torch":
        torch = sys.modules["torch"]
        tensor = torch.empty_strided(shape, strides, dtype=getattr(torch, dtype), device=like.device)
        return _from_torch(tensor, "the result")
    if like.kind == "array":
        from convgen.runtime import cuda_arrays

        return cuda_arrays.empty(like, shape, strides, dtype)
    count = 1
    for size in shape:
        count *= size
    flat = memory(count * itemsize(dtype)).view(_element_type(like, dtype))
    array = np.lib.stride_tricks.as_strided(flat, shape, [s * itemsize(dtype) for s in strides])
    return View(array, like.kind, array, tuple(shape), tuple(strides), dtype, flat.ctypes.data)


def copy(source: View, strides) -> View:
    """An aligned copy of the same logical tensor with other strides."""
    target = empty(source, source.shape, strides, source.dtype)
    assign(target, source)
    return target


def assign(target: View, source: View) -> None:
    """Copy values, whatever the strides. Both are of the same kind."""
    if target.kind == "torch":
        with sys.modules["torch"].no_grad():
            target.keep.copy_(source.keep)
    else:
        np.copyto(target.keep, source.keep)


def written(tensor) -> None:
    """Tell autograd that a torch tensor was written, as every in-place operation of torch does."""
    if is_torch(tensor) and not tensor.is_inference():
        sys.modules["torch"].autograd.graph.increment_version(tensor)


def back(result: View, like: View):
    """The result as the caller's kind of tensor."""
    if like.kind != "dlpack":
        return result.owner
    namespace = getattr(like.owner, "__array_namespace__", None)
    if namespace is not None and hasattr(namespace(), "from_dlpack"):
        return namespace().from_dlpack(result.keep)
    for kind in type(like.owner).__mro__:  # a subclass may live in a package that reads no DLPack itself
        home = sys.modules.get(kind.__module__.partition(".")[0])
        if hasattr(home, "from_dlpack"):
            return home.from_dlpack(result.keep)
    return result.keep


def snapshot(source: View, strides) -> Memory:
    """The tensor's elements in compact aligned memory of our own on the same device, for parameters that a bound call holds."""
    if source.device != CPU:
        from convgen.runtime import cuda_arrays

        return cuda_arrays.snapshot(source, strides)
    compact = source if source.strides == tuple(strides) else copy(source, strides)
    nbytes = itemsize(source.dtype)
    for size in source.shape:
        nbytes *= size
    target = held(nbytes)
    ctypes.memmove(target.pointer, compact.pointer, nbytes)
    return target


def held(nbytes: int) -> Memory:
    """Aligned memory for a bound call on the CPU."""
    whole = memory(nbytes)
    return Memory(whole, whole.ctypes.data, nbytes)
