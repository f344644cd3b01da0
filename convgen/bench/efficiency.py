"""Efficiency gap and waterline of a sequence of layers (Lavin, arXiv 2404.03617; the definition used here is ours).

A layer with F operations and B bytes takes at least t = max(F/peak, B/bandwidth). The ideal latency of a sequence is sum(F)/peak; its waterline, the
latency that no kernels can beat while every layer is run by itself, is sum(t). Efficiencies divide the ideal latency by another one.
"""

from __future__ import annotations

from typing import Iterable, Sequence


def ideal(flops: Iterable[float], peak: float) -> float:
    """Seconds of arithmetic alone. peak: operations per second."""
    return sum(flops) / peak


def waterline(flops: Sequence[float], nbytes: Sequence[float], peak: float, bandwidth: float) -> float:
    """Least seconds of the layers one after another. bandwidth: bytes per second."""
    return sum(max(f / peak, b / bandwidth) for f, b in zip(flops, nbytes, strict=True))


def highest(flops: Sequence[float], nbytes: Sequence[float], peak: float, bandwidth: float) -> float:
    """e_max: the efficiency at the waterline, in (0, 1]."""
    return ideal(flops, peak) / waterline(flops, nbytes, peak, bandwidth)


def single_point(flops: Sequence[float], nbytes: Sequence[float], peak: float, bandwidth: float) -> float:
    """What one roofline point of the whole sequence would say; never below `highest`."""
    return min(1.0, sum(flops) / peak * bandwidth / sum(nbytes))


def submerged(flops: float, nbytes: float, peak: float, bandwidth: float) -> bool:
    """Whether a layer's traffic takes longer than its arithmetic."""
    return flops * bandwidth < nbytes * peak
