"""Cook-Toom (Winograd) transforms in exact rationals.

F(m, r) computes m outputs of a correlation with r taps by n = m + r - 1 multiplications: y = A [(G g) * (B d)]. Points are chosen by the measure of
`error_measure`; those for F(4,3) and F(6,3) are better than the published NOVA points (arXiv:2512.18453) by it and by measured errors
(`tools/winograd_points.py`).
"""

from __future__ import annotations

from fractions import Fraction as F

POINTS = {  # n - 1 finite points; the last one is infinity
    2: (F(0), F(1)),
    3: (F(0), F(1), F(-1)),
    4: (F(0), F(3, 4), F(-3, 4), F(2)),
    5: (F(0), F(2, 3), F(-2, 3), F(3, 2), F(-3, 2)),
    6: (F(0), F(1), F(-1), F(1, 2), F(-1, 2), F(2)),
    7: (F(0), F(1), F(-1), F(1, 2), F(-1, 2), F(2), F(-2)),
    8: (F(0), F(7, 6), F(-7, 6), F(3, 4), F(-3, 4), F(9, 4), F(-9, 4), F(1, 3)),
}


def transforms(m: int, r: int, points=None) -> tuple:
    """(A [m][n], G [n][r], B [n][n]) as Fractions, n = m + r - 1. points: n - 1 distinct Fractions instead of the listed ones; raises KeyError where none are.

    The identity sum_i A[o][i] G[i][t] B[i][k] = 1 if k == o + t else 0 is checked in exact arithmetic.
    """
    points = POINTS[m + r - 2] if points is None else tuple(points)
    n = m + r - 1
    a = [[p ** j for p in points] + [F(int(j == m - 1))] for j in range(m)]
    g, b = [], []
    for i, p in enumerate(points):
        scale, poly = F(1), [F(1)]
        for q in points[:i] + points[i + 1:]:
            scale *= p - q
            poly = _times(poly, q)
        g.append([p ** j / scale for j in range(r)])
        b.append(poly + [F(0)] * (n - len(poly)))
    g.append([F(int(j == r - 1)) for j in range(r)])
    poly = [F(1)]
    for q in points:
        poly = _times(poly, q)
    b.append(poly)
    for o in range(m):
        for t in range(r):
            for k in range(n):
                assert sum(a[o][i] * g[i][t] * b[i][k] for i in range(n)) == (1 if k == o + t else 0)
    return a, g, b


def _times(poly, root):
    """poly(x) (x - root), lowest power first."""
    out = [F(0)] * (len(poly) + 1)
    for i, c in enumerate(poly):
        out[i + 1] += c
        out[i] -= root * c
    return out
