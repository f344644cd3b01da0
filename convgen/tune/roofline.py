"""A time that no kernel can beat on any machine of a target's kind: what is faster is a measuring error, not a winner."""

from __future__ import annotations

FASTEST_CLOCK = 6.5e9  # Hz; no shipping x86 or ARM core clocks higher
FMA_PER_CYCLE = 2  # vector multiply-adds a core can start per cycle
BYTES_PER_CYCLE = 192  # first-level cache, two 64-byte loads and one store per cycle
# How much arithmetic an algorithm may save against the description: taps that meet only padding are skipped by a direct
# algorithm (73 % of 27x27 on 14x14), Winograd and FFT save much more.
SAVINGS = {"E": 16.0, "F": 16.0, "N": 256.0}


def fastest_possible_us(flops: float, least_bytes: float, target: dict, oracle: str) -> float:
    """Lower bound of a call's time in microseconds, generous by design.

    `flops` and `least_bytes` are the description's; `target` is its JSON (threads, lanes); `oracle` the letter of the algorithm.
    """
    cores = max(int(target.get("threads", 1)), int(target.get("cores", 1)))
    lanes = max(target.get("lanes", {"float32": 16}).values(), default=16) * 4  # int8 dot products do four times the work
    arithmetic = flops / (2.0 * lanes * FMA_PER_CYCLE * FASTEST_CLOCK * cores) / SAVINGS.get(oracle, 16.0)
    traffic = least_bytes / (BYTES_PER_CYCLE * FASTEST_CLOCK * cores)
    return max(arithmetic, traffic) * 1e6
