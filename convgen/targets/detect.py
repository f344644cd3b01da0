"""What this machine is: processor, caches and the threads that a process may use, read from /proc and /sys.

Everything is read below one root folder, so that tests describe other machines with a few files.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

# Used where sysfs says nothing (some virtual machines): the smallest figures among the processors of the last ten years.
DEFAULT_CACHES = {"l1": 32 << 10, "l2": 256 << 10, "l3": 8 << 20}


@dataclass(frozen=True)
class Machine:
    """Facts about a machine: `flags` in cpuinfo's names, cache sizes in bytes (`l3` of one instance), threads usable here.

    Where Linux numbers processors by implementer and part (ARM), those are `family` and `model`.
    """

    architecture: str
    vendor: str
    family: int
    model: int
    name: str
    flags: frozenset
    l1: int
    l2: int
    l3: int
    cores: int
    threads: int


def machine(root: str | os.PathLike = "/", affinity: set[int] | None = None, architecture: str | None = None) -> Machine:
    """Describe the machine below `root`. `affinity` is the set of logical processors this process may run on."""
    root = Path(root)
    if affinity is None:
        affinity = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    info = _cpuinfo(root / "proc/cpuinfo", min(affinity))
    caches = _caches(root, min(affinity))
    return Machine(
        architecture=architecture or platform.machine(),
        vendor=info.get("vendor_id", info.get("CPU implementer", "unknown")),
        family=_int(info.get("cpu family", info.get("CPU implementer"))),
        model=_int(info.get("model", info.get("CPU part"))),
        name=info.get("model name") or _part(info) or "unknown processor",
        flags=frozenset(info.get("flags", info.get("Features", "")).split()),
        cores=_physical_cores(root, affinity),
        threads=usable_threads(root, affinity),
        **caches,
    )


def usable_threads(root: str | os.PathLike = "/", affinity: set[int] | None = None) -> int:
    """Logical processors in `affinity`, limited by the CPU quota of the enclosing control groups (at least 1)."""
    if affinity is None:
        affinity = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    quota = cpu_quota(root)
    return max(1, min(len(affinity), int(quota) if quota is not None else len(affinity)))


def cpu_quota(root: str | os.PathLike = "/") -> float | None:
    """Processors' worth of time that control groups (v2 or v1) grant this process, or None when nothing limits it."""
    root = Path(root)
    limits = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if hierarchy == "0" and not controllers:
            for mount in ("sys/fs/cgroup", "sys/fs/cgroup/unified"):
                limits += [_v2_limit(folder) for folder in _upwards(root / mount, path)]
        elif "cpu" in controllers.split(","):
            for mount in ("sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct"):
                limits += [_v1_limit(folder) for folder in _upwards(root / mount, path)]
    return min((limit for limit in limits if limit is not None), default=None)


def _upwards(mount: Path, path: str) -> list[Path]:
    """`mount`/`path` and its parents up to `mount`: a limit on any of them holds. In a container the path may not exist."""
    folder = mount / path.strip("/")
    return [folder, *(parent for parent in folder.parents if parent == mount or mount in parent.parents)]


def _v2_limit(folder: Path) -> float | None:
    fields = _read(folder / "cpu.max").split()
    if not fields or fields[0] == "max":
        return None
    return _int(fields[0]) / (_int(fields[1]) if len(fields) > 1 else 100_000)


def _v1_limit(folder: Path) -> float | None:
    quota, period = _int(_read(folder / "cpu.cfs_quota_us"), -1), _int(_read(folder / "cpu.cfs_period_us"))
    return quota / period if quota > 0 and period > 0 else None


def _cpuinfo(path: Path, cpu: int) -> dict[str, str]:
    """Fields of one processor, of the first one where that is not listed."""
    listed = [dict(map(str.strip, line.split(":", 1)) for line in block.splitlines() if ":" in line) for block in _read(path).split("\n\n")]
    return next((fields for fields in listed if fields.get("processor") == str(cpu)), listed[0])


def _part(info: dict[str, str]) -> str | None:
    return f"implementer {info['CPU implementer']} part {info['CPU part']}" if {"CPU implementer", "CPU part"} <= set(info) else None


def _caches(root: Path, cpu: int) -> dict[str, int]:
    caches = dict(DEFAULT_CACHES)
    for folder in (root / f"sys/devices/system/cpu/cpu{cpu}/cache").glob("index*"):
        level, kind, size = (_read(folder / name).strip() for name in ("level", "type", "size"))
        if kind != "Instruction" and f"l{level}" in caches and _size(size):
            caches[f"l{level}"] = _size(size)
    return caches


def _size(text: str) -> int:
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    return _int(text[:-1]) * units[text[-1]] if text[-1:] in units else _int(text)


def _physical_cores(root: Path, affinity: set[int]) -> int:
    places = set()
    for cpu in affinity:
        folder = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
        place = (_read(folder / "physical_package_id").strip(), _read(folder / "core_id").strip())
        places.add(place if all(place) else cpu)
    return max(1, len(places))


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""


def _int(text: str | None, default: int = 0) -> int:
    try:
        return int(text, 0)
    except (TypeError, ValueError):
        return default
