"""`convgen doctor`: is this installation complete, what machine is it, does a kernel run?"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys

from .. import __version__, paths
from ..errors import Error
from .output import common, quantity, show, table

# What each distribution is for; pins are read from the package's own metadata.
_NEEDED = {"numpy": "core", "apache-tvm-ffi": "core", "apache-tvm": "tune", "xgboost-cpu": "tune", "torch": "torch", "onnxruntime": "bench", "tornado": "device"}


def add(verbs) -> None:
    parser = common(verbs.add_parser("doctor", help="examine this installation and machine"), _doctor)
    parser.add_argument("--clear-cache", action="store_true", help="remove all compiled kernels first")


def _doctor(options) -> int:
    from .. import cache
    removed = cache.clear() if options.clear_cache else None
    entries, taken = cache.size()
    findings = [_python(), *(_distribution(*row) for row in _NEEDED.items()), _compiler(), _target(), _cuda()]
    findings += [("cache", "ok", f"{paths.cache_dir()}: {entries} kernels, {quantity(taken, 'B')}" + (f", {removed} removed" if removed is not None else ""))]
    findings += [("records", "ok", f"written to {paths.write_root()}")]
    findings += [_kernel()] if all(status == "ok" for name, status, _ in findings if name in ("target", "C compiler", "apache-tvm", "apache-tvm-ffi")) else []
    show(options, [dict(zip(("name", "status", "detail"), row)) for row in findings], table(findings))
    return 1 if any(status == "WRONG" for _, status, _ in findings) else 0


def _python():
    return "python", "ok", f"{platform.python_version()} at {sys.prefix}, convgen {__version__}"


def _distribution(name: str, use: str):
    """Installed version of a distribution against the pin that convgen's metadata states for it."""
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        missing = f"not installed: pip install {'convgen' if use == 'core' else f'convgen[{use}]'}"
        return name, "WRONG" if use == "core" else "absent", missing
    wanted = _pin(name, use)
    if wanted and version.partition("+")[0] != wanted:
        return name, "WRONG", f"{version}, but convgen[{use}] was tested with {wanted}: pip install '{name}=={wanted}'"
    return name, "ok", version


def _pin(name: str, use: str) -> str | None:
    """The exact version that an extra asks for, or None for a range, for a core package or for an uninstalled checkout."""
    try:
        requirements = importlib.metadata.requires("convgen") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for requirement in requirements:
        text, _, marker = requirement.partition(";")
        if text.replace(" ", "").startswith(f"{name}==") and f"'{use}'" in marker.replace('"', "'"):
            return text.partition("==")[2].strip()
    return None


def _compiler():
    command = shutil.which(os.environ.get("CC", "gcc")) or shutil.which("cc")
    if command:
        return "C compiler", "ok", command
    return "C compiler", "absent", "none found: compile and tune need gcc, serving does not"


def _target():
    from ..targets import machine, resolve
    try:
        target = resolve("native")
    except Error as error:
        return "target", "WRONG", str(error)
    caches = ", ".join(f"{name.upper()} {quantity(getattr(target, name), 'B')}" for name in ("l1", "l2", "l3"))
    return "target", "ok", f"{target.fingerprint} ({machine().name}), {target.cores} cores, {target.threads} threads, {caches}"


def _cuda():
    from ..errors import TargetError
    from ..runtime import cuda
    from ..runtime.variants import release
    try:
        driver = cuda.driver()
    except TargetError as error:
        return "CUDA", "absent", str(error)
    return "CUDA", "ok", f"driver for CUDA {release(driver.version)}, {', '.join(map(str, driver.devices))}"


def _kernel():
    """Compile one small kernel and compare it with the oracle."""
    import numpy as np

    from .. import api
    try:
        w = api.operator("conv2d")(N=1, C=3, O=17, H=9, W=7, kernel=3, padding=1, bias=True)
        tensors = w.sample(seed=0)
        result = np.asarray(api.compile(w)(**tensors))
        error = float(np.abs(result - np.asarray(w.reference(**tensors))).max())
    except Exception as failure:  # whatever it is, it is the finding
        return "kernel", "WRONG", f"{type(failure).__name__}: {' '.join(str(failure).split())}"
    return "kernel", "ok" if error < 1e-4 else "WRONG", f"{w.id} differs from the oracle by {error:.1e}"
