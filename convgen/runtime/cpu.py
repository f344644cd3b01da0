"""What the CPU of this machine can run, as the kernel reports it. Needs no compiler and no `cpuid` call."""

from __future__ import annotations

import platform
from functools import lru_cache

_FAMILY = {"x86_64": "x86", "AMD64": "x86", "aarch64": "arm", "arm64": "arm"}


def family() -> str:
    """The target family of this machine: "x86", "arm", or the machine name when it is neither."""
    return _FAMILY.get(platform.machine(), platform.machine())


@lru_cache(maxsize=1)
def features() -> frozenset[str]:
    """Instruction set features by their /proc/cpuinfo names, for example "avx2", "fma", "avx512f", "asimd"."""
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name.strip() in ("flags", "Features"):
                    return frozenset(value.split())
    except OSError:
        pass
    return frozenset()


def missing(required) -> list[str]:
    """Those of `required` that this CPU lacks, in the order given."""
    here = features()
    return [name for name in required if name not in here]
