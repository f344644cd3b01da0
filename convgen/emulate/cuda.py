"""Kernels for NVIDIA GPUs on the processor: the very source that nvcc gets, compiled by g++ with a harness in front, one process per call."""

from __future__ import annotations

import mmap
import os
import re
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from ..errors import WorkerError
from ..runtime.sizes import evaluate
from ..tune.kernel import Buffer

TIME = 60.0  # seconds that one call may take
_HARNESS = Path(__file__).with_name("cuda_harness.hpp")
_WAITS = re.compile(r"__sync|__shfl|__ballot|__any|__all")
SANITIZERS = {"address": ["-fsanitize=address", "-fno-omit-frame-pointer"], "thread": ["-fsanitize=thread"]}


def compiler() -> str | None:
    """Path of the C++ compiler, None where there is none."""
    return shutil.which("g++")


def translate(source: str) -> str:
    """The kernels of a CUDA file as C++ behind the harness, and a main function that launches them by name."""
    text = re.sub(r"^\s*#include\s*<(cuda|mma|nv|cooperative)[^>]*>.*$", "", source, flags=re.M)
    arrays = iter(range(10000))
    def shared(m):
        kind, name, size = m["type"], m["name"], m["size"]
        if m["extern"]:
            return f"EMULATED_DYNAMIC({kind}, {name});"
        slot = next(arrays) % 63
        return f"{kind} (&{name}){size} = *({kind} (*){size})emulated::shared_array({slot}, sizeof({kind}{size}));"
    text = re.sub(r"(?P<extern>extern\s+)?__shared__\s+(?:alignas\(\d+\)\s+|__align__\(\d+\)\s+)?(?P<type>[\w:]+(?:\s+(?:int|char|short|long))*)\s+(?P<name>\w+)\s*(?P<size>(?:\[[^\]]*\])+)\s*;", shared, text)
    bodies = dict(re.findall(r'extern "C" __global__ void (?:__launch_bounds__\([^)]*\) )?(\w+)\([^)]*\) \{\n(.*?)^\}', text, flags=re.M | re.S))
    table = ", ".join(f'{{"{name}", emulated::call<{name}>, {"true" if _WAITS.search(body) else "false"}}}' for name, body in bodies.items())
    return f'#include "cuda_harness.hpp"\n{text}\n#undef min\n#undef max\nstatic const emulated::Kernel kernels[] = {{{table}}};\nint main() {{ return emulated::serve(kernels, {len(bodies)}); }}\n'


