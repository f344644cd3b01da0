"""Loading a library: everything is checked before anything in it is executed."""

from __future__ import annotations

import hashlib
import re
import sys
import threading
from collections import Counter
from typing import Any

from convgen.errors import ArgumentError, Error, LibraryError
from convgen.runtime import fallback, native, selftest, threads
from convgen.runtime import manifest as manifests
from convgen.runtime.bound import Bound
from convgen.runtime.calls import OperatorCall
from convgen.runtime.explain import Explanation, explain
from convgen.runtime.serve import device_of, views
from convgen.runtime.servers import Servers
from convgen.runtime.signature import Operator

_loaded: dict[str, "Library"] = {}
_shims: dict[str, native.Shim] = {}
_lock = threading.RLock()


class Library:
    """A loaded library. Operators are attributes: `lib.conv2d(x, weight, padding=1)`. Made by `load`.

    `name`, `path`, `sha256` (of the manifest, so of everything), `manifest` (its content), `variant` (target in use for CPU tensors, or
    for those of the first CUDA device where nothing serves the CPU). CUDA variants are taken up, device by device, when the first
    tensor from there arrives; the first call of a kernel on a device loads its code. A library stays loaded until the process ends.
    """

    def __init__(self, manifest: manifests.Manifest, name: str, on_missing: str, convert: bool = False):
        data = manifest.data
        self.name, self.path, self.sha256, self.manifest = name, manifest.path, manifest.sha256, data
        self._counts: Counter = Counter()
        self._missing = fallback.Missing(on_missing, self._counts)
        # All bytes are verified first; then those same bytes are loaded.
        content = {file: manifests.verified_bytes(manifest, file) for file in sorted(data["files"])}
        self._shim = _shim(content[manifests.shim_of(manifest)])
        self._servers = Servers(name, manifest.path, data, content, self._shim, self._counts, convert)
        threads.attach(self._shim)
        self._calls = {n: OperatorCall(self._servers, n, self._missing) for n in self._servers.operators}

    @property
    def variant(self) -> str:
        return self._servers.first.choice.target

    @property
    def on_missing(self) -> str:
        return self._missing.mode

    def __getattr__(self, name: str) -> OperatorCall:
        calls = self.__dict__.get("_calls", {})
        if name in calls:
            return calls[name]
        raise AttributeError(f"the library {self.__dict__.get('name')!r} has no operator {name!r}; it has {', '.join(calls)}")

    def __dir__(self):
        return [*super().__dir__(), *self._calls]

    def __repr__(self) -> str:
        kernels = len(self._servers.first.choice.variant["kernels"])
        return f"<convgen library {self.name!r}: {', '.join(self._calls)}; {kernels} kernels for {self.variant}>"

    def _operator(self, name: str) -> Operator:
        if name not in self._servers.operators:
            raise ArgumentError(f"the library {self.name!r} has no operator {name!r}; it has {', '.join(self._servers.operators)}")
        return self._servers.operators[name]

    def bind(self, operator: str, **arguments) -> Bound:
        """The operator with these parameters and attributes; see `Bound`. It serves the device that the parameters are on.

        Raises ArgumentError, or NoKernel when no kernel of the library can ever serve them.
        """
        description = self._operator(operator)
        tensors, attributes = description.arguments((), arguments)
        return Bound(self._servers, description, self._missing, tensors, attributes)

    def explain(self, operator: str, *args, **kwargs) -> Explanation:
        """Which kernel serves a call with these arguments, and why. Raises what the call would raise; runs nothing."""
        tensors, attributes = self._operator(operator).arguments(args, kwargs)
        seen = views(operator, tensors)
        return explain(self._servers.of(device_of(operator, seen), operator), operator, seen, attributes)

    def workloads(self) -> list[str]:
        """Ids of the workloads that the variants in use hold."""
        return list(dict.fromkeys(entry["id"] for server in self._servers.made() for entry in server.choice.variant["kernels"]))

    def stats(self) -> dict:
        """Counts since loading: "calls" per workload id, "copies" per operator.tensor, "missing" per operator, and
        "workspace_bytes", the scratch memory that the threads of this process hold."""
        calls: Counter = Counter()
        for server in self._servers.made():
            runs = server.builder.runs()
            for entry in server.choice.variant["kernels"]:
                calls[entry["id"]] += runs.get(entry["symbol"], 0)
        counted: dict[str, dict] = {"copies": {}, "missing": {}}
        for what, number in self._counts.items():
            kind, _, where = what.partition(" ")
            counted[kind][where.removeprefix("of ")] = number
        return {"calls": dict(calls), **counted, "workspace_bytes": self._shim.workspace_bytes}

    def selftest(self) -> list[selftest.Finding]:
        """Runs every kernel on guarded buffers, on the CPU and on every CUDA device that the library serves.

        Raises LibraryError that names the first sick kernel; returns all findings."""
        findings = []
        for server, kernel in self._kernels():
            try:
                problem = selftest.check(server, kernel)
            except Error as error:
                problem = str(error)
            finally:
                self._shim.limit_threads(threads.limit())
            findings.append(selftest.Finding(kernel.entry["id"], kernel.entry["symbol"], problem, server.device))
        sick = [f for f in findings if f.problem]
        if sick:
            raise LibraryError(f"{self.path}: the kernel of {sick[0].kernel} is not healthy here{sick[0].place}: {sick[0].problem}"
                               + (f" (and {len(sick) - 1} more)" if len(sick) > 1 else ""))
        return findings

    def warmup(self) -> None:
        """Runs every kernel once, on the CPU and on every CUDA device that the library serves.

        The first real call then meets mapped or loaded code, running threads and scratch memory; CUDA calls can be captured."""
        for server, kernel in self._kernels():
            selftest.run_once(server, kernel)

    def _kernels(self):
        return [(server, kernel) for server in self._servers.usable() for operator in server.operators for kernel in server.table.all(operator)]

    def register(self) -> None:
        """Make `torch.ops.convgen_<name>.<operator>` (done by `load` when torch is already imported). Imports torch."""
        from convgen.runtime import torch_ops

        torch_ops.register(self)

    @property
    def operators(self) -> list[str]:
        """Names of the operators."""
        return list(self._calls)


