"""x86 microarchitectures by vendor, family and model, with the LLVM processor each one is compiled for.

Sources: Linux `arch/x86/include/asm/intel-family.h` and `arch/x86/kernel/cpu/amd.c`; processor names of LLVM 22.
"""

from __future__ import annotations

from dataclasses import dataclass

# cpuinfo flag → LLVM feature, for instructions that LLVM emits from plain arithmetic when they are allowed. What needs an
# intrinsic (AES, carry-less multiplication, ...) never appears in a kernel by itself and is left out.
EXTRAS = {
    "avx512_vnni": "avx512vnni", "avx512_bf16": "avx512bf16", "avx512_fp16": "avx512fp16", "avx512ifma": "avx512ifma",
    "avx512vbmi": "avx512vbmi", "avx512_vbmi2": "avx512vbmi2", "avx512_bitalg": "avx512bitalg",
    "avx512_vpopcntdq": "avx512vpopcntdq", "avx_vnni": "avxvnni", "avx_vnni_int8": "avxvnniint8",
    "avx_vnni_int16": "avxvnniint16", "avx_ne_convert": "avxneconvert", "gfni": "gfni",
}

AVX2 = ("avx2", "fma", "f16c", "bmi1", "bmi2", "abm", "movbe", "popcnt")  # what x86-64-v3 may use, in cpuinfo's names
AVX512 = ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")  # what x86-64-v4 adds

_ICELAKE = frozenset({"avx512_vnni", "avx512ifma", "avx512vbmi", "avx512_vbmi2", "avx512_bitalg", "avx512_vpopcntdq", "gfni"})
_ALDERLAKE = frozenset({"avx_vnni", "gfni"})
_ARROWLAKE = _ALDERLAKE | {"avx_vnni_int8", "avx_ne_convert"}
_SAPPHIRE = _ICELAKE | {"avx512_bf16", "avx512_fp16", "avx_vnni"}


@dataclass(frozen=True)
class Microarchitecture:
    """One design: its name in fingerprints, LLVM's name, and which EXTRAS the LLVM name implies."""

    name: str
    mcpu: str
    implies: frozenset = frozenset()
    avx512: bool = False


GENERIC = {
    "avx2": Microarchitecture("generic", "x86-64-v3"),
    "avx512": Microarchitecture("generic", "x86-64-v4", avx512=True),
}

ZEN1 = Microarchitecture("zen1", "znver1")
ZEN2 = Microarchitecture("zen2", "znver2")
ZEN3 = Microarchitecture("zen3", "znver3")
ZEN4 = Microarchitecture("zen4", "znver4", _ICELAKE | {"avx512_bf16"}, True)
ZEN5 = Microarchitecture("zen5", "znver5", _ICELAKE | {"avx512_bf16", "avx_vnni"}, True)
HASWELL = Microarchitecture("haswell", "haswell")
BROADWELL = Microarchitecture("broadwell", "broadwell")
SKYLAKE = Microarchitecture("skylake", "skylake")
SKYLAKE_X = Microarchitecture("skylake-x", "skylake-avx512", avx512=True)
CASCADELAKE = Microarchitecture("cascadelake", "cascadelake", frozenset({"avx512_vnni"}), True)
COOPERLAKE = Microarchitecture("cooperlake", "cooperlake", frozenset({"avx512_vnni", "avx512_bf16"}), True)
ICELAKE = Microarchitecture("icelake", "icelake-client", _ICELAKE, True)
ICELAKE_X = Microarchitecture("icelake", "icelake-server", _ICELAKE, True)
TIGERLAKE = Microarchitecture("tigerlake", "tigerlake", _ICELAKE, True)
ROCKETLAKE = Microarchitecture("rocketlake", "rocketlake", _ICELAKE, True)
ALDERLAKE = Microarchitecture("alderlake", "alderlake", _ALDERLAKE)
RAPTORLAKE = Microarchitecture("raptorlake", "raptorlake", _ALDERLAKE)
METEORLAKE = Microarchitecture("meteorlake", "meteorlake", _ALDERLAKE)
GRACEMONT = Microarchitecture("gracemont", "gracemont", _ALDERLAKE)
ARROWLAKE = Microarchitecture("arrowlake", "arrowlake", _ARROWLAKE)
LUNARLAKE = Microarchitecture("lunarlake", "lunarlake", _ARROWLAKE | {"avx_vnni_int16"})
SIERRAFOREST = Microarchitecture("sierraforest", "sierraforest", _ARROWLAKE)
SAPPHIRERAPIDS = Microarchitecture("sapphirerapids", "sapphirerapids", _SAPPHIRE, True)
EMERALDRAPIDS = Microarchitecture("emeraldrapids", "emeraldrapids", _SAPPHIRE, True)
GRANITERAPIDS = Microarchitecture("graniterapids", "graniterapids", _SAPPHIRE, True)

_AMD = [  # family, first model, last model
    (0x17, 0x00, 0x2F, ZEN1), (0x17, 0x30, 0xAF, ZEN2),
    (0x19, 0x00, 0x0F, ZEN3), (0x19, 0x10, 0x1F, ZEN4), (0x19, 0x20, 0x5F, ZEN3), (0x19, 0x60, 0x7F, ZEN4), (0x19, 0xA0, 0xAF, ZEN4),
    (0x1A, 0x00, 0x2F, ZEN5), (0x1A, 0x40, 0x4F, ZEN5), (0x1A, 0x60, 0x7F, ZEN5),
]

_INTEL = {  # models of family 6
    HASWELL: (0x3C, 0x3F, 0x45, 0x46),
    BROADWELL: (0x3D, 0x47, 0x4F, 0x56),
    SKYLAKE: (0x4E, 0x5E, 0x8E, 0x9E, 0xA5, 0xA6),
    ICELAKE: (0x7D, 0x7E), ICELAKE_X: (0x6A, 0x6C), TIGERLAKE: (0x8C, 0x8D), ROCKETLAKE: (0xA7,),
    ALDERLAKE: (0x97, 0x9A), GRACEMONT: (0xBE,), RAPTORLAKE: (0xB7, 0xBA, 0xBF), METEORLAKE: (0xAA, 0xAC),
    ARROWLAKE: (0xB5, 0xC5, 0xC6), LUNARLAKE: (0xBD,), SIERRAFOREST: (0xAF,),
    SAPPHIRERAPIDS: (0x8F,), EMERALDRAPIDS: (0xCF,), GRANITERAPIDS: (0xAD, 0xAE),
}

KNOWN = (*{row[3]: None for row in _AMD}, *_INTEL, SKYLAKE_X, CASCADELAKE, COOPERLAKE)


def identify(vendor: str, family: int, model: int, flags: frozenset) -> Microarchitecture | None:
    """The microarchitecture of a processor as /proc/cpuinfo describes it, or None when the table does not know it."""
    if vendor == "AuthenticAMD":
        return next((row for f, first, last, row in _AMD if f == family and first <= model <= last), None)
    if vendor != "GenuineIntel" or family != 6:
        return None
    if model == 0x55:  # one model number for three designs, told apart by what each added
        return COOPERLAKE if "avx512_bf16" in flags else CASCADELAKE if "avx512_vnni" in flags else SKYLAKE_X
    return next((row for row, models in _INTEL.items() if model in models), None)
