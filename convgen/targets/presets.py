"""Targets by name: this machine (`native`), fixed x86 levels that run on any processor of the level, ARM processors, GPU architectures and cards."""

from __future__ import annotations

from dataclasses import replace

from ..errors import TargetError
from . import arm, nvidia
from .detect import Machine, machine
from .microarchitectures import AVX2, AVX512, EXTRAS, GENERIC, identify
from .target import Target

# Caches of the presets: what the weakest common processor of the level has, so that a tile chosen for them fits everywhere.
_LEVELS = {
    "avx2": Target(name="x86:avx2", family="x86", isa="avx2", mcpu="x86-64-v3", attrs=(), features=AVX2,
                   vector_registers=16, vector_bits=256, l1=32 << 10, l2=256 << 10, l3=8 << 20, cores=1, threads=1),
    "avx512": Target(name="x86:avx512", family="x86", isa="avx512", mcpu="x86-64-v4", attrs=(), features=AVX2 + AVX512,
                     vector_registers=32, vector_bits=512, l1=32 << 10, l2=1 << 20, l3=16 << 20, cores=1, threads=1),
}
NAMES = ("native", *(level.name for level in _LEVELS.values()), *(preset.name for preset in arm.PRESETS.values()), *(f"cuda:{name}" for name in nvidia.PRESETS))
_ARM = ("aarch64", "arm64")


def resolve(spec: str | Target = "native", here: Machine | None = None) -> Target:
    """The target that `spec` names: one of NAMES (a Target passes through).

    Cores and threads are those usable here (affinity and CPU quota), those of the preset on a machine of another family; `with_threads` changes them.
    `here` replaces the detected machine. Raises TargetError, in one sentence, for a name nobody knows, or a processor below AVX2.
    """
    if isinstance(spec, Target):
        return spec
    family, _, level = str(spec).partition(":")
    if family == "cuda" and level in nvidia.PRESETS:
        return nvidia.target(spec, nvidia.PRESETS[level])
    presets = {"x86": _LEVELS, "arm": arm.PRESETS}.get(family, {})
    if spec != "native" and level not in presets:
        raise TargetError(f"unknown target {spec!r}: expected one of {', '.join(NAMES)}")
    here = here or machine()
    if spec == "native":
        return _native(here)
    foreign = family == "arm" and here.architecture not in _ARM
    return presets[level] if foreign else replace(presets[level], cores=here.cores, threads=here.threads)


def _native(here: Machine) -> Target:
    if here.architecture in _ARM:
        return arm.native(here)
    if here.architecture not in ("x86_64", "AMD64"):
        raise TargetError(f"target 'native' is not available on {here.architecture}: only x86-64 with AVX2 and aarch64 are built, choose one of {', '.join(NAMES[1:])}")
    missing = [flag for flag in AVX2 if flag not in here.flags]
    if missing:
        raise TargetError(f"target 'native' needs x86-64 with AVX2 and FMA, but this processor ({here.name}) lacks {', '.join(missing)}")
    isa = "avx512" if all(flag in here.flags for flag in AVX512) else "avx2"
    level = _LEVELS[isa]
    known = identify(here.vendor, here.family, here.model, here.flags)
    # A hypervisor may hide AVX-512: then the processor's LLVM name would allow what is missing, so the plain level is used.
    compiled_for = known if known and known.avx512 == (isa == "avx512") else GENERIC[isa]
    present = {flag for flag in EXTRAS if flag in here.flags and (isa == "avx512" or not flag.startswith("avx512"))}
    attrs = [f"-{EXTRAS[flag]}" for flag in EXTRAS if flag in compiled_for.implies - present]
    attrs += [f"+{EXTRAS[flag]}" for flag in EXTRAS if flag in present - compiled_for.implies]
    return Target(
        name="native", family="x86", isa=isa, mcpu=compiled_for.mcpu, attrs=tuple(attrs),
        features=level.features + tuple(flag for flag in EXTRAS if flag in present),
        vector_registers=level.vector_registers, vector_bits=level.vector_bits, l1=here.l1, l2=here.l2, l3=here.l3,
        cores=here.cores, threads=here.threads, microarchitecture=known.name if known else "generic",
    )
