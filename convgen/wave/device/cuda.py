"""A CUDA card as a wave's device, through the driver's libcuda alone: cubins, launches on one stream, events, graphs."""

from __future__ import annotations

import ctypes
import platform
import sys

from .trouble import Trouble

_OUT_OF_MEMORY = 2
_NO_DEVICE = 100
_COMPUTE_MAJOR, _COMPUTE_MINOR, _SMS, _L2, _CLOCK = 75, 76, 16, 38, 13  # CUdevice_attribute
_DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
_RELAXED = 2  # CU_STREAM_CAPTURE_MODE_RELAXED
CARD_GUARD = 4096  # canary bytes on each side of a buffer
POINTER, HANDLE = ctypes.c_uint64, ctypes.c_void_p


class Driver:
    """libcuda with errors as Trouble."""

    def __init__(self, path: str = "libcuda.so.1"):
        try:
            self._c = ctypes.CDLL(path)
        except OSError:
            raise Trouble("device", "no CUDA driver was found (%s); this wave is for a CUDA card" % path)

    def __call__(self, name: str, *arguments) -> None:
        status = getattr(self._c, name)(*arguments)
        if status:
            text = ctypes.c_char_p()
            self._c.cuGetErrorString(status, ctypes.byref(text))
            words = (text.value or b"unknown error").decode()
            kind = "oom" if status == _OUT_OF_MEMORY else "device" if status == _NO_DEVICE else "crash"
            raise Trouble(kind, "%s: %s (CUDA error %d)" % (name, words, status))

    def number(self, name: str, *arguments) -> int:
        """An int that a function writes to its first argument."""
        value = ctypes.c_int()
        self(name, ctypes.byref(value), *arguments)
        return value.value

    def handle(self, name: str, *arguments):
        """A pointer that a function writes to its first argument."""
        value = HANDLE()
        self(name, ctypes.byref(value), *arguments)
        return value


class CardBuffer:
    """Memory on the card between canaries; starts at a multiple of 256 bytes."""

    def __init__(self, cu: Driver, facts: dict):
        self._cu, self.nbytes = cu, facts["nbytes"]
        base = POINTER()
        cu("cuMemAlloc_v2", ctypes.byref(base), ctypes.c_size_t(self.nbytes + 2 * CARD_GUARD))
        self._base, self.address = base, base.value + CARD_GUARD
        self.surround(0xA5)

    def write(self, data: bytes) -> None:
        if self.nbytes:
            self._cu("cuMemcpyHtoD_v2", POINTER(self.address), data, ctypes.c_size_t(self.nbytes))

    def read(self) -> bytes:
        return self._read(self.address, self.nbytes)

    def _read(self, address: int, count: int) -> bytes:
        data = ctypes.create_string_buffer(max(1, count))
        if count:
            self._cu("cuMemcpyDtoH_v2", data, POINTER(address), ctypes.c_size_t(count))
        return data.raw[:count]

    def _fill(self, address: int, byte: int, count: int) -> None:
        if count:
            self._cu("cuMemsetD8_v2", POINTER(address), ctypes.c_ubyte(byte), ctypes.c_size_t(count))

    def stain(self, byte: int) -> None:
        """Fill the buffer with a byte."""
        self._fill(self.address, byte, self.nbytes)

    def surround(self, byte: int) -> None:
        """Fill both canaries with a byte."""
        self._canary = bytes([byte]) * CARD_GUARD
        for start in (self.address - CARD_GUARD, self.address + self.nbytes):
            self._fill(start, byte, CARD_GUARD)

    def damaged(self):
        """Where the canaries were overwritten, "before" or "after", else None."""
        for where, start in (("before", self.address - CARD_GUARD), ("after", self.address + self.nbytes)):
            if self._read(start, CARD_GUARD) != self._canary:
                return where
        return None

    def close(self) -> None:
        self._cu("cuMemFree_v2", self._base)


