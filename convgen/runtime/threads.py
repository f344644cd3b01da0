"""Which OpenMP library the kernels run on, and how many threads they may use.

Kernels share the pool that torch runs on: two pools on the same cores cost up to twice the time. Without torch it is the
system's libgomp. The number of threads is read at every call, so torch.set_num_threads and OMP_NUM_THREADS count at once.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import warnings
import weakref

_OPENMP = re.compile(r"/lib(gomp|iomp5|omp)[-.0-9a-z]*\.so[.0-9]*$")
_SYSTEM = "libgomp.so.1"
_lock = threading.Lock()
_shims: weakref.WeakSet = weakref.WeakSet()
_limit = 0


def _mapped() -> list[str]:
    with open("/proc/self/maps") as file:
        return list(dict.fromkeys(line.split(maxsplit=5)[5].rstrip("\n") for line in file if ".so" in line))


def find_pool() -> tuple[str, str | None]:
    """(OpenMP library, libtorch_cpu or None). Torch's own OpenMP when torch is imported, else the system's libgomp."""
    if "torch" in sys.modules:
        mapped = _mapped()
        home = os.path.dirname(sys.modules["torch"].__file__)
        found = [path for path in mapped if _OPENMP.search(path)]
        own = [path for path in found if path.startswith((home + "/", home + ".libs/"))]
        torch = next((path for path in mapped if path.endswith("/libtorch_cpu.so")), None)
        if found:
            return (own or found)[0], torch
    return _SYSTEM, None  # by its name alone: looking for its path would start ldconfig and gcc


def attach(shim) -> None:
    """Put a shim on the pool of this process. Called again once torch has been imported."""
    with _lock:
        with_torch = "torch" in sys.modules
        if getattr(shim, "on_torch_pool", None) is with_torch:
            return
        if not shim.use_pool(*find_pool()) and not shim.use_pool(_SYSTEM, None):
            shim.use_pool(None, None)
            warnings.warn("no OpenMP library was found; convgen kernels run on one thread (install libgomp1)", stacklevel=3)
        shim.on_torch_pool = with_torch
        shim.limit_threads(limit())
        _shims.add(shim)


def limit() -> int:
    """The cap in force, 0 for none: `set_num_threads`, else $CONVGEN_NUM_THREADS."""
    return _limit or int(os.environ.get("CONVGEN_NUM_THREADS") or 0)


def set_num_threads(most: int | None) -> None:
    """Cap the threads of every convgen kernel in this process; None lifts the cap.

    The cap never raises the number above torch.get_num_threads() (or OMP_NUM_THREADS without torch).
    """
    global _limit
    if most is not None and (not isinstance(most, int) or most < 1):
        from convgen.errors import ArgumentError

        raise ArgumentError(f"set_num_threads: expected a positive int or None, got {most!r}")
    with _lock:
        _limit = most or 0
        for shim in list(_shims):
            shim.limit_threads(limit())


def warn_after_fork() -> None:
    warnings.warn(
        "this process was forked from one with running threads, so convgen kernels use one thread here; "
        "load the library after the fork (or use the spawn start method) to use more", RuntimeWarning, stacklevel=4)
