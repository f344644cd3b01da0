"""One compiled kernel under test: loaded by ctypes alone, called on guarded buffers.

Calls go straight to the exported symbols, without the dispatch of `convgen.runtime`: a candidate is measured before it is part
of any library, and whatever it does to memory is seen here.
"""

from __future__ import annotations

import ctypes

import numpy as np

from ..errors import WorkerError
from ..runtime.sizes import evaluate
from .storage import DLPACK, RAW

ALIGN = 64  # bytes that kernels assume of every buffer
GUARD = 4096  # canary bytes on each side of a buffer


class _Tensor(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32), ("ndim", ctypes.c_int32),
                ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16), ("shape", ctypes.POINTER(ctypes.c_int64)),
                ("strides", ctypes.POINTER(ctypes.c_int64)), ("byte_offset", ctypes.c_uint64)]


class _Any(ctypes.Structure):
    _fields_ = [("type_index", ctypes.c_int32), ("zero", ctypes.c_uint32), ("value", ctypes.c_uint64)]


_DLTENSOR_POINTER = 7  # TVM FFI's type index of DLTensor*


class Buffer:
    """Compact 64-byte aligned memory of one argument with canary bytes before and after it.

    `array` is the raw storage in physical order; `shape` the physical shape; `whole` the bytes with their canaries.
    """

    def __init__(self, shape, dtype: str, guard: int = GUARD):
        self.shape, self.dtype = tuple(int(s) for s in shape), dtype
        kind = np.dtype(RAW[dtype])
        self.nbytes = kind.itemsize * int(np.prod(self.shape, dtype=np.int64))
        self._memory = self._allocate(self.nbytes + 2 * guard + ALIGN)
        start = (-(self._memory.ctypes.data + guard)) % ALIGN + guard
        self.whole = self._memory[start - guard:start + self.nbytes + guard]
        self._before, self._after = self.whole[:guard], self.whole[guard + self.nbytes:]
        self.bytes = self._memory[start:start + self.nbytes]
        self.array = self.bytes.view(kind).reshape(self.shape)
        self._shape = (ctypes.c_int64 * max(1, len(self.shape)))(*self.shape)
        self.strides = tuple(int(np.prod(self.shape[d + 1:], dtype=np.int64)) for d in range(len(self.shape)))
        self._strides = (ctypes.c_int64 * max(1, len(self.shape)))(*self.strides)
        code, bits = DLPACK[dtype]
        self.tensor = _Tensor(self.bytes.ctypes.data if self.nbytes else None, 1, 0, len(self.shape), code, bits, 1,
                              self._shape, self._strides, 0)
        self.set_canary(0xA5)

    def _allocate(self, nbytes: int) -> np.ndarray:
        """Bytes for data, canaries and alignment."""
        return np.empty(nbytes, np.uint8)

    def set_canary(self, byte: int) -> None:
        """Fill both guards with a byte."""
        self._canary = byte
        self._before[:] = byte
        self._after[:] = byte

    def damaged(self) -> str | None:
        """Where the guards were overwritten ("before" or "after" the buffer), else None."""
        for where, guard in (("before", self._before), ("after", self._after)):
            if not (guard == self._canary).all():
                return where
        return None


def argument_block(buffers: list[Buffer]):
    """What a compiled function takes as its arguments, for these buffers in order; they must outlive it."""
    return (_Any * max(1, len(buffers)))(*[_Any(_DLTENSOR_POINTER, 0, ctypes.addressof(b.tensor)) for b in buffers])


class NativeKernel:
    """The run and prepare functions of one kernel entry in a linked shared object.

    `dims` are the workload's sizes; `shim` is the compiled runtime shim (None for kernels that need neither threads nor scratch).
    """

    def __init__(self, path: str, entry: dict, dims: dict, shim: str | None = None):
        self.entry, self.dims = entry, dims
        self.library = load_shared(path, shim)
        self._run = self._function(entry["symbol"])
        prepare = entry.get("prepare")
        self._prepare = self._function(prepare["symbol"]) if prepare else None

    def _function(self, symbol: str):
        try:
            function = getattr(self.library, "__tvm_ffi_" + symbol)
        except AttributeError:
            raise WorkerError("invalid", f"the shared object exports no function {symbol}") from None
        function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32, ctypes.c_void_p]
        function.restype = ctypes.c_int
        return function

    def shape(self, argument: dict) -> tuple:
        """Physical shape of an argument at the workload's dims."""
        return tuple(int(evaluate(tree, self.dims)) for tree in argument["shape"])

    def buffers(self, arguments: list[dict], shared: dict | None = None) -> dict[str, Buffer]:
        """A guarded buffer per argument, by name; those in `shared` are taken over."""
        shared = shared or {}
        return {a["name"]: shared.get(a["name"]) or Buffer(self.shape(a), a["dtype"]) for a in arguments}

    def caller(self, buffers: dict[str, Buffer]):
        """A function without arguments that runs the kernel once on these buffers."""
        return self._bind(self._run, self.entry["args"], buffers)

    def preparer(self, buffers: dict[str, Buffer]):
        """The same for the prepare function; None if the kernel has none."""
        return self._bind(self._prepare, self.entry["prepare"]["args"], buffers) if self._prepare else None

    @staticmethod
    def _bind(function, arguments, buffers):
        packed = argument_block([buffers[a["name"]] for a in arguments])
        result = _Any(0, 0, 0)
        where, count, out = ctypes.addressof(packed), len(arguments), ctypes.addressof(result)

        def call(keep=(packed, result, buffers)):
            code = function(None, where, count, out)
            if code:
                message = raised_message()
                if message is None:  # so TVM answers a failed allocation
                    raise WorkerError("oom", f"the kernel stopped with code {code} and no message; it ran out of memory")
                raise WorkerError("crash", f"the kernel stopped with code {code}: {message}")

        return call


def raised_message() -> str | None:
    """The message that a kernel left with TVM FFI before it returned an error, None if there is none."""
    import tvm_ffi.libinfo

    library = ctypes.CDLL(tvm_ffi.libinfo.find_libtvm_ffi())
    error = ctypes.c_void_p()
    library.TVMFFIErrorMoveFromRaised.argtypes = [ctypes.c_void_p]
    library.TVMFFIErrorMoveFromRaised(ctypes.byref(error))
    if not error.value:
        return None
    # After the object's header (24 bytes) stand two strings as (pointer, length): the kind and the message.
    where, length = (ctypes.c_uint64 * 4).from_address(error.value + 24)[2:]
    message = ctypes.string_at(where, length).decode(errors="replace")
    library.TVMFFIObjectDecRef.argtypes = [ctypes.c_void_p]
    library.TVMFFIObjectDecRef(error)
    return message


_shims: dict[str, object] = {}


def open_shim(path: str | None):
    """The runtime shim compiled at `path`, opened once per process; None for None."""
    from ..runtime import native, threads

    if path is not None and path not in _shims:
        _shims[path] = native.Shim(path)
        threads.attach(_shims[path])
    return _shims.get(path)


def load_shared(path: str, shim: str | None) -> ctypes.CDLL:
    """Open a linked kernel library; `shim` (path of the compiled runtime shim) gives it threads and scratch memory."""
    from ..runtime import native

    library = native.open_library(path)
    if shim is not None:
        open_shim(shim).attach(library)
    return library
