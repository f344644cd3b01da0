"""Phase split: a sum whose terms vanish unless `(q + a - d k) % s == 0` becomes s dense sums, one per phase of q (transposed convolutions).

Applies to every axis pair (output q, reduced k) under such a condition with gcd(d, s) = 1. With q = s q' + r only the taps k = k0(r) + s j remain, where
k0(r) = (r + a) d^-1 mod s, and the position (q + a - d k) / s is q' - d j + (r + a - d k0(r)) / s: an ordinary window. Exact: the same terms in
the same order, the zeros left out. Cost: 1/s of the multiply-adds per axis (rounded up to whole taps), and one pass that interleaves the phases.
The identity "transposed = s^D phases" is folklore; tests/algorithms checks it against the oracle.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

from ..lang import access, expr as E, ranges
from ..lang.program import Stage
from ..lang.size import Size, value_of
from .convolution import lean


@dataclass
class _Pair:
    """One condition: output axis q, reduced axis k, stride s, step d, offset a, and the index `(q + a - d k)` itself."""

    q: str
    k: str
    s: int
    d: int
    a: int
    index: str


def rewrites(program) -> dict:
    """{"phases": the program with its conditional sum split}, or nothing where the rewrite does not apply or fills too much memory with zeros."""
    for stage in program.stages:
        if stage.combiner != "sum":
            continue
        factors = E.factors(stage.body)
        guarded = next((f for f in factors if f.op == "select" and E.is_const(f.args[2], 0.0)), None)
        pairs = _pairs(guarded.args[0], stage) if guarded is not None else None
        if pairs:
            split = _split(program, stage, factors, guarded, pairs)
            return {"phases": split} if lean(split) else {}
    return {}


def _pairs(condition, stage):
    """The pairs of a conjunction of `(q + a - d k) % s == 0`, or None if it is anything else."""
    if condition.op == "and":
        both = [_pairs(c, stage) for c in condition.args]
        return None if any(b is None for b in both) else both[0] + both[1]
    if condition.op != "==" or condition.args[0].op != "%" or E.constant(condition.args[1]) != 0:
        return None
    index, s = condition.args[0].args[0], E.constant(condition.args[0].args[1])
    terms = access.linear(index)
    if terms is None or s is None:
        return None
    out = [n for n in terms[0] if n in {a.name for a in stage.axes}]
    red = [n for n in terms[0] if n in {a.name for a in stage.reduce}]
    if not red:  # a window of one tap: its axis has been simplified away
        return None
    if len(out) != 1 or len(red) != 1 or terms[0][out[0]] != 1 or terms[0][red[0]] >= 0 or gcd(-terms[0][red[0]], s) != 1:
        return None
    return [_Pair(out[0], red[0], int(s), -terms[0][red[0]], terms[1], repr(E.to_json(index)))]


def _split(program, stage, factors, guarded, pairs):
    extents = access.extents(stage)
    number = lambda v: E.Expr("const", (), "int", int(v))
    size = lambda v: Size(int(v), int(v), [])
    phases, quotients, taps, mapping, positions, inside = [], {}, {}, {}, {}, {}
    for p in pairs:
        r = E.Axis(f"{p.q}_phase", size(p.s))
        whole = E.Axis(p.q, size(-(-extents[p.q] // p.s)))
        j = E.Axis(p.k, size(-(-extents[p.k] // p.s)))
        inverse = pow(p.d, -1, p.s) if p.s > 1 else 0
        first = ((r + p.a) * inverse) % number(p.s)
        mapping[p.q], mapping[p.k] = whole * p.s + r, first + j * p.s
        shift = r + p.a if p.d == 1 else r + p.a - first * p.d  # first is the remainder where d = 1
        positions[(p.index, p.s)] = whole - j * p.d + shift // number(p.s)
        phases.append(r)
        quotients[p.q], taps[p.k] = whole, j
        if extents[p.k] % p.s:
            inside[p.k] = mapping[p.k] < extents[p.k]
    # parameters lose the taps beyond the kernel when they are bound, so that every phase has equally many
    kernels, rest = [], []
    for f in factors:
        moved = _rebuild(f if f is not guarded else guarded.args[1], mapping, positions)
        if f is guarded:
            moved = _covered(moved, program, ranges.whole(access.extents(stage) | {a.name: value_of(a.size) for a in [*phases, *quotients.values(), *taps.values()]}))
        touched = [k for k in inside if k in f.axes()]
        if f is not guarded and touched and f.op == "load" and program.tensor(f.data[0]) is not None and program.tensor(f.data[0]).kind == "param":
            condition = inside[touched[0]]
            for k in touched[1:]:
                condition = condition & inside[k]
            known = {a.name: a for a in [*stage.axes, *stage.reduce]} | {a.name: a for a in phases} | quotients | taps
            axes = [known[n] for n in moved.axes()]
            kernel = Stage(f"{stage.name}_phases", axes, [], None, E.Expr("select", (condition, moved, E.to_float(0.0)), "float"))
            kernels.append(kernel)
            rest.append(E.Expr("load", axes, "float", (kernel.name, None)))
            inside = {k: c for k, c in inside.items() if k not in touched}
        else:
            rest.append(moved)
    body = rest[0]
    for f in rest[1:]:
        body = body * f
    for k, condition in inside.items():  # no parameter carries this tap: the condition stays in the sum
        body = E.Expr("select", (condition, body, E.to_float(0.0)), "float")
    lead = [quotients.get(a.name, a) for a in stage.axes if a.name not in quotients]
    axes = [lead[0], *phases, *lead[1:], *(quotients[a.name] for a in stage.axes if a.name in quotients)]
    inner = Stage(f"{stage.name}_split", axes, [taps.get(a.name, a) for a in stage.reduce], "sum", body)
    where = {p.q: p.s for p in pairs}

    def joined(index):
        """Where element `index` of the original stage lies in the split one."""
        at = dict(zip([a.name for a in stage.axes], index))
        place = {n: at[n] // number(s) for n, s in where.items()} | {f"{n}_phase": at[n] % number(s) for n, s in where.items()}
        return E.Expr("load", [place.get(a.name, at.get(a.name)) for a in axes], "float", (inner.name, None))
    return access.spliced(program, stage, [*kernels, inner], joined)


def _covered(e, program, steps):
    """Reads of filled taps may leave a tensor that needed no padding so far: they get zeros, for nothing else is harmless times zero.

    And where no phase reaches the padding any more, there is none.
    """
    if e.op != "load":
        return E.Expr(e.op, [_covered(a, program, steps) for a in e.args], e.dtype, e.data) if e.args else e
    name, padding = e.data
    shape = program.shape(name)
    amounts = list(padding.amounts) if padding else [(0, 0)] * len(shape)
    index = list(e.args)
    for d, n in enumerate(shape):
        lo, hi = ranges.interval(index[d], steps)
        if not any(map(value_of, amounts[d])) and (lo < 0 or hi >= n):
            amounts[d] = tuple(Size(v, v, []) for v in (max(0, -lo), max(0, hi - n + 1)))
            index[d] = index[d] + amounts[d][0]
        elif any(map(value_of, amounts[d])) and value_of(amounts[d][0]) <= lo and hi < value_of(amounts[d][0]) + n:
            index[d], amounts[d] = index[d] - value_of(amounts[d][0]), (Size(0, 0, []), Size(0, 0, []))
    return E.Expr("load", index, "float", (name, E.Padding(amounts, padding.mode if padding else "zeros") if any(value_of(v) for pair in amounts for v in pair) else None))


def _rebuild(e, mapping, positions):
    """Substitute axes; a whole position `(index) // s` becomes its window form."""
    if e.op == "//":
        key = (repr(E.to_json(e.args[0])), E.constant(e.args[1]))
        if key in positions:
            return positions[key]
    if e.op == "axis":
        return mapping.get(e.data, e)
    return E.Expr(e.op, [_rebuild(a, mapping, positions) for a in e.args], e.dtype, e.data) if e.args else e
