"""Doors to the compiled parts of a library: the shim's functions, the kernels' symbols, and the words a call plan is made of."""

from __future__ import annotations

import ctypes
import os
from array import array
from dataclasses import dataclass, field
from typing import Sequence

from convgen.errors import LibraryError

# DLPack type code, bits. `bool` is stored as a byte.
DTYPES = {
    "float16": (2, 16), "float32": (2, 32), "float64": (2, 64), "bfloat16": (4, 16),
    "int8": (0, 8), "int32": (0, 32), "int64": (0, 64), "uint8": (1, 8), "bool": (6, 8),
}
ALIGNMENT = 64
SERIAL_AFTER_FORK = 1 << 24
# `reason` of a refused call, in the order of the enum in shim_plan.c.
REASONS = ("", "count", "kind", "device", "dtype", "shape", "strides", "alignment", "overlap")
CALL, HELD, SCRATCH, VALUE = 0, 1, 2, 3
CUDA = 2  # DLPack's device type

_FLAGS = os.RTLD_NOW | os.RTLD_LOCAL | getattr(os, "RTLD_NODELETE", 0)


def itemsize(dtype: str) -> int:
    """Bytes of one element of a dtype given by name."""
    return DTYPES[dtype][1] // 8


def reason(status: int) -> tuple[str, int]:
    """Why a plan refused its tensors, and the index of the tensor that did not fit."""
    return REASONS[status >> 8], status & 0xFF


@dataclass(frozen=True)
class Wanted:
    """A tensor that a plan takes at each call: its logical shape and its strides in elements."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str
    written: bool = False

    def words(self) -> list[int]:
        nbytes = itemsize(self.dtype)
        for size in self.shape:
            nbytes *= size
        return [*DTYPES[self.dtype], int(self.written), nbytes, len(self.shape), *self.shape, *self.strides]


@dataclass(frozen=True)
class Argument:
    """One kernel argument: where its memory comes from, and the compact physical shape the kernel was compiled for."""

    source: int
    index: int
    dtype: str
    shape: tuple[int, ...]

    def words(self) -> list[int]:
        return [self.source, self.index, *DTYPES[self.dtype], len(self.shape), *self.shape]


@dataclass
class Program:
    """A call: the tensors it takes, the memory it holds, the scratch it needs, and the kernels it runs in order."""

    calls: list[Wanted] = field(default_factory=list)
    held: list[int] = field(default_factory=list)
    scratch: list[int] = field(default_factory=list)
    steps: list[tuple[int, Sequence[Argument]]] = field(default_factory=list)
    counter: int = 0  # address of the uint64 that counts runs

    def words(self) -> array:
        """Libraries bring their own shim, so what these words mean stays as it is."""
        words = [len(self.calls), len(self.held), len(self.scratch), len(self.steps), self.counter]
        for wanted in self.calls:
            words += wanted.words()
        return array("q", [*words, *self.held, *self.scratch, *self._steps()])

    def _steps(self) -> list[int]:
        words = []
        for address, arguments in self.steps:
            words += [address, len(arguments)]
            for argument in arguments:
                words += argument.words()
        return words


@dataclass(frozen=True)
class Launch:
    """One launch of a CUDA kernel: its function's handle, grid and block, dynamic shared bytes, and (source, index or value) per parameter."""

    function: int
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared: int
    parameters: tuple[tuple[int, int], ...]

    def words(self) -> list[int]:
        return [self.function, *self.grid, *self.block, self.shared, len(self.parameters), *(word for pair in self.parameters for word in pair)]


@dataclass
class CudaProgram(Program):
    """A call on a CUDA device: `steps` are launches, in the order of one stream; `context` is the handle of the device's primary context."""

    steps: list[Launch] = field(default_factory=list)
    device: tuple[int, int] = (CUDA, 0)
    context: int = 0

    def _steps(self) -> list[int]:
        return [*self.device, self.context, *(word for launch in self.steps for word in launch.words())]


def open_library(path: str) -> ctypes.CDLL:
    """dlopen for the life of the process. Raises LibraryError with the linker's words."""
    import tvm_ffi  # noqa: F401  the kernels and the shim resolve against libtvm_ffi, which this loads globally

    try:
        return ctypes.CDLL(path, mode=_FLAGS)
    except OSError as error:
        raise LibraryError(f"the system linker refused a file of the library: {error}") from error


class Shim:
    """A loaded shim."""

    def __init__(self, path: str):
        import tvm_ffi

        self._c = open_library(path)
        try:
            self._c.cg_use_pool.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
            self._c.cg_attach.argtypes = [ctypes.c_void_p]
            self._c.cg_attach.restype = None
            self._c.cg_limit_threads.restype = None
            self._c.cg_workspace_alloc.argtypes = [ctypes.c_uint64]
            self._c.cg_workspace_alloc.restype = ctypes.c_void_p
            self._c.cg_workspace_free.argtypes = [ctypes.c_void_p]
            self._c.cg_workspace_bytes.restype = ctypes.c_uint64
        except AttributeError as error:
            raise LibraryError(f"the library's shim lacks a function: {error}") from error
        # The loader by its own name, because tvm_ffi.load_module picks one by the file's suffix and a descriptor has none.
        self._module = tvm_ffi.get_global_func("ffi.Module.load_from_file.so")(path, "")
        self._plan = self._module.get_function("convgen_plan")

    def use_pool(self, openmp: str | None, torch: str | None) -> bool:
        encode = lambda p: None if p is None else os.fsencode(p)  # noqa: E731
        return self._c.cg_use_pool(encode(openmp), encode(torch)) == 0

    def take_warning(self) -> bool:
        """Whether the caller is the one to warn that this forked process runs on one thread."""
        return bool(self._c.cg_take_warning())

    def limit_threads(self, limit: int) -> None:
        self._c.cg_limit_threads(limit)

    @property
    def threads(self) -> int:
        """Threads that a parallel kernel would use if it were called now from this thread."""
        return self._c.cg_threads()

    @property
    def workspace_bytes(self) -> int:
        """Scratch memory that the threads of this process hold."""
        return self._c.cg_workspace_bytes()

    def attach(self, library: ctypes.CDLL) -> None:
        self._c.cg_attach(library._handle)

    def use_driver(self, path: str) -> None:
        """Take the CUDA driver from this shared object. Raises LibraryError."""
        try:
            use = self._c.cg_use_driver
        except AttributeError:
            raise LibraryError("the library's shim is older than CUDA variants; export the library again") from None
        use.argtypes = [ctypes.c_char_p]
        if use(os.fsencode(path)):
            raise LibraryError(f"{path} cannot be loaded, or it lacks a function")

    def compile(self, program: Program):
        """The program as a function: tensors or addresses, the output last → status, 0 when it ran (see `reason`).

        That of a CudaProgram takes two more numbers: the address of its scratch memory, if it needs any, and the stream.
        """
        words = program.words()
        plan = self._module.get_function("convgen_cuda_plan") if isinstance(program, CudaProgram) else self._plan
        function = plan(words.buffer_info()[0])
        function.release_gil = True
        return function


def symbol_address(library: ctypes.CDLL, symbol: str) -> int:
    """Address of a kernel. Raises LibraryError when the shared object does not export it."""
    try:
        return ctypes.cast(getattr(library, f"__tvm_ffi_{symbol}"), ctypes.c_void_p).value
    except AttributeError as error:
        raise LibraryError(f"the shared object does not export the kernel {symbol}") from error
