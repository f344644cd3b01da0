"""ARM (aarch64): presets, and what a machine is from the fields that Linux prints in /proc/cpuinfo.

Sources: implementer and part numbers of Linux `arch/arm64/include/asm/cputype.h`, names of hardware capabilities of its `Documentation/arch/arm64/elf_hwcaps.rst`;
caches of the processors' Technical Reference Manuals (Arm 100095 Cortex-A72, 100798 Cortex-A76, 100616 Neoverse N1, 101427 Neoverse V1); processor names of LLVM 22.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import TargetError
from .detect import Machine
from .target import Target

BASE = ("fp", "asimd")  # what every aarch64 Linux machine has, in cpuinfo's names
# cpuinfo flag → LLVM feature, for instructions that LLVM emits from plain arithmetic when they are allowed, or that our intrinsics use.
EXTRAS = {"asimdhp": "fullfp16", "asimddp": "dotprod", "fcma": "complxnum", "i8mm": "i8mm", "bf16": "bf16"}
_UNUSED = "-sve"  # registers of unknown length; LLVM would use them by itself
_V82 = frozenset({"asimdhp", "asimddp"})
_V84 = _V82 | {"fcma", "i8mm", "bf16"}


@dataclass(frozen=True)
class Core:
    """One design: its name in fingerprints and for LLVM, which EXTRAS that name implies, and whether it implies SVE."""

    name: str
    implies: frozenset = frozenset()
    sve: bool = False


GENERIC = Core("generic")
CORES = {  # (implementer, part)
    (0x41, 0xD03): Core("cortex-a53"), (0x41, 0xD04): Core("cortex-a35"), (0x41, 0xD07): Core("cortex-a57"), (0x41, 0xD08): Core("cortex-a72"), (0x41, 0xD09): Core("cortex-a73"),
    (0x41, 0xD05): Core("cortex-a55", _V82), (0x41, 0xD0A): Core("cortex-a75", _V82), (0x41, 0xD0B): Core("cortex-a76", _V82), (0x41, 0xD0C): Core("neoverse-n1", _V82),
    (0x41, 0xD0D): Core("cortex-a77", _V82), (0x41, 0xD41): Core("cortex-a78", _V82), (0x41, 0xD44): Core("cortex-x1", _V82),
    (0x41, 0xD40): Core("neoverse-v1", _V84, True), (0x41, 0xD49): Core("neoverse-n2", _V84, True), (0x41, 0xD4F): Core("neoverse-v2", _V84, True),
}


def _isa(features) -> str:
    return "neon-i8mm" if "i8mm" in features else "neon-dotprod" if "asimddp" in features else "neon"


def _attrs(core: Core, present: frozenset) -> tuple:
    """LLVM features to switch off and on, so that the processor's name and what is there agree."""
    off = [f"-{feature}" for flag, feature in EXTRAS.items() if flag in core.implies - present]
    on = [f"+{feature}" for flag, feature in EXTRAS.items() if flag in present - core.implies]
    return (*off, *on, *([_UNUSED] if core.sve else []))


def _target(name: str, core: Core, present: frozenset, **facts) -> Target:
    features = (*BASE, *(flag for flag in EXTRAS if flag in present))
    return Target(name=name, family="arm", isa=_isa(features), mcpu=core.name, attrs=_attrs(core, present), features=features,
                  vector_registers=32, vector_bits=128, microarchitecture=core.name, **facts)


# Caches of the smallest common configuration; threads of a common board or small instance, because a preset describes a machine that is elsewhere.
_CACHES = {
    "cortex-a72": (32 << 10, 1 << 20, 1 << 20),  # Raspberry Pi 4: the second level is the last
    "cortex-a76": (64 << 10, 256 << 10, 2 << 20),
    "neoverse-n1": (64 << 10, 1 << 20, 32 << 20),
    "neoverse-v1": (64 << 10, 1 << 20, 32 << 20),
}
PRESETS = {core.name: _target(f"arm:{core.name}", core, core.implies, **dict(zip(("l1", "l2", "l3"), _CACHES[core.name])), cores=4, threads=4)
           for core in CORES.values() if core.name in _CACHES}


def native(here: Machine) -> Target:
    """The target of an aarch64 machine; on one with different cores, that of the first one that this process may use."""
    missing = [flag for flag in BASE if flag not in here.flags]
    if missing:
        raise TargetError(f"target 'native' needs aarch64 with NEON, but this processor ({here.name}) lacks {', '.join(missing)}")
    core = CORES.get((here.family, here.model), GENERIC)
    return _target("native", core, frozenset(EXTRAS) & here.flags, l1=here.l1, l2=here.l2, l3=here.l3, cores=here.cores, threads=here.threads)
