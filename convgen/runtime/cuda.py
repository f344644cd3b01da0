"""The CUDA driver of this machine, through ctypes: its devices, their memory for health checks, and modules.

It is opened when a CUDA variant is first asked for and never before, because a process that has used CUDA cannot be forked. Kernels
are launched by the shim (shim_cuda.c): nothing here runs in a warm call. Values of enumerations are those of cuda.h.
"""

from __future__ import annotations

import ctypes
import os
import threading
from contextlib import contextmanager
from ctypes import POINTER, c_char_p, c_int, c_size_t, c_uint, c_uint64, c_void_p

from convgen.errors import Error, LibraryError, NoKernel, TargetError

LIBRARY = "libcuda.so.1"
_PLAIN_SHARED = 48 << 10  # dynamic shared memory above this must be asked for
_LOG = 4096  # bytes kept of what the driver's compiler says
_DEVICE_MAJOR, _DEVICE_MINOR, _DEVICE_SHARED_OPTIN = 75, 76, 97
_FUNCTION_MAX_THREADS, _FUNCTION_SHARED, _FUNCTION_DYNAMIC_SHARED = 0, 1, 8
_JIT_ERROR_LOG, _JIT_ERROR_LOG_BYTES = 5, 6
_NO_DEVICE, _CAPTURING = 100, (900, 901)

_FUNCTIONS = {
    "cuInit": [c_uint], "cuDriverGetVersion": [POINTER(c_int)], "cuDeviceGetCount": [POINTER(c_int)], "cuDeviceGet": [POINTER(c_int), c_int],
    "cuDeviceGetName": [c_char_p, c_int, c_int], "cuDeviceGetAttribute": [POINTER(c_int), c_int, c_int],
    "cuDevicePrimaryCtxRetain": [POINTER(c_void_p), c_int], "cuCtxPushCurrent_v2": [c_void_p], "cuCtxPopCurrent_v2": [POINTER(c_void_p)],
    "cuModuleLoadDataEx": [POINTER(c_void_p), c_void_p, c_uint, POINTER(c_int), POINTER(c_void_p)],
    "cuModuleGetFunction": [POINTER(c_void_p), c_void_p, c_char_p], "cuFuncGetAttribute": [POINTER(c_int), c_int, c_void_p],
    "cuFuncSetAttribute": [c_void_p, c_int, c_int], "cuMemAlloc_v2": [POINTER(c_uint64), c_size_t], "cuMemFree_v2": [c_uint64],
    "cuMemcpyHtoD_v2": [c_uint64, c_void_p, c_size_t], "cuMemcpyDtoH_v2": [c_void_p, c_uint64, c_size_t],
    "cuMemcpyDtoDAsync_v2": [c_uint64, c_uint64, c_size_t, c_void_p], "cuStreamSynchronize": [c_void_p],
    "cuGetErrorName": [c_int, POINTER(c_char_p)],
}


class DriverError(Error):
    """A call of the driver failed; `code` is its CUresult."""

    def __init__(self, code: int, message: str):
        super().__init__(message)
        self.code = code


class Driver:
    """The driver, initialised. `version` is the CUDA version it supports, as 1000 * major + 10 * minor."""

    def __init__(self):
        try:
            self._library = ctypes.CDLL(LIBRARY)  # stays open for the life of the process
            for name, arguments in _FUNCTIONS.items():
                getattr(self._library, name).argtypes = arguments
        except (OSError, AttributeError) as error:
            raise TargetError(f"there is no usable NVIDIA driver here: {error}") from None
        self._process = os.getpid()
        count, version = c_int(), c_int()
        try:
            self.call("cuInit", 0)
            self.call("cuDriverGetVersion", version)
            self.call("cuDeviceGetCount", count)
            self.version = version.value
            self.devices = tuple(Device(self, index) for index in range(count.value))
        except DriverError as error:
            what = "the NVIDIA driver finds no CUDA device" if error.code == _NO_DEVICE else f"the NVIDIA driver does not start: {error}"
            raise TargetError(what) from None
        if not self.devices:
            raise TargetError("the NVIDIA driver finds no CUDA device")

    def call(self, name: str, *arguments) -> None:
        """Call a function of the driver; arguments that it writes are ctypes objects. Raises DriverError."""
        code = getattr(self._library, name)(*[ctypes.byref(a) if isinstance(a, (c_int, c_void_p, c_uint64)) else a for a in arguments])
        if code:
            text = c_char_p()
            self._library.cuGetErrorName(code, ctypes.byref(text))
            said = text.value.decode() if text.value else f"error {code}"
            hint = " (a stream is being captured: call lib.warmup(), and bind, before that)" if code in _CAPTURING else ""
            if os.getpid() != self._process:
                hint = " (this process was forked from one that had used CUDA, which CUDA does not allow)"
            raise DriverError(code, f"{name} failed with {said}{hint}")


