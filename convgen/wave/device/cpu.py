"""The processor of this machine as a wave's device: kernels in shared objects, loaded by ctypes alone.

The loaded code finds what it needs of TVM's runtime in the wave's own `runtime.so`; threads come from the system's libgomp.
"""

from __future__ import annotations

import ctypes
import glob
import os
import platform
import re
import sys

from ...runtime.cpu import features, missing
from .trouble import Trouble

GUARD = 4096  # canary bytes on each side of a buffer
ALIGN = 64
TENSOR_POINTER = 7  # TVM FFI's type index of DLTensor*


class TensorRecord(ctypes.Structure):
    """DLTensor of dlpack.h."""

    _fields_ = [("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32), ("ndim", ctypes.c_int32),
                ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16), ("shape", ctypes.POINTER(ctypes.c_int64)),
                ("strides", ctypes.POINTER(ctypes.c_int64)), ("byte_offset", ctypes.c_uint64)]


class AnyRecord(ctypes.Structure):
    """TVMFFIAny of tvm/ffi/c_api.h."""

    _fields_ = [("type_index", ctypes.c_int32), ("zero", ctypes.c_uint32), ("value", ctypes.c_uint64)]


class HostBuffer:
    """Aligned memory of one argument between canaries."""

    def __init__(self, facts: dict):
        self.nbytes, shape = facts["nbytes"], facts["shape"]
        self._memory = ctypes.create_string_buffer(self.nbytes + 2 * GUARD + ALIGN)
        first = ctypes.addressof(self._memory)
        self.address = first + (-(first + GUARD)) % ALIGN + GUARD
        strides, step = [], 1
        for extent in reversed(shape):
            strides.append(step)
            step *= extent
        self._shape = (ctypes.c_int64 * max(1, len(shape)))(*shape)
        self._strides = (ctypes.c_int64 * max(1, len(shape)))(*reversed(strides))
        self.tensor = TensorRecord(self.address if self.nbytes else None, 1, 0, len(shape), facts["code"], facts["bits"], 1, self._shape, self._strides, 0)
        self.surround(0xA5)

    def write(self, data: bytes) -> None:
        ctypes.memmove(self.address, data, self.nbytes)

    def read(self) -> bytes:
        return ctypes.string_at(self.address, self.nbytes)

    def stain(self, byte: int) -> None:
        """Fill the buffer with a byte."""
        ctypes.memset(self.address, byte, self.nbytes)

    def surround(self, byte: int) -> None:
        """Fill both canaries with a byte."""
        self._canary = bytes([byte]) * GUARD
        ctypes.memset(self.address - GUARD, byte, GUARD)
        ctypes.memset(self.address + self.nbytes, byte, GUARD)

    def damaged(self):
        """Where the canaries were overwritten, "before" or "after", else None."""
        for where, start in (("before", self.address - GUARD), ("after", self.address + self.nbytes)):
            if ctypes.string_at(start, GUARD) != self._canary:
                return where
        return None


class HostKernel:
    """One candidate's functions on buffers of its own; `run` and `prepare` take no arguments."""

    def __init__(self, device, candidate: dict, code: bytes):
        self.buffers = {name: HostBuffer(facts) for name, facts in candidate["buffers"].items()}
        self.library = open_bytes(code)
        device.attach(self.library)
        self.run = self._call(device, candidate["run"])
        self.prepare = self._call(device, candidate["prepare"]) if candidate["prepare"] else lambda: None

    def _call(self, device, function: dict):
        try:
            entry = getattr(self.library, "__tvm_ffi_" + function["symbol"])
        except AttributeError:
            raise Trouble("invalid", "the shared object exports no function " + function["symbol"])
        entry.argtypes, entry.restype = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32, ctypes.c_void_p], ctypes.c_int
        buffers = [self.buffers[name] for name in function["args"]]
        packed = (AnyRecord * max(1, len(buffers)))(*[AnyRecord(TENSOR_POINTER, 0, ctypes.addressof(b.tensor)) for b in buffers])
        result = AnyRecord()
        where, count, out = ctypes.addressof(packed), len(buffers), ctypes.addressof(result)

        def call(keep=(packed, result, buffers)):
            status = entry(None, where, count, out)
            if status:
                text = device.message()
                raise Trouble("crash" if text else "oom", "the kernel stopped with code %d: %s" % (status, text or "no message; it ran out of memory"))

        return call

    def close(self) -> None:
        """Nothing: loaded code stays for the life of the process."""


