"""Memory on CUDA devices: tensors of other libraries through DLPack, buffers in the caller's kind, and the stream of a call.

Memory always comes from the caller's own library, whose allocator follows the order of its streams and works under graph capture:
torch's caching allocator, or `empty` of the tensor's array API namespace.
"""

from __future__ import annotations

import sys
from math import prod

from convgen.errors import ArgumentError
from convgen.runtime import arrays, cuda
from convgen.runtime.arrays import Memory, View
from convgen.runtime.native import DTYPES, itemsize

_LEGACY_STREAM = 1  # DLPack's number for CUDA's default stream


def ordinal(device: str) -> int:
    """The number in "cuda:1"."""
    return int(device.rpartition(":")[2])


def view(value, index: int, where: str) -> View:
    """A tensor of any library, ready on the stream of this call. Raises ArgumentError."""
    import tvm_ffi

    try:
        tensor = tvm_ffi.from_dlpack(value.__dlpack__(stream=_ffi_stream(index) or _LEGACY_STREAM))
    except Exception as error:
        raise ArgumentError(f"{where} must be a CPU or CUDA tensor that can be read through DLPack: {error}") from error
    dtype = str(tensor.dtype)
    if dtype not in DTYPES:
        raise ArgumentError(f"{where} has dtype {dtype}, which no kernel takes")
    return View(value, "array", tensor, tuple(tensor.shape), tuple(tensor.strides), dtype, tensor.data_ptr(), f"cuda:{index}")


def stream(like: View) -> int:
    """The stream that a call with this tensor belongs to: torch's current one, else that of tvm_ffi (`tvm_ffi.use_raw_stream`)."""
    index = ordinal(like.device)
    return torch_stream()(index) if like.kind == "torch" else _ffi_stream(index)


def torch_stream():
    """A function from a device's number to the handle of torch's current stream there."""
    torch = sys.modules["torch"]
    raw = getattr(torch._C, "_cuda_getCurrentRawStream", None)  # 20 times faster than building a Stream
    return raw or (lambda index: torch.cuda.current_stream(index).cuda_stream)


def _ffi_stream(index: int) -> int:
    import tvm_ffi

    return tvm_ffi.get_raw_stream(tvm_ffi.device("cuda", index))


def empty(like: View, shape, strides, dtype: str) -> View:
    """An uninitialised tensor from the array namespace of `like`. Raises ArgumentError where it has none."""
    get = getattr(like.owner, "__array_namespace__", None)
    if get is None:
        raise ArgumentError(f"a tensor of {type(like.owner).__name__} on {like.device} has no array namespace to allocate from; "
                            "pass torch tensors, or out= to an operator that needs no scratch memory")
    namespace = get()
    perm = sorted(range(len(shape)), key=lambda d: (-strides[d], d))
    tensor = namespace.empty(tuple(shape[d] for d in perm), dtype=getattr(namespace, dtype), device=like.owner.device)
    tensor = namespace.permute_dims(tensor, tuple(perm.index(d) for d in range(len(shape))))
    return view(tensor, ordinal(like.device), "the result")


def memory(like: View, nbytes: int) -> Memory:
    """Bytes on the device of `like`, from its library."""
    whole = arrays.empty(like, (max(nbytes, 1),), (1,), "uint8")
    return Memory(whole.owner, whole.pointer, nbytes)


def snapshot(source: View, strides) -> Memory:
    """The tensor's elements in compact memory of our own, copied in the order of the current stream."""
    if source.kind == "torch":
        kept = arrays.copy(source, strides)
        return Memory(kept.owner, kept.pointer, prod(source.shape) * itemsize(source.dtype))
    if any(size > 1 and have != want for size, have, want in zip(source.shape, source.strides, strides)):
        raise ArgumentError(f"a parameter of shape {source.shape} must lie compact in memory; only torch tensors are copied on CUDA devices")
    target = memory(source, prod(source.shape) * itemsize(source.dtype))
    cuda.device(ordinal(source.device)).copy(target.pointer, source.pointer, target.nbytes, stream(source))
    return target
