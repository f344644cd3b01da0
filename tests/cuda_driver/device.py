"""A CUDA device for tests on machines without one: a driver that writes down every call, and tensors in its memory.

Kernels run by their emulation (convgen.emulate), built as shared objects that the driver looks into.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import types
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
_EMULATE = """
template <class... A> int arity(void (*)(A...)) {{ return sizeof...(A); }}
extern "C" int emulate(const char* name, const unsigned* g, const unsigned* b, unsigned dynamic, void** parameters) {{
  static const int counts[] = {{{counts}}};
  for (int k = 0; k < {number}; k++) {{
    if (strcmp(kernels[k].name, name)) continue;
    emulated::Argument a[64];
    for (int i = 0; i < counts[k]; i++) memcpy(&a[i].pointer, parameters[i], 8), memcpy(&a[i].number, parameters[i], 8);
    emulated::launch(kernels[k].body, kernels[k].waits, {{g[0], g[1], g[2]}}, {{b[0], b[1], b[2]}}, dynamic, a, 2);
    return 1;
  }}
  return 0;
}}
"""


def build_driver(folder: Path) -> Path:
    """The driver as `folder`/libcuda.so.1."""
    if not shutil.which("g++"):
        pytest.skip("the test driver needs g++")
    path = folder / "libcuda.so.1"
    subprocess.run(["g++", "-std=c++17", "-O1", "-shared", "-fPIC", "-o", str(path), str(HERE / "driver.cpp")], check=True)
    return path


def build_kernels(source: Path, target: Path) -> Path:
    """The kernels of a CUDA file as a shared object for the driver."""
    from convgen.emulate import cuda

    text = cuda.translate(source.read_text())
    names = re.findall(r"emulated::call<(\w+)>", text)
    text = re.sub(r"^int main\(\).*$", "", text, flags=re.M) + _EMULATE.format(counts=", ".join(f"arity({n})" for n in names), number=len(names))
    made = target.with_suffix(".cpp")
    made.write_text(text)
    subprocess.run(["g++", "-std=c++20", "-O1", "-w", "-shared", "-fPIC", "-fno-gnu-unique", "-fno-strict-aliasing", f"-I{Path(cuda.__file__).parent}",
                    "-o", str(target), str(made)], check=True)
    return target


class Machine:
    """The driver of a test process: what it was asked to do, and how it behaves."""

    def __init__(self, path):
        self._c = ctypes.CDLL(str(path))
        self._c.fake_log.restype = ctypes.c_char_p

    def calls(self, *names: str) -> list[str]:
        """The calls since `forget`, all or those of these functions."""
        lines = self._c.fake_log().decode().splitlines()
        return [line for line in lines if not names or line.split()[0] in names]

    def forget(self) -> None:
        self._c.fake_clear()

    def capture(self, on: bool) -> None:
        """Forbid what may not be called while a stream is captured."""
        self._c.fake_capture(int(on))

    def limit(self, what: str, value: int) -> None:
        """Threads or bytes of shared memory ("threads", "shared") that a block may have."""
        self._c.fake_limit(what.encode(), value)

    def context(self, device: int | None) -> None:
        """Make a device's context the only one of this thread, or none."""
        self._c.fake_context(-1 if device is None else device)

    def current(self) -> int | None:
        """The device whose context is current in this thread."""
        found = self._c.fake_current()
        return None if found < 0 else found


class _DLTensor(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32), ("ndim", ctypes.c_int32),
                ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16), ("shape", ctypes.POINTER(ctypes.c_int64)),
                ("strides", ctypes.POINTER(ctypes.c_int64)), ("byte_offset", ctypes.c_uint64)]


class _Managed(ctypes.Structure):
    pass


_Deleter = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Managed))
_Managed._fields_ = [("tensor", _DLTensor), ("context", ctypes.c_void_p), ("deleter", _Deleter)]
_CODES = {"float32": (2, 32), "uint8": (1, 8), "int8": (0, 8), "int32": (0, 32)}
_alive: dict[int, tuple] = {}
_capsule = ctypes.pythonapi.PyCapsule_New
_capsule.restype, _capsule.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]


@_Deleter
def _release(managed):
    _alive.pop(ctypes.addressof(managed.contents), None)


class Array:
    """A tensor on device `index`. Its bytes are those of `host`, a numpy array aligned to 512 bytes, with the strides it has."""

    made = 0  # how many tensors the namespace has allocated

    def __init__(self, values, index: int = 0, offset: int = 0):
        values = np.asarray(values)
        perm = sorted(range(values.ndim), key=lambda d: (-values.strides[d], d))
        raw = np.empty(values.nbytes + 512 + offset, np.uint8)
        start = -raw.ctypes.data % 512 + offset
        stored = raw[start:start + values.nbytes].view(values.dtype).reshape([values.shape[d] for d in perm])
        self.host, self.index = stored.transpose([perm.index(d) for d in range(values.ndim)]), index
        self.host[...] = values
        self.streams: list = []

    @property
    def device(self) -> str:
        return f"cuda:{self.index}"

    def __array_namespace__(self):
        return types.SimpleNamespace(empty=empty, permute_dims=permute_dims, float32=np.float32, uint8=np.uint8, int32=np.int32)

    def __dlpack_device__(self):
        return 2, self.index

    def __dlpack__(self, stream=None):
        self.streams.append(stream)
        rank, item = self.host.ndim, self.host.itemsize
        shape = (ctypes.c_int64 * max(rank, 1))(*self.host.shape)
        strides = (ctypes.c_int64 * max(rank, 1))(*(s // item for s in self.host.strides))
        managed = _Managed(_DLTensor(self.host.ctypes.data, 2, self.index, rank, *_CODES[self.host.dtype.name], 1, shape, strides, 0), None, _release)
        _alive[ctypes.addressof(managed)] = (managed, shape, strides, self)
        return _capsule(ctypes.addressof(managed), b"dltensor", None)


def empty(shape, dtype, device) -> Array:
    Array.made += 1
    return Array(np.full(shape, np.nan if np.dtype(dtype).kind == "f" else 0xA5, dtype), int(device.rpartition(":")[2]))


def permute_dims(array: Array, axes) -> Array:
    other = object.__new__(Array)
    other.host, other.index, other.streams = array.host.transpose(axes), array.index, []
    return other
