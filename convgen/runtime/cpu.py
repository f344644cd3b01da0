"""What the CPU of this machine can run, as the kernel reports it. Needs no compiler and no `cpuid` call."""

from __future__ import annotations

import ctypes
import platform
from functools import lru_cache

_FAMILY = {"x86_64": "x86", "AMD64": "x86", "aarch64": "arm", "arm64": "arm"}


def family() -> str:
    """The target family of this machine: "x86", "arm", or the machine name when it is neither."""
    return _FAMILY.get(platform.machine(), platform.machine())


# Bits of the auxiliary vector's entries AT_HWCAP and AT_HWCAP2 on aarch64: Linux arch/arm64/include/uapi/asm/hwcap.h. Those that kernels can need.
_HWCAP = {16: {"fp": 0, "asimd": 1, "asimdhp": 10, "fcma": 14, "asimddp": 20}, 26: {"i8mm": 13, "bf16": 14}}


@lru_cache(maxsize=1)
def features() -> frozenset[str]:
    """Instruction set features by their /proc/cpuinfo names, for example "avx2", "fma", "avx512f", "asimd"."""
    if family() == "arm":  # of this process: in an emulation /proc describes the machine outside
        vector = ctypes.CDLL(None).getauxval
        vector.argtypes, vector.restype = [ctypes.c_ulong], ctypes.c_ulong
        return frozenset(name for entry, bits in _HWCAP.items() for name, bit in bits.items() if vector(entry) >> bit & 1)
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name.strip() == "flags":
                    return frozenset(value.split())
    except OSError:
        pass
    return frozenset()


def missing(required) -> list[str]:
    """Those of `required` that this CPU lacks, in the order given."""
    here = features()
    return [name for name in required if name not in here]