class Device:
    """One CUDA device: `index` (as torch counts), `name`, `capability` (major, minor), `shared` (bytes of shared memory that a block may ask for)."""

    def __init__(self, driver: Driver, index: int):
        self.driver, self.index = driver, index
        handle, name = c_int(), ctypes.create_string_buffer(256)
        driver.call("cuDeviceGet", handle, index)
        self._handle = handle.value
        driver.call("cuDeviceGetName", name, len(name), self._handle)
        self.name = name.value.decode(errors="replace")
        self.capability = (self._attribute(_DEVICE_MAJOR), self._attribute(_DEVICE_MINOR))
        self.shared = self._attribute(_DEVICE_SHARED_OPTIN)
        self._context: int | None = None
        self._lock = threading.Lock()

    def __str__(self) -> str:
        return f"cuda:{self.index} ({self.name}, sm_{self.capability[0]}{self.capability[1]})"

    def _attribute(self, which: int) -> int:
        value = c_int()
        self.driver.call("cuDeviceGetAttribute", value, which, self._handle)
        return value.value

    @property
    def context(self) -> int:
        """Handle of the device's primary context, which is also torch's; kept until the process ends."""
        with self._lock:
            if self._context is None:
                context = c_void_p()
                self.driver.call("cuDevicePrimaryCtxRetain", context, self._handle)
                self._context = context.value
        return self._context

    @contextmanager
    def current(self):
        """The primary context made current, for calls of the driver that work on it."""
        self.driver.call("cuCtxPushCurrent_v2", self.context)
        try:
            yield
        finally:
            self.driver.call("cuCtxPopCurrent_v2", c_void_p())

    def load(self, image: bytes) -> int:
        """Handle of the module of a cubin or of PTX (which ends with a zero byte). Raises LibraryError with the driver's words."""
        log, module = ctypes.create_string_buffer(_LOG), c_void_p()
        options = (c_int * 2)(_JIT_ERROR_LOG, _JIT_ERROR_LOG_BYTES)
        values = (c_void_p * 2)(ctypes.addressof(log), _LOG)
        with self.current():
            try:
                self.driver.call("cuModuleLoadDataEx", module, image, 2, options, values)
            except DriverError as error:
                said = " ".join(log.value.decode(errors="replace").split())
                raise LibraryError(f"{self} refuses the code of a kernel: {error}" + (f": {said}" if said else "")) from error
        return module.value

    def function(self, module: int, name: str, threads: int, dynamic_shared: int) -> int:
        """Handle of a kernel that may be launched with blocks of `threads` and so many bytes of dynamic shared memory.

        Raises NoKernel if this device has less than that, LibraryError if the module lacks the kernel.
        """
        function, most, static = c_void_p(), c_int(), c_int()
        with self.current():
            try:
                self.driver.call("cuModuleGetFunction", function, module, name.encode())
            except DriverError as error:
                raise LibraryError(f"the library's code lacks the kernel {name}: {error}") from error
            self.driver.call("cuFuncGetAttribute", most, _FUNCTION_MAX_THREADS, function.value)
            self.driver.call("cuFuncGetAttribute", static, _FUNCTION_SHARED, function.value)
            shared = static.value + dynamic_shared
            if shared > self.shared:
                raise NoKernel(f"the kernel {name} needs {shared} bytes of shared memory per block and {self} offers {self.shared}")
            if threads > most.value:
                raise NoKernel(f"the kernel {name} is launched with {threads} threads per block and {self} can take {most.value}")
            if shared > _PLAIN_SHARED:
                self.driver.call("cuFuncSetAttribute", function.value, _FUNCTION_DYNAMIC_SHARED, dynamic_shared)
        return function.value

    def copy(self, target: int, source: int, nbytes: int, stream: int) -> None:
        """Copy device memory to device memory, in the stream's order."""
        with self.current():
            self.driver.call("cuMemcpyDtoDAsync_v2", target, source, nbytes, stream)

    def wait(self, stream: int) -> None:
        """Wait for a stream: when parameters are bound, and in health checks."""
        with self.current():
            self.driver.call("cuStreamSynchronize", stream)

    def memory(self, nbytes: int) -> "Block":
        """Device memory for health checks; calls never allocate by this way."""
        return Block(self, nbytes)


class Block:
    """Device memory that is freed with this object: `pointer`, `nbytes`."""

    def __init__(self, device: Device, nbytes: int):
        pointer = c_uint64()
        with device.current():
            device.driver.call("cuMemAlloc_v2", pointer, max(nbytes, 1))
        self._device, self.pointer, self.nbytes = device, pointer.value, nbytes

    def write(self, data) -> None:
        """Fill the beginning from a contiguous numpy array."""
        with self._device.current():
            self._device.driver.call("cuMemcpyHtoD_v2", self.pointer, data.ctypes.data, data.nbytes)

    def read(self, data) -> None:
        """Copy the beginning into a contiguous numpy array."""
        with self._device.current():
            self._device.driver.call("cuMemcpyDtoH_v2", data.ctypes.data, self.pointer, data.nbytes)

    def __del__(self):
        try:
            with self._device.current():
                self._device.driver.call("cuMemFree_v2", self.pointer)
        except Exception:  # at the end of the process the driver may be gone
            pass


_driver: "Driver | str | None" = None
_lock = threading.Lock()


def driver() -> Driver:
    """The driver of this machine, opened once. Raises TargetError, in one sentence, where there is none or no device."""
    global _driver
    with _lock:
        if _driver is None:
            try:
                _driver = Driver()
            except TargetError as error:
                _driver = str(error)
    if isinstance(_driver, str):
        raise TargetError(_driver)
    return _driver


def device(index: int) -> Device:
    """One device by its number. Raises TargetError."""
    found = driver().devices
    if not 0 <= index < len(found):
        raise TargetError(f"there is no device cuda:{index} here, the driver finds {len(found)}")
    return found[index]
