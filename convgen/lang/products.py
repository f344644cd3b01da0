"""Sums of products of arrays that are read in windows, in float64 with numpy: strided views, matrix products, and no array as large as all the products.

An operand's axis may stand in several of its array's dims, and several axes in one dim (a position and a tap). Where each kernel is read by one channel alone,
matrices are made of one window axis at a time: with i = p + r, the sum over s of x[i, q + s] w[r, s] is a matrix product for all i and r, and the rest is a sum along a diagonal;
a long window in one dim is first split into blocks of about its square root. Float64 sums may be taken in any order: those of integers below 2^53 are exact.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np

_BLOCK = 1 << 20  # elements of one temporary
_MOST = 1 << 26  # elements of a product that is formed whole
_FEW = 8  # columns from which a matrix product is worth its copies
_LONG = 32  # taps from which a window in one dim is split


@dataclass(frozen=True)
class Operand:
    """`array`[i, j, ...] where each index is a start plus multiples of axes. dims: ({axis: multiple}, start) of each dim of the array."""

    array: np.ndarray
    dims: tuple

    @property
    def axes(self) -> list:
        return list(dict.fromkeys(n for terms, _ in self.dims for n in terms))

    def view(self, order, extents) -> np.ndarray:
        """Its elements on a grid of `order`, which holds all of its axes; others are broadcast."""
        steps = {n: 0 for n in order}
        for (terms, _), stride in zip(self.dims, self.array.strides):
            for n, multiple in terms.items():
                steps[n] += multiple * stride
        corner = self.array[tuple(slice(start, start + 1) for _, start in self.dims)]
        return np.lib.stride_tricks.as_strided(corner, [extents[n] for n in order], [steps[n] for n in order], writeable=False)

    def cut(self, ranges) -> "Operand":
        """The same with each axis of `ranges` (axis → (first, extent)) counted from its first."""
        return replace(self, dims=tuple((terms, start + sum(m * ranges[n][0] for n, m in terms.items() if n in ranges)) for terms, start in self.dims))

    def respelt(self, old: str, new: dict) -> "Operand":
        """The same with an axis replaced by a sum of multiples of new ones."""
        return replace(self, dims=tuple(({n: m for n, m in terms.items() if n != old} | {n: m * terms[old] for n, m in new.items()} if old in terms else terms, start)
                                        for terms, start in self.dims))


def plain(array, axes) -> Operand:
    """An array whose dims are axes."""
    return Operand(array, tuple(({n: 1}, 0) for n in axes))


def sum_of_products(operands: list[Operand], out: list[str], extents: dict) -> np.ndarray | None:
    """Array over the axes `out` (all of which occur): the product of the operands, summed over all other axes. None where a product of three would be too large."""
    def reduced(those, others):
        """`those` without the axes that nobody else needs."""
        return [_summed(o, [n for n in o.axes if n in out or any(n in other.axes for other in [*those[:k], *those[k + 1:], *others])], extents) for k, o in enumerate(those)]

    operands = reduced(operands, [])
    while len(operands) > 2:
        axes = lambda j, k: list(dict.fromkeys([*operands[j].axes, *operands[k].axes]))
        j, k = min(itertools.combinations(range(len(operands)), 2), key=lambda pair: _size(axes(*pair), extents))
        order, rest = axes(j, k), [o for i, o in enumerate(operands) if i not in (j, k)]
        if _size(order, extents) > _MOST:
            return None
        operands = rest + reduced([plain(operands[j].view(order, extents) * operands[k].view(order, extents), order)], rest)
    return _pair(*operands, out, extents) if len(operands) == 2 else operands[0].view(out, extents).copy()


def _size(axes, extents) -> int:
    return math.prod(extents[n] for n in axes)


def _summed(operand: Operand, kept: list[str], extents) -> Operand:
    """The operand summed over all axes that are not kept."""
    return operand if set(operand.axes) == set(kept) else plain(_einsum([operand], kept, extents), kept)


def _einsum(operands, out, extents) -> np.ndarray:
    letters = {n: i for i, n in enumerate(dict.fromkeys(n for o in operands for n in o.axes))}
    arguments = [part for o in operands for part in (o.view(o.axes, extents), [letters[n] for n in o.axes])]
    return np.einsum(*arguments, [letters[n] for n in out])


def _blocks(axes, extents, size: int):
    """Ranges (axis → (first, extent)) that cut `axes`, the first ones finest, into parts of _BLOCK of the `size` elements where that is possible."""
    cuts = []
    for n in axes:
        step = max(1, min(extents[n], _BLOCK * extents[n] // size))
        cuts.append([(first, min(step, extents[n] - first)) for first in range(0, extents[n], step)])
        size = -(-size * step // extents[n])
    for ranges in itertools.product(*cuts):
        yield dict(zip(axes, ranges))


def _within(extents, ranges) -> dict:
    return extents | {n: extent for n, (_, extent) in ranges.items()}


def _place(order, ranges) -> tuple:
    return tuple(slice(ranges[n][0], sum(ranges[n])) if n in ranges else slice(None) for n in order)


def _pair(a: Operand, b: Operand, out: list[str], extents: dict) -> np.ndarray:
    """The sum of products of two, all of whose reduced axes occur in both."""
    if len(b.axes) > len(a.axes):
        a, b = b, a
    reduced = [n for n in a.axes if n not in out]
    columns = [n for n in b.axes if n not in a.axes]
    rows = [n for n in a.axes if n not in b.axes]
    if not reduced or not rows:
        return _einsum([a, b], out, extents)
    if _size(columns, extents) < _FEW:
        found = _sliding(a, rows, reduced)
        if found and len(reduced) > 1:
            return _diagonals(a, b, *found, out, extents)
        if found and extents[reduced[0]] >= _LONG:
            return _split(a, b, reduced[0], out, extents)
        return _einsum([a, b], out, extents)
    return _matrices(a, b, rows, reduced, columns, out, extents)


def _sliding(a, rows, reduced) -> tuple | None:
    """(dim of a, position p, tap r) where p and r stand together in that dim and p nowhere else."""
    for d, (terms, _) in enumerate(a.dims):
        for p, r in itertools.product([n for n in terms if n in rows], [n for n in terms if n in reduced]):
            if not any(n in other for e, (other, _) in enumerate(a.dims) if e != d for n in (p, r)):
                return d, p, r
    return None


def _matrices(a, b, rows, reduced, columns, out, extents):
    batch = [n for n in a.axes if n not in rows and n not in reduced]
    order = [*batch, *columns, *rows]
    result = np.empty([extents[n] for n in order])
    for ranges in _blocks([*batch, *rows], extents, _size([*a.axes], extents)):
        here = _within(extents, ranges)
        left = b.cut(ranges).view([*batch, *columns, *reduced], here).reshape(_size(batch, here), _size(columns, here), -1)
        right = a.cut(ranges).view([*batch, *reduced, *rows], here).reshape(_size(batch, here), left.shape[2], -1)  # the copy that a matrix product needs
        result[_place(order, ranges)] = np.matmul(left, right).reshape([here[n] for n in order])
    return result.transpose([order.index(n) for n in out])


def _diagonals(a, b, dim, p, r, out, extents):
    """With i = p + r (and their multiples): the sums for every i and r, and then those along p + r = i."""
    terms, start = a.dims[dim]
    steps = terms[p], terms[r]
    least = sum(min(0, step * (extents[n] - 1)) for n, step in zip((p, r), steps))
    reach = sum(abs(step) * (extents[n] - 1) for n, step in zip((p, r), steps)) + 1
    i = f"{p}+{r}"
    a = replace(a, dims=(*a.dims[:dim], ({n: m for n, m in terms.items() if n not in (p, r)} | {i: 1}, start + least), *a.dims[dim + 1:]))
    extents = extents | {i: reach}
    kept = [n for n in out if n != p]
    inner = [r, *kept, i]
    result = np.empty([extents[n] for n in out])
    for ranges in _blocks(kept, extents, _size(inner, extents)):
        here = _within(extents, ranges)
        sums = _pair(a.cut(ranges), b.cut(ranges), inner, here)
        diagonal = Operand(sums, (({r: 1}, 0), *(({n: 1}, 0) for n in kept), ({p: steps[0], r: steps[1]}, -least)))
        result[_place(out, ranges)] = diagonal.view([r, *out], here).sum(axis=0)
    return result


def _split(a, b, r, out, extents):
    """A window as blocks of blocks, and what is left over."""
    width = math.isqrt(extents[r])
    outer, inner = f"{r}/{width}", f"{r}%{width}"
    parts = {outer: width, inner: 1}
    blocks = extents[r] // width
    total = _pair(a.respelt(r, parts), b.respelt(r, parts), out, extents | {outer: blocks, inner: width})
    rest = {r: (blocks * width, extents[r] - blocks * width)}
    return total + _pair(a.cut(rest), b.cut(rest), out, _within(extents, rest)) if rest[r][1] else total