def build(source: Path, target: Path, arch: str = "sm_90", sanitizer: str | None = None) -> Path:
    """Compile the CUDA file `source` to the program `target`. Raises WorkerError: compile_error where g++ is missing or refuses."""
    found = compiler()
    if found is None:
        raise WorkerError("compile_error", "emulating CUDA kernels needs g++ (GCC 12 or newer)")
    cpp = target.with_suffix(".cpp")
    cpp.write_text(translate(Path(source).read_text()))
    flags = SANITIZERS[sanitizer] if sanitizer else ["-ftrivial-auto-var-init=pattern"]
    flags = [*flags, "-fsanitize=alignment,bounds", "-fsanitize-undefined-trap-on-error"]  # vectors at odd places, registers that do not exist
    # contracted as nvcc does, so that what must be rounded at once is seen to be; aliasing as nvcc's vector accesses need it
    command = [found, "-std=c++20", "-O1", "-march=native", "-ffp-contract=fast", "-fno-strict-aliasing", "-U_FORTIFY_SOURCE", "-w", f"-D__CUDA_ARCH__={arch.removeprefix('sm_')}0", *flags,
               f"-I{_HARNESS.parent}", "-o", str(target), str(cpp)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or [done.stderr.strip()]
        raise WorkerError("compile_error", f"g++ refuses the emulated kernel: {lines[0][:300]}")
    return target


def opener(entry: dict, directory, target: dict, sanitizer: str | None = None):
    """See `convgen.emulate.opener`."""
    source = Path(directory, entry["source"])
    program = build(source, source.with_suffix(""), target["isa"], sanitizer)
    return lambda dims: EmulatedKernel(program, entry, dims)


class SharedBuffer(Buffer):
    """A Buffer whose memory, canaries included, is a file that the emulating process maps."""

    def __init__(self, shape, dtype: str, folder: str):
        self._folder = folder
        super().__init__(shape, dtype)

    def _allocate(self, nbytes: int) -> np.ndarray:
        handle, self.path = tempfile.mkstemp(dir=self._folder)
        self.mapped = max(nbytes, mmap.PAGESIZE)
        os.ftruncate(handle, self.mapped)
        self._map = mmap.mmap(handle, self.mapped)
        os.close(handle)
        return np.frombuffer(self._map, np.uint8)

    @property
    def offset(self) -> int:
        """Where the data begins in the file."""
        return self.bytes.ctypes.data - self._memory.ctypes.data


class EmulatedKernel:
    """An entry's launches as a kernel that `convgen.tune.verify` judges. Every call takes its threads and blocks in another order.

    `program`: made by `build` from the entry's source. A call that does not end raises WorkerError run_timeout; one that dies, crash; one whose threads wait for
    each other in vain or that writes beside its shared memory, wrong.
    """

    def __init__(self, program: Path, entry: dict, dims: dict, folder: str | None = None):
        self.program, self.entry, self.dims = program, entry, dims
        self._scratch = tempfile.TemporaryDirectory(dir=folder or ("/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
        self._seed = -1

    def shape(self, argument: dict) -> tuple:
        """Physical shape of an argument or temporary at the workload's dims."""
        return tuple(int(evaluate(tree, self.dims)) for tree in argument["shape"])

    def buffers(self, arguments: list[dict], shared: dict | None = None) -> dict[str, Buffer]:
        """A guarded buffer per argument, by name; those in `shared` are taken over."""
        shared = shared or {}
        return {a["name"]: shared.get(a["name"]) or SharedBuffer(self.shape(a), a["dtype"], self._scratch.name) for a in arguments}

    def caller(self, buffers: dict[str, Buffer]):
        """A function without arguments that runs the kernel once on these buffers."""
        return self._bind(self.entry, buffers)

    def preparer(self, buffers: dict[str, Buffer]):
        """The same for the prepare launches; None if the kernel has none."""
        return self._bind(self.entry["prepare"], buffers) if self.entry["prepare"] else None

    def _bind(self, part, buffers):
        def call():
            self._seed += 1
            own = {t["name"]: SharedBuffer(self.shape(t), t["dtype"], self._scratch.name) for t in part["temporaries"]}
            for b in own.values():
                b.bytes[:] = 0xFF if self._seed % 2 == 0 else 0x3C
            self._run(part["launches"], buffers | own)
            for name, b in own.items():
                where = b.damaged()
                os.unlink(b.path)
                if where:
                    raise WorkerError("wrong", f"memory {where} the temporary {name} was overwritten")
        return call

    def _run(self, launches, buffers):
        names = list(buffers)
        lines = [f"{self._seed} {len(names)}", *(f"{b.path} {b.offset} {b.nbytes} {b.mapped}" for b in buffers.values()), str(len(launches))]
        for launch in launches:
            grid, block = ([int(evaluate(n, self.dims)) for n in launch[key]] for key in ("grid", "block"))
            given = [f"n {evaluate(a['size'], self.dims)}" if isinstance(a, dict) else f"b {names.index(a)}" for a in launch["args"]]
            lines.append(" ".join(map(str, [launch["symbol"], *grid, *block, launch["shared"], len(given), *given])))
        try:
            done = subprocess.run([str(self.program)], input="\n".join(lines), capture_output=True, text=True, timeout=TIME, errors="replace")
        except subprocess.TimeoutExpired:
            raise WorkerError("run_timeout", f"the emulated kernel did not end within {TIME:g} s") from None
        if done.returncode == 3:
            kind, _, message = done.stderr.strip().splitlines()[-1].partition(": ")
            raise WorkerError(kind, message)
        if done.returncode:
            raise WorkerError("crash", f"the emulated kernel {_end(done.returncode)}: {' '.join(done.stderr.split())[:600]}")


def _end(code: int) -> str:
    if code == -signal.SIGILL:
        return "stopped at an element beside an array, or at a vector that is not aligned"
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