class HostDevice:
    """This machine. `runtime` holds the bytes of the wave's runtime.so, `target` the wave's target."""

    take = None  # the host's own clock

    def __init__(self, runtime: bytes, target: dict):
        self.target = target
        lacking = missing(target["features"])
        if lacking:
            raise Trouble("device", "this wave is for %s and this processor lacks %s" % (target["name"], ", ".join(lacking)))
        self._c = open_bytes(runtime, ctypes.RTLD_GLOBAL)
        self._c.cw_message.restype = ctypes.c_char_p
        self._c.cg_use_pool.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
        self._c.cg_attach.argtypes, self._c.cg_attach.restype = [ctypes.c_void_p], None
        self._c.cw_flush.argtypes, self._c.cw_flush.restype = [ctypes.c_void_p, ctypes.c_uint64], None
        if self._c.cg_use_pool(b"libgomp.so.1", None):
            self._c.cg_use_pool(None, None)  # one thread, and the result says so
        self._junk = None

    def join_pool(self, home: str) -> None:
        """Run kernels on the OpenMP library that the package in folder `home` brought into this process: two pools fight for the cores."""
        with open("/proc/self/maps") as file:
            found = sorted({line.split(maxsplit=5)[5].strip() for line in file if re.search(r"/lib(gomp|iomp5)[^/]*\.so", line)})
        own = [path for path in found if path.startswith((home + "/", home + ".libs/"))]
        if own:
            self._c.cg_use_pool(own[0].encode(), None)

    def facts(self) -> dict:
        """What the result file says of this device; `threads` are those that kernels really get."""
        here = cpu_facts()
        return {"family": self.target["family"], "threads": self._c.cg_threads(), **here, "flags": sorted(here["flags"])}

    def state(self) -> dict:
        """What changes while measuring."""
        return {"clock_mhz": clock_mhz(), "load": os.getloadavg()[0]}

    def open(self, candidate: dict, code: bytes) -> HostKernel:
        return HostKernel(self, candidate, code)

    def attach(self, library) -> None:
        self._c.cg_attach(library._handle)

    def message(self) -> str:
        return (self._c.cw_message() or b"").decode("utf-8", "replace")

    def flush(self) -> None:
        """Evict all caches."""
        if self._junk is None:
            self._junk = ctypes.create_string_buffer(3 * cpu_facts()["l3"])
        self._c.cw_flush(ctypes.addressof(self._junk), len(self._junk))

    def finish(self) -> None:
        """Nothing runs behind the caller's back here."""


def open_bytes(code: bytes, mode: int = ctypes.RTLD_LOCAL):
    """Load a shared object from memory: the very bytes whose hash was checked, and no file that somebody could exchange."""
    descriptor = os.memfd_create("convgen", os.MFD_CLOEXEC)  # stays open: the loader takes a path it has seen for the same library
    while code:
        code = code[os.write(descriptor, code):]
    try:
        return ctypes.CDLL("/proc/self/fd/%d" % descriptor, mode=mode | os.RTLD_NOW)
    except OSError as error:
        raise Trouble("invalid", "the system linker refused the code: %s" % error)


def cpu_facts(info: str = "/proc/cpuinfo") -> dict:
    """Name, identity and features of the first processor, memory's last cache, the processors this process may use, and versions."""
    fields = {}
    with open(info) as file:
        for line in file:
            name, _, value = line.partition(":")
            if not name.strip():
                break
            fields[name.strip()] = value.strip()
    part = "implementer %s part %s" % (fields.get("CPU implementer"), fields.get("CPU part")) if "CPU part" in fields else platform.machine()
    facts = {"card": fields.get("model name") or part, "vendor": fields.get("vendor_id", ""),
             "cpu_family": number(fields.get("cpu family")), "model": number(fields.get("model")),
             "implementer": fields.get("CPU implementer"), "part": fields.get("CPU part"),
             "flags": features(), "architecture": platform.machine(),
             "cores_usable": len(os.sched_getaffinity(0)), "l3": last_cache(), "kernel": platform.release(), "python": sys.version.split()[0]}
    return facts


def number(text, default: int = 0) -> int:
    return int(text) if text and text.isdigit() else default


def last_cache() -> int:
    """Bytes of the largest cache that sysfs shows, 32 MiB where it shows none."""
    found = []
    for path in glob.glob("/sys/devices/system/cpu/cpu0/cache/index*/size"):
        with open(path) as file:
            size = re.match(r"(\d+)([KM])", file.read())
        if size:
            found.append(int(size.group(1)) << {"K": 10, "M": 20}[size.group(2)])
    return max(found, default=32 << 20)


def clock_mhz():
    """The first processor's clock now, None where nothing says it."""
    try:
        with open("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq") as file:
            return round(int(file.read()) / 1000)
    except (OSError, ValueError):
        pass
    try:
        with open("/proc/cpuinfo") as file:
            found = re.search(r"cpu MHz\s*:\s*([\d.]+)", file.read())
        return round(float(found.group(1))) if found else None
    except OSError:
        return None