class Launch:
    """One kernel launch with everything fixed."""

    def __init__(self, device, module, facts: dict, buffers: dict):
        self._cu = device.cu
        self.function = device.cu.handle("cuModuleGetFunction", module, facts["symbol"].encode())
        if facts["shared"]:  # without this, static and dynamic memory together end at 48 KiB
            device.cu("cuFuncSetAttribute", self.function, ctypes.c_int(_DYNAMIC_SHARED), ctypes.c_int(facts["shared"]))
        self._values = [ctypes.c_int32(a["value"]) if isinstance(a, dict) else POINTER(buffers[a].address) for a in facts["args"]]
        self._packed = (HANDLE * max(1, len(self._values)))(*[ctypes.addressof(v) for v in self._values])
        sizes = [ctypes.c_uint(v) for v in [*facts["grid"], *facts["block"], facts["shared"]]]
        self._arguments = (self.function, *sizes, device.stream, self._packed, HANDLE())

    def __call__(self) -> None:
        self._cu("cuLaunchKernel", *self._arguments)


class CardKernel:
    """One candidate on buffers of its own. `run` and `prepare` only enqueue; `CardDevice.finish` waits."""

    def __init__(self, device, candidate: dict, code: bytes):
        self.device = device
        self.buffers = {name: CardBuffer(device.cu, facts) for name, facts in candidate["buffers"].items()}
        self.module = device.cu.handle("cuModuleLoadData", code)
        self._graphs = {}
        self._launches = [Launch(device, self.module, facts, self.buffers) for facts in candidate["launches"]]
        self._first = [Launch(device, self.module, facts, self.buffers) for facts in candidate["prepare_launches"]]

    def prepare(self) -> None:
        for launch in self._first:
            launch()

    def run(self) -> None:
        for launch in self._launches:
            launch()

    def graph(self, calls: int):
        """An executable graph of that many calls in order, None where the driver cannot record one."""
        if calls not in self._graphs:
            self._graphs[calls] = self._record(calls)
        return self._graphs[calls]

    def _record(self, calls: int):
        cu, stream, graph, ready = self.device.cu, self.device.stream, HANDLE(), HANDLE()
        try:
            cu("cuStreamBeginCapture_v2", stream, ctypes.c_int(_RELAXED))
            try:
                for _ in range(calls):
                    self.run()
            finally:
                cu("cuStreamEndCapture", stream, ctypes.byref(graph))
            cu("cuGraphInstantiateWithFlags", ctypes.byref(ready), graph, ctypes.c_uint64(0))
            cu("cuGraphDestroy", graph)
            cu("cuGraphLaunch", ready, stream)  # the first launch uploads it
            self.device.finish()
        except (Trouble, AttributeError):
            return None
        return ready

    def close(self) -> None:
        for graph in self._graphs.values():
            if graph is not None:
                self.device.cu("cuGraphExecDestroy", graph)
        for buffer in self.buffers.values():
            buffer.close()
        self.device.cu("cuModuleUnload", self.module)