def load(path, *, expect_sha256: str | None = None, on_missing: str = "error", name: str | None = None) -> Library:
    """Load the library at `path`.

    A library is code: load only what you trust. Its manifest, the size and sha256 of every file, this CPU's features and the
    version of tvm_ffi are checked before anything is executed, and the bytes that were checked are the bytes that run. Compute
    capability and driver are checked when a CUDA device is first used: at once if no variant serves the CPU.
    expect_sha256: refuse a library whose `sha256` is another one. on_missing: "error", or "torch" to compute calls without a
    kernel by the operator's PyTorch formulation. name: name to register under instead of the library's own.
    Loading the same content under the same name again gives the same object. Raises LibraryError.
    """
    manifest = manifests.read(path)
    if expect_sha256 is not None and expect_sha256.lower() != manifest.sha256:
        raise LibraryError(f"{manifest.path} has sha256 {manifest.sha256} and {expect_sha256} was expected")
    if name is not None and not re.fullmatch(r"[A-Za-z_]\w*", name):
        raise ArgumentError(f"load: name must be an identifier, got {name!r}")
    name = name or manifest.data["name"]
    check_versions(manifest)
    with _lock:
        known = _loaded.get(name)
        if known is not None:
            if known.sha256 != manifest.sha256:
                raise LibraryError(f"another library named {name!r} is loaded (from {known.path}); use load(path, name=...) to have both")
            if known.on_missing != on_missing:
                raise LibraryError(f"the library {name!r} is loaded with on_missing={known.on_missing!r}; "
                                   "use load(path, name=...) for another")
            _register(known)
            return known
        library = Library(manifest, name, on_missing)
        _register(library)
        _loaded[name] = library
        return library


def open_unregistered(path, *, expect_sha256: str | None = None, convert: bool = False) -> Library:
    """A library outside the table of names and without torch registration, for `Kernel` and for measuring."""
    manifest = manifests.read(path)
    if expect_sha256 is not None and expect_sha256.lower() != manifest.sha256:
        raise LibraryError(f"{manifest.path} has sha256 {manifest.sha256} and {expect_sha256} was expected")
    check_versions(manifest)
    return Library(manifest, manifest.data["name"], "error", convert)


def _shim(content: bytes) -> native.Shim:
    """The shim of these bytes; libraries of one convgen release share it, and with it the scratch memory of each thread."""
    digest = hashlib.sha256(content).hexdigest()
    with _lock:
        if digest not in _shims:
            _shims[digest] = native.Shim(manifests.pin(content, "convgen-shim"))
        return _shims[digest]


def _register(library: Library) -> None:
    if "torch" in sys.modules:
        library.register()


def check_versions(manifest: manifests.Manifest) -> None:
    """tvm_ffi must be of the same 0.X series (its ABI) and no older than the library asks for. Raises LibraryError."""
    import tvm_ffi

    here, asked = _version(tvm_ffi.__version__), _version(manifest.data["tvm_ffi_min"])
    if here[:2] != asked[:2] or here < asked:
        raise LibraryError(f"{manifest.path} needs apache-tvm-ffi {manifest.data['tvm_ffi_min']} or a later "
                           f"{asked[0]}.{asked[1]} release, and {tvm_ffi.__version__} is installed")


def _version(text: Any) -> tuple[int, ...]:
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", str(text))
    if not found:
        raise LibraryError(f"cannot read the version {text!r}")
    return tuple(int(part or 0) for part in found.groups())
