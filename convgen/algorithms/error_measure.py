"""How much rounding error a Cook-Toom transform adds, whatever its rows are scaled by.

With white inputs and kernels, and independent relative rounding of every transformed kernel and data element, the error of one output o of F(m, r) is
proportional to sqrt(sum_i A[o,i]^2 |G_i|^2 |B_i|^2), |.| the norm of a row, whose mean square over outputs, divided by r, is E1^2. In two dimensions the
relative error is a constant times E1^2. Scaling a row of A, G or B and dividing another by the same changes nothing. The condition number of the points'
Vandermonde matrix, which NOVA (arXiv:2512.18453) minimises, has no such invariance and does not rank sets of points by their measured error.
"""

from __future__ import annotations

from fractions import Fraction

from .cook_toom import transforms


def squared(m: int, points, r: int) -> Fraction:
    """E1^2 of F(m, r) at m + r - 2 finite points and infinity, exact."""
    a, g, b = transforms(m, r, points)
    weights = [_norm(g_row) * _norm(b_row) for g_row, b_row in zip(g, b)]
    return sum((a[o][i] ** 2 * w for o in range(m) for i, w in enumerate(weights)), Fraction(0)) / (m * r)


def _norm(row) -> Fraction:
    return sum((v * v for v in row), Fraction(0))
