"""The servers of one library: one for CPU tensors, and one per CUDA device, made when a tensor from there arrives."""

from __future__ import annotations

import io
import threading
from collections import Counter
from typing import Mapping

from convgen.errors import LibraryError, NoKernel, TargetError
from convgen.runtime import arrays, cuda, native, variants
from convgen.runtime import manifest as manifests
from convgen.runtime.cuda_arrays import ordinal
from convgen.runtime.cuda_plans import CudaBuilder
from convgen.runtime.plans import Builder
from convgen.runtime.serve import Server
from convgen.runtime.signature import Operator


class Servers:
    """Which server a call belongs to. A library serves CPU and CUDA tensors at the same time where it holds variants for both.

    content: verified bytes of the library's files. The driver is opened by the first CUDA tensor, or at once where no variant
    serves the CPU. Raises LibraryError when nothing in the library runs here.
    """

    def __init__(self, name: str, path: str, data: Mapping, content: Mapping[str, bytes], shim: native.Shim, counts: Counter, convert: bool):
        self.operators = {n: Operator(n, o["signatures"]) for n, o in data["operators"].items()}
        self._name, self._variants, self._shim, self._counts, self._convert = name, data["variants"], shim, counts, convert
        self._code = {v["file"]: content[v["file"]] for v in self._variants if variants.is_cuda(v)}  # loaded as devices need it
        self._lock = threading.RLock()
        self._made: dict[str, Server] = {}
        self._refused: dict[str, str] = {}
        self.has_cuda = bool(self._code)
        try:
            choice = variants.choose(self._variants, path)
        except LibraryError as error:
            self._refused[arrays.CPU] = str(error)
            if not self.has_cuda:
                raise
            self._find_device()
        else:
            self._made[arrays.CPU] = self._cpu(choice, content[choice.variant["file"]])

    @property
    def first(self) -> Server:
        """The server of CPU tensors, else that of the first device that the library serves."""
        return next(iter(self._made.values()))

    def made(self) -> list[Server]:
        """The servers in use so far."""
        return list(self._made.values())

    def usable(self) -> list[Server]:
        """A server for every device of this machine that the library serves; opens the driver if it holds CUDA variants."""
        if self.has_cuda:
            try:
                found = cuda.driver().devices
            except TargetError:
                found = ()
            for device in found:
                try:
                    self.of(f"cuda:{device.index}")
                except NoKernel:
                    pass
        return self.made()

    def refusals(self) -> list[str]:
        """Why CUDA variants of the library serve no device here, or not all; empty for a library without any. Call `usable` first."""
        reasons = [reason for device, reason in self._refused.items() if device != arrays.CPU]
        if self.has_cuda and not reasons and not any(device != arrays.CPU for device in self._made):
            try:
                cuda.driver()
            except TargetError as error:
                reasons = [str(error)]
        return reasons

    def of(self, device: str, operator: str = "convgen") -> Server:
        """The server for tensors on a device. Raises NoKernel in one sentence that names the operator."""
        server = self._made.get(device)
        if server is None:
            with self._lock:
                if device not in self._made and device not in self._refused:
                    self._make(device)
                server = self._made.get(device)
        if server is None:
            raise NoKernel(f"{operator}: the library {self._name!r} does not serve tensors on {device}: {self._refused[device]}")
        return server

    def _make(self, device: str) -> None:
        try:
            if not self.has_cuda:
                raise TargetError("it holds no variant for CUDA")
            self._made[device] = self._cuda(cuda.device(ordinal(device)))
        except TargetError as error:
            self._refused[device] = str(error)

    def _find_device(self) -> None:
        """The first device that may run something. Raises LibraryError with every reason."""
        try:
            found = [f"cuda:{device.index}" for device in cuda.driver().devices]
        except TargetError as error:
            raise LibraryError(f"{self._refused[arrays.CPU]}, and {error}") from None
        for device in found:
            self._make(device)
            if device in self._made:
                return
        raise LibraryError(f"{self._refused[arrays.CPU]}, and {'; '.join(self._refused[device] for device in found)}")

    def _cpu(self, choice: variants.Choice, content: bytes) -> Server:
        shared = native.open_library(manifests.pin(content, f"convgen-{self._name}-kernels"))
        self._shim.attach(shared)
        return Server(self.operators, choice, Builder(self._shim, shared), self._shim, self._counts, self._convert)

    def _cuda(self, device: cuda.Device) -> Server:
        choice = variants.choose_cuda(self._variants, device, device.driver.version)
        images = Images(self._code[choice.variant["file"]], choice.ptx)
        return Server(self.operators, choice, CudaBuilder(self._shim, device, images), self._shim, self._counts, self._convert, f"cuda:{device.index}")


class Images:
    """The code of a CUDA variant: an uncompressed zip with `<symbol>.cubin`, and `<symbol>.ptx` where the variant is the fallback."""

    def __init__(self, content: bytes, ptx: bool):
        import zipfile

        self._archive, self._suffix = zipfile.ZipFile(io.BytesIO(content)), "ptx" if ptx else "cubin"

    def __call__(self, symbol: str) -> bytes:
        try:
            code = self._archive.read(f"{symbol}.{self._suffix}")
        except KeyError:
            raise LibraryError(f"the library lacks the code {symbol}.{self._suffix}") from None
        return code + b"\0" if self._suffix == "ptx" else code