class CardDevice:
    """One CUDA card in its primary context (the one that torch uses, too). `ordinal` is the driver's number of it."""

    def __init__(self, target: dict, ordinal: int = 0, library: str = "libcuda.so.1"):
        self.target, self.cu = target, Driver(library)
        self.cu("cuInit", ctypes.c_uint(0))
        self.card = self.cu.number("cuDeviceGet", ctypes.c_int(ordinal))
        major, minor = (self.cu.number("cuDeviceGetAttribute", ctypes.c_int(which), self.card) for which in (_COMPUTE_MAJOR, _COMPUTE_MINOR))
        self.compute = "sm_%d%d" % (major, minor)
        if not _runs(target["isa"], major, minor):
            raise Trouble("device", "this wave is for %s and this card is %s (%s)" % (target["isa"], self.compute, self.name()))
        context = self.cu.handle("cuDevicePrimaryCtxRetain", self.card)
        self.cu("cuCtxSetCurrent", context)
        # A stream that waits for the default one: copies and fills go there, and return before the card is done with them.
        self.stream = self.cu.handle("cuStreamCreate", ctypes.c_uint(0))
        self._begin, self._end = (self.cu.handle("cuEventCreate", ctypes.c_uint(0)) for _ in range(2))
        self.l2 = self.cu.number("cuDeviceGetAttribute", ctypes.c_int(_L2), self.card)
        self._junk = None
        self._monitor = Monitor(self.bus())

    def bus(self) -> bytes:
        """The card's place on the PCI bus: NVML numbers cards in its own order."""
        text = ctypes.create_string_buffer(32)
        self.cu("cuDeviceGetPCIBusId", text, ctypes.c_int(32), self.card)
        return text.value

    def name(self) -> str:
        text = ctypes.create_string_buffer(256)
        self.cu("cuDeviceGetName", text, ctypes.c_int(256), self.card)
        return text.value.decode()

    def facts(self) -> dict:
        """What the result file says of this card."""
        memory = ctypes.c_size_t()
        self.cu("cuDeviceTotalMem_v2", ctypes.byref(memory), self.card)
        attribute = lambda which: self.cu.number("cuDeviceGetAttribute", ctypes.c_int(which), self.card)  # noqa: E731
        version = self.cu.number("cuDriverGetVersion")
        return {"family": "cuda", "card": self.name(), "isa": self.compute, "sms": attribute(_SMS), "l2": self.l2, "memory": memory.value,
                "boost_mhz": attribute(_CLOCK) // 1000, "cuda": "%d.%d" % (version // 1000, version % 1000 // 10), "driver": self._monitor.driver(),
                "kernel": platform.release(), "python": sys.version.split()[0], "threads": 1}

    def state(self) -> dict:
        """Clock, temperature and power now, as far as the driver says."""
        return self._monitor.state()

    def open(self, candidate: dict, code: bytes) -> CardKernel:
        return CardKernel(self, candidate, code)

    def finish(self) -> None:
        """Wait for everything that was enqueued, copies and fills included; errors of kernels show here."""
        self.cu("cuCtxSynchronize")

    def flush(self) -> None:
        """Enqueue writes of twice the second-level cache, so that nothing of a kernel's data is left in it."""
        size = max(2 * self.l2, 64 << 20)
        if self._junk is None:
            self._junk = POINTER()
            self.cu("cuMemAlloc_v2", ctypes.byref(self._junk), ctypes.c_size_t(size))
        self.cu("cuMemsetD8Async", self._junk, ctypes.c_ubyte(1), ctypes.c_size_t(size), self.stream)

    def take(self, call, calls: int, before=None) -> float:
        """Seconds per call between two events of the card. `call` is a CardKernel's `run`; several calls run as one graph, so that
        launching them costs the host's time and not the card's."""
        graph = call.__self__.graph(calls) if calls > 1 else None
        if before:
            before()
        self.cu("cuEventRecord", self._begin, self.stream)
        if graph is not None:
            self.cu("cuGraphLaunch", graph, self.stream)
        else:
            for _ in range(calls):
                call()
        self.cu("cuEventRecord", self._end, self.stream)
        self.cu("cuEventSynchronize", self._end)
        elapsed = ctypes.c_float()
        self.cu("cuEventElapsedTime", ctypes.byref(elapsed), self._begin, self._end)
        return elapsed.value * 1e-3 / calls


def _runs(isa: str, major: int, minor: int) -> bool:
    """Whether machine code for `isa` (sm_90, sm_90a) runs on a card of that compute capability."""
    digits = isa[3:].rstrip("af")
    made = (int(digits[:-1]), int(digits[-1]))
    return made == (major, minor) if isa.endswith("a") else made[0] == major and made[1] <= minor


class Monitor:
    """The driver's NVML, where there is one: clocks, temperature, power, the driver's version."""

    def __init__(self, bus: bytes):
        try:
            self._c = ctypes.CDLL("libnvidia-ml.so.1")
            if self._c.nvmlInit_v2():
                raise OSError
            self._card = HANDLE()
            if self._c.nvmlDeviceGetHandleByPciBusId_v2(bus, ctypes.byref(self._card)):
                raise OSError
        except (OSError, AttributeError):
            self._c = None

    def _number(self, function: str, *arguments):
        value = ctypes.c_uint()
        if self._c is None or getattr(self._c, function)(self._card, *arguments, ctypes.byref(value)):
            return None
        return value.value

    def driver(self):
        """Version of the driver, None where NVML does not say."""
        text = ctypes.create_string_buffer(96)
        if self._c is None or self._c.nvmlSystemGetDriverVersion(text, ctypes.c_uint(96)):
            return None
        return text.value.decode()

    def state(self) -> dict:
        power = self._number("nvmlDeviceGetPowerUsage")
        return {"clock_mhz": self._number("nvmlDeviceGetClockInfo", ctypes.c_int(1)), "celsius": self._number("nvmlDeviceGetTemperature", ctypes.c_int(0)),
                "watts": None if power is None else round(power / 1000)}
