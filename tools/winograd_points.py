#!/usr/bin/env python
"""Interpolation points for Winograd transforms: tools/winograd_points.py [--tiles 4,3 6,3 8,3] [--denominators 6].

Searches points with the least error measure (convgen/algorithms/error_measure.py) on the line, snaps them to small rationals, proves each transform in exact
arithmetic, and prints a table: the points found, those in use, the published NOVA points (arXiv:2512.18453) and the textbook ones, with measured float32 error.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from fractions import Fraction as F
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout this file lies in

from convgen.algorithms import cook_toom, error_measure  # noqa: E402

RESTARTS, STEPS = 12, 60
NEAR = 3  # rationals on each side of an optimum that are tried
SPAN = (0.2, 5.0)  # where magnitudes are looked for


def symmetric(magnitudes, count: int) -> tuple:
    """Zero, then pairs of opposite points; the last magnitude stands alone where `count` is even."""
    points = [type(magnitudes[0])(0)] if magnitudes else [F(0)]
    for x in magnitudes:
        points += [x, -x]
    return tuple(points[:count])


PUBLISHED = {
    "NOVA": {(4, 3): symmetric([F(5, 6), F(7, 6)], 5), (6, 3): symmetric([F(3, 5), F(1), F(7, 6)], 7), (8, 3): symmetric([F(2, 5), F(5, 6), F(1), F(7, 6)], 9)},
    "textbook": {(m, r): symmetric([F(i) for i in range(1, 5)], m + r - 2) for m, r in ((2, 3), (4, 3), (6, 3), (8, 3), (2, 5), (4, 5))},
}


def approximate(m: int, points, r: int) -> float:
    """E1^2 in floating point, for searching."""
    p = np.asarray(points, float)
    apart = np.subtract.outer(p, p) + np.eye(len(p))
    g = (p[:, None] ** (2 * np.arange(r))).sum(1) / np.prod(apart, 1) ** 2
    b = np.array([np.square(np.poly(np.delete(p, i))).sum() for i in range(len(p))])
    a = (p[:, None] ** (2 * np.arange(m))).sum(1)
    return float(((a * g * b).sum() + np.square(np.poly(p)).sum()) / (m * r))  # the point at infinity has A and G of norm 1


def optimum(m: int, r: int, seed: int = 0) -> list[float]:
    """Magnitudes, ascending, at the least E1^2 that restarted descents along the axes find."""
    count, rng = m + r - 2, np.random.default_rng(seed)
    objective = lambda logs: approximate(m, symmetric(list(np.exp(logs)), count), r) if len(set(logs)) == len(logs) else np.inf
    best, least = None, np.inf
    for _ in range(RESTARTS):
        at = rng.uniform(*np.log(SPAN), count // 2)
        value, step = objective(at), 0.5
        for _ in range(STEPS):
            tried = [at + sign * step * unit for unit in np.eye(len(at)) for sign in (1, -1)]
            values = [objective(t) for t in tried]
            if min(values) < value:
                at, value = tried[int(np.argmin(values))], min(values)
            else:
                step /= 2
        if value < least:
            best, least = at, value
    return list(np.exp(best)) if count % 2 == 0 else sorted(np.exp(best))


def snapped(m: int, r: int, magnitudes, denominators: int) -> tuple:
    """The best rational points near real ones, their transform proved: `transforms` refuses a wrong one."""
    grid = sorted({F(n, d) for d in range(1, denominators + 1) for n in range(1, int(SPAN[1] * d) + 1)})
    near = []
    for x in magnitudes:
        at = int(np.searchsorted([float(g) for g in grid], x))
        near.append(grid[max(0, at - NEAR):at + NEAR])
    count = m + r - 2
    sets = {symmetric(choice, count) for choice in itertools.product(*near) if len(set(choice)) == len(choice)}
    promising = sorted(sets, key=lambda points: approximate(m, [float(p) for p in points], r))[:10]
    return min(promising, key=lambda points: error_measure.squared(m, points, r))


def measured(m: int, points, r: int, channels: int = 64, tiles: int = 64, seed: int = 0) -> float:
    """Relative L2 error of float32 arithmetic throughout, in two dimensions, against float64: normal data, kernels scaled by their number of terms."""
    rng = np.random.default_rng(seed)
    n = m + r - 1
    d = rng.standard_normal((tiles, channels, n, n)).astype(np.float32)
    w = (rng.standard_normal((channels, r, r)) * np.sqrt(2 / (channels * r * r))).astype(np.float32)
    exact = sum(np.einsum("tcpq,c->tpq", d[:, :, i:i + m, j:j + m].astype(np.float64), w[:, i, j].astype(np.float64)) for i in range(r) for j in range(r))
    a, g, b = (np.array([[float(v) for v in row] for row in matrix], np.float32) for matrix in cook_toom.transforms(m, r, points))
    data, kernel = b @ d @ b.T, g @ w @ g.T
    result = a @ (data * kernel).sum(1) @ a.T
    return float(np.linalg.norm(result - exact) / np.linalg.norm(exact))


def table(tiles, denominators: int, seed: int = 0) -> list[tuple]:
    """(tile, whose points, points, E1^2, float32 error) per set."""
    rows = []
    for m, r in tiles:
        sets = {f"found, denominators to {denominators}": snapped(m, r, optimum(m, r, seed), denominators)}
        if m + r - 2 in cook_toom.POINTS:
            sets["in use"] = cook_toom.POINTS[m + r - 2]
        sets |= {name: known[m, r] for name, known in PUBLISHED.items() if (m, r) in known}
        for name, points in sets.items():
            rows.append((f"F({m},{r})", name, ", ".join(map(str, points)), float(error_measure.squared(m, points, r)), measured(m, points, r, seed=seed)))
    return rows


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiles", nargs="*", default=["2,3", "4,3", "6,3", "8,3", "4,5"], metavar="M,R", help="outputs and taps")
    parser.add_argument("--denominators", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    tiles = [tuple(map(int, tile.split(","))) for tile in options.tiles]
    print("| tile | whose | finite points | E1² | float32 error |\n|---|---|---|---|---|")
    for tile, name, points, e1, error in table(tiles, options.denominators, options.seed):
        print(f"| {tile} | {name} | {points} | {e1:.3g} | {error:.2g} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
