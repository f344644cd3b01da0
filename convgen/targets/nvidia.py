"""NVIDIA GPUs: what an architecture limits, and cards by name.

Limits: CUDA C++ Programming Guide 13.0, "Compute Capabilities", tables "Technical Specifications per Compute Capability" and "Shared Memory Capacity per
Compute Capability". Multiprocessors and L2: NVIDIA's architecture white papers (A100, GA102, Ada GPU Architecture, H100) and the product briefs of A10, L4 and H200.
"""

from __future__ import annotations

from .target import Target

_KIB, _MIB = 1 << 10, 1 << 20


def _limits(threads_per_sm: int, blocks_per_sm: int, shared_per_sm: int) -> dict:
    """`shared_per_block` needs the launcher's consent beyond `shared_static`, and can only be had as dynamic shared memory; 1 KiB per block is the system's."""
    return {"threads_per_block": 1024, "shared_per_block": shared_per_sm - _KIB, "shared_static": 48 * _KIB, "shared_per_sm": shared_per_sm, "registers_per_sm": 64 * _KIB,
            "registers_per_thread": 255, "threads_per_sm": threads_per_sm, "blocks_per_sm": blocks_per_sm, "warp": 32}


_ARCHITECTURES = {
    "sm_80": _limits(2048, 32, 164 * _KIB),
    "sm_86": _limits(1536, 16, 100 * _KIB),
    "sm_89": _limits(1536, 24, 100 * _KIB),
    "sm_90": _limits(2048, 32, 228 * _KIB),
}

_CARDS = {  # name → architecture, multiprocessors, bytes of L2
    "a100": ("sm_80", 108, 40 * _MIB),
    "a10": ("sm_86", 72, 6 * _MIB),
    "rtx-3090": ("sm_86", 82, 6 * _MIB),
    "l4": ("sm_89", 58, 48 * _MIB),
    "rtx-4090": ("sm_89", 128, 72 * _MIB),
    "h100": ("sm_90", 132, 50 * _MIB),
    "h200": ("sm_90", 132, 50 * _MIB),
}

_USUAL = {"sm_80": "a100", "sm_86": "a10", "sm_89": "l4", "sm_90": "h100"}  # the card whose size a preset of the architecture assumes


def target(name: str, card: str | None = None) -> Target:
    """The target `name`: of `card`, or of the architecture `name` itself on any card."""
    arch, sms, l2 = _CARDS[card or _USUAL[name.partition(":")[2]]]
    limits = _ARCHITECTURES[arch] | {"sms": sms, "l2": l2}
    return Target(name=name, family="cuda", isa=arch, mcpu=arch, attrs=(), features=(arch,), vector_registers=limits["registers_per_thread"], vector_bits=32,
                  l1=limits["shared_per_sm"], l2=l2, l3=0, cores=sms, threads=1, microarchitecture=card or "generic", limits=limits)


PRESETS = {name: None for name in _ARCHITECTURES} | {card: card for card in _CARDS}
