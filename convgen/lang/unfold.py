"""Unfolding of output axes that a sum has as two: position p of an upsampled plane is (p // r, p % r), and so is memory.

A transposed convolution computes its phases apart, a pixel shuffle reads them from channels: both end in a copy that interleaves. Where r divides the plane,
the output's rows are a dim of whole steps and a dim of phases in the very same memory. The sum then has the output's axes in the output's order, register
tiles are stored where they belong, and the copy is gone. The border keeps the caller's dims (`TensorSpec.parts`), as for merged ones.

Where the sum itself reads a sum before it by such channels (the last transform of Winograd), that one and those before have them as axes of their own,
if whole vectors of channels are neighbours in the output. Else the copy stays, but its axes are the unfolded ones: no remainders, and tiles of whole steps.
"""

from __future__ import annotations

from dataclasses import replace

from . import access, expr as E
from .program import Stage
from .size import Size, value_of

_VECTOR = 8  # neighbours from which on vectors along them pay


def unfolded(program):
    """The program with every output axis of which a sum is read at `p // r` and `p % r` as two axes, or the program itself."""
    last = program.stages[-1]
    source = _source(program, last)
    factors = _factors(last) if source is not None else {}
    if not factors or program.output.parts is not None:
        return program
    axes, mapping, whole = [], {}, {}
    for a in last.axes:
        name = a.name if a.name not in {x.name for x in source.reduce} else f"{a.name}_out"
        if a.name not in factors:
            axes.append(E.Axis(name, a.size))
            mapping[a.name] = axes[-1]
            continue
        r = factors[a.name]
        if value_of(a.size) % r:
            return program
        steps, phase = _axis(name, value_of(a.size) // r), _axis(f"{name}_phase", r)
        axes += [steps, phase]
        mapping[a.name] = steps * r + phase
        whole[a.name] = (steps, phase)
    body = _moved(last.body, mapping, whole)
    read = _digits(source, next(e for e in body.loads() if e.data[0] == source.name), axes)
    if read is None:
        return program
    inner = last.axes[program.output.permutation(program.layout)[-1]]
    aligned = _aligned(program, source, read, axes, deep=inner.name not in factors and value_of(inner.size) >= _VECTOR)
    if aligned is None and sum(1 for s in program.run_stages if s.combiner) < 2:
        return program  # a single sum gains no tiles
    alone = aligned is not None and body.op == "load" and body.data[0] == source.name
    body = body if aligned is None else _reread(body, source.name, axes)
    stages = [(aligned or {}).get(s.name, s) for s in program.stages[:-1]] + ([] if alone else [replace(last, axes=axes, body=body)])
    return replace(program, stages=stages, output=_output(program.output, [factors.get(a.name, 0) for a in last.axes]))


def phases(spec) -> dict:
    """Dim of phases → their number, of a border tensor with unfolded dims; the steps are the dim before it."""
    return {d: spec.shape[d] for d, part in enumerate(spec.parts or ()) if not part}


def _axis(name, extent):
    return E.Axis(name, Size(int(extent), int(extent), []))


def _source(program, last):
    """The run-time sum that nothing but the last stage reads, at one place, or None."""
    if last.combiner:
        return None
    loads = [e for e in last.body.loads() if any(s.name == e.data[0] and s.combiner for s in program.run_stages)]
    if not loads or len({repr(E.to_json(e)) for e in loads}) > 1 or loads[0].data[1] is not None:
        return None
    others = [s for s in program.stages if s is not last and any(e.data[0] == loads[0].data[0] for e in s.body.loads())]
    return None if others else program.stage(loads[0].data[0])


def _factors(last) -> dict:
    """Axis → r where the last stage takes it as `axis // r`; none where it does so by different numbers."""
    found = {}
    for e in last.body.walk():
        if e.op == "//" and e.args[0].op == "axis" and (r := E.constant(e.args[1])) is not None and r > 1:
            found.setdefault(e.args[0].data, set()).add(int(r))
    return {a: min(r) for a, r in found.items()} if all(len(r) == 1 for r in found.values()) else {}


def _moved(e, mapping, whole):
    """The expression on the new axes. `mapping`: axis → what it is now; `whole`: unfolded axis → (steps, phase)."""
    if e.op in ("//", "%") and e.args[0].op == "axis" and e.args[0].data in whole and E.constant(e.args[1]) == value_of(whole[e.args[0].data][1].size):
        return whole[e.args[0].data][e.op == "%"]
    if e.op == "axis":
        return mapping.get(e.data, e)
    return E.Expr(e.op, [_moved(a, mapping, whole) for a in e.args], e.dtype, e.data) if e.args else e


def _digits(source, load, axes) -> dict | None:
    """Axis of the source → (its index in `load`, those of `axes` that are its digits, the last of which moves fastest); None where it is not read at each of them once."""
    found, known = {}, {a.name: a for a in axes}
    for own, index in zip(source.axes, load.args):
        terms = access.linear(index)
        if terms is None or terms[1] or not terms[0] and value_of(own.size) > 1:
            return None
        step, digits = 1, []
        for name, k in sorted(terms[0].items(), key=lambda t: t[1]):
            if k != step:
                return None
            step *= value_of(known[name].size)
            digits.insert(0, known[name])
        if step != value_of(own.size):
            return None
        found[own.name] = index, digits
    used = [a.name for _, digits in found.values() for a in digits]
    single = [a.name for a in axes if value_of(a.size) == 1 and a.name not in used]  # an axis of one step need not be read at
    return found if sorted(used + single) == sorted(known) else None


def _aligned(program, source, read, axes, deep) -> dict | None:
    """Name → stage of the source with `axes` as its own, in their order, and of the sums before it that change with it; None where its data would be gathered.

    `deep`: whether sums before it may get digits as axes.
    """
    stages = {source.name: Stage(source.name, axes, source.reduce, source.combiner, source.body)}
    for own, (_, digits) in read.items():
        if len(digits) > 1 and not _spread(program, stages, source, own, digits, deep):
            return None
    mapping = {own: index for own, (index, _) in read.items()}
    return stages | {source.name: replace(stages[source.name], body=E.substitute(stages[source.name].body, mapping))}


def _spread(program, stages, stage, own, digits, deep) -> bool:
    """Whether `stages` now hold the sums whose results `stage` reads at its axis `own` alone, with `digits` in its place."""
    for name in {e.data[0] for e in stage.body.loads() if own in e.axes()} - program.constants:
        before, loads = program.stage(name), [(s, e) for s in program.stages for e in s.body.loads() if e.data[0] == name]
        load = loads[0][1]
        at = [d for d, index in enumerate(load.args) if own in index.axes()]
        alone = all(s is stage and repr(E.to_json(e)) == repr(E.to_json(load)) for s, e in loads) and load.data[1] is None
        if not deep or before is None or not before.combiner or not alone or len(at) != 1 or load.args[at[0]].op != "axis":
            return False  # digits of an axis of the data would be a gather
        d, inner = at[0], before.axes[at[0]].name
        if {a.name for a in digits} & {a.name for a in [*before.axes, *before.reduce]}:
            return False
        stages[name] = replace(before, axes=[*before.axes[:d], *digits, *before.axes[d + 1:]])
        if not _spread(program, stages, before, inner, digits, deep):
            return False
        stages[name] = replace(stages[name], body=E.substitute(stages[name].body, {inner: _joined(digits)}))
        stages[stage.name] = replace(stages[stage.name], body=_reread(stages[stage.name].body, name, [*load.args[:d], *digits, *load.args[d + 1:]]))
    return True


def _joined(digits):
    """The number that axes are the digits of."""
    value = digits[0]
    for a in digits[1:]:
        value = value * value_of(a.size) + a
    return value


def _reread(e, name, axes):
    if e.op == "load" and e.data[0] == name:
        return E.Expr("load", axes, e.dtype, e.data)
    return E.Expr(e.op, [_reread(a, name, axes) for a in e.args], e.dtype, e.data) if e.args else e


def _output(spec, factors):
    """The output with dims in two where `factors` says (0: as it is)."""
    shape, trees, parts, spatial = [], [], [], []
    for d, r in enumerate(factors):
        if d in spec.spatial:
            spatial += [len(shape), len(shape) + 1] if r else [len(shape)]
        shape += [spec.shape[d] // r, r] if r else [spec.shape[d]]
        trees += [spec.shape[d] // r, r] if r else [spec.trees[d]]
        parts += [((spec.trees[d], spec.shape[d]),), ()] if r else [((spec.trees[d], spec.shape[d]),)]
    return replace(spec, shape=tuple(shape), trees=trees, parts=tuple(parts), spatial=tuple(spatial))
