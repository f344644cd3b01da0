"""What a server says of its machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

FUNCTION = "convgen.device.facts"  # the name under which servers offer `facts`, as JSON text
LIMIT = "convgen.device.limit"  # and a function that ends the session once it computed for so many more seconds, all threads together


def patience(seconds: float) -> float:
    """Seconds by the clock of a session that may compute for `seconds` on each thread: a busy machine, or one that was stopped for a while, does not hang."""
    return max(4 * seconds, 30.0)


def facts(root: str | os.PathLike = "/", architecture: str | None = None) -> dict:
    """This machine: name, architecture, processor flags in /proc/cpuinfo's names, threads of its kernels, versions, emulation."""
    architecture = architecture or platform.machine()
    try:
        lines = Path(root, "proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in reversed(lines))}
    versions = {}
    for name in ("apache-tvm", "apache-tvm-ffi", "convgen"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"name": platform.node(), "architecture": architecture, "flags": sorted({*fields.get("flags", "").split(), *fields.get("Features", "").split()}),
            "threads": int(os.environ.get("TVM_NUM_THREADS") or 0), "emulated": _emulated(architecture, fields), "versions": versions}


def _emulated(architecture: str, fields: dict) -> bool:
    """True where /proc/cpuinfo describes another kind of processor than the programs run on, as under user-mode emulation."""
    theirs = "x86" if "vendor_id" in fields else "arm" if "CPU implementer" in fields else None
    own = {"x86_64": "x86", "AMD64": "x86", "aarch64": "arm", "armv7l": "arm", "armv8l": "arm"}.get(architecture)
    return theirs is not None and own is not None and theirs != own


def unfit(machine: dict, target: dict, emulated: bool) -> str | None:
    """Why a machine with these facts cannot measure for a target, or None. `emulated`: an emulated processor will do."""
    family = {"x86_64": "x86", "AMD64": "x86", "aarch64": "arm"}.get(machine.get("architecture"), machine.get("architecture"))
    if target.get("family") in ("x86", "arm") and family != target["family"]:
        return f"its processor is {machine.get('architecture')}, the target {target['name']} is of family {target['family']}"
    if machine.get("emulated"):
        return None if emulated else "its processor is emulated, so its times mean nothing; --emulated measures all the same and saves nothing"
    missing = [flag for flag in target.get("features", ()) if flag not in machine.get("flags", ())]
    return f"it lacks {', '.join(missing)}, which {target['name']} may use" if missing else None
