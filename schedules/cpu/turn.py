"""Copies of whole rows of memory in vectors: straight, or turned into vectors across the rows and back by transposes in registers.

Straight rows are covered by vectors of which the last overlaps the one before, for few rows are whole vectors long. A copy whose lanes run along another dim
than memory's innermost would be loaded or stored number by number. Instead, blocks of four columns by all lanes are turned: quarter vectors of four rows
side by side make one vector, and two rounds of interleaving within quarters transpose the 4 x 4 blocks of four such vectors (the classic
_MM_TRANSPOSE4_PS, once per quarter). The last block of a row may overlap the one before it.

Along a row whose phases take turns (an upsampled plane), position w is step w // phases of phase w % phases: turned blocks pick their vectors so, and
straight rows interleave a vector of every phase.
"""

from __future__ import annotations

from tvm import ir, tirx

from convgen.emit.statements import around, rebuilt

from . import spaced
from .rows import Rows, binding, conjuncts, sequence, shuffle

_QUARTER = 4  # floats that interleaving instructions keep together
_MARK = "turned"  # annotation of a row's loop, with the lanes


def mark(sch, b, lanes: int, widest: int) -> bool:
    """Whether a copy or store can be done by whole rows where it now is; if so its row and lane loops move innermost, `rewrite` will do it, and its loops need nothing more.

    `b`: the lowering's Block. `lanes`: of the vectors around it; `widest`: of the target's vectors.
    """
    if b.turn is None:
        return False
    if b.turn.step > 1:
        return spaced.mark(sch, sch.get_sblock(b.name), b.turn, len(b.loops))
    if b.kind == "copy":
        lanes = next((w for w in (lanes, lanes // 2) if b.lanes % w == 0 or b.lanes == 1), 0)
    if lanes % _QUARTER or not min(8, widest) <= lanes <= 16:
        return False
    turn, parts = b.turn, _parts(b)
    loops = sch.get_loops(sch.get_sblock(b.name))[-len(parts):]
    row, phase = loops[parts.index("row")], [loops[parts.index("phase")]] if turn.phases > 1 else []
    if any(sch.get(loop).extent != turn.phases for loop in phase):
        return False
    if "lanes" not in parts:
        width, steps = sch.get(row).extent, turn.width // turn.phases
        whole = width == steps or phase and isinstance(width, tirx.IntImm) and int(width) % lanes == steps % lanes == 0
        if whole:
            sch.annotate(row, _MARK, lanes)
        return bool(whole)
    lane = loops[parts.index("lanes")]
    width, rows = (sch.get(loop).extent for loop in (row, lane))
    if not isinstance(width, tirx.IntImm) or not isinstance(rows, tirx.IntImm) or int(rows) % lanes or turn.padded and int(width) != turn.width:
        return False
    if (turn.end - turn.begin if turn.padded else int(width) * turn.phases) < _QUARTER:
        return False
    others = [loop for loop, part in zip(loops, parts) if part is None]
    if int(rows) > lanes:
        outer, lane = sch.split(lane, [None, lanes])
        others.append(outer)
    sch.reorder(*others, row, *phase, lane)
    sch.annotate(row, _MARK, lanes)
    return True


def _parts(b) -> list:
    """For each of the block's loops "row", "phase", "lanes" or None."""
    if b.kind == "copy":
        last = ["row", "lanes"] if b.loops[-1][1] == "lanes" else ["row"]
        return [None] * (len(b.loops) - len(last)) + last
    last = ["row"] if b.turn.phases == 1 else ["row", "phase"]
    return ["lanes" if axis == b.vec else None for axis, _ in b.loops[:-len(last)]] + last


def rewrite(module, turns: dict):
    """The module with the marked copies of the blocks named in `turns` (name → Turn) turned."""
    f = module["main"]
    return type(module)({"main": f.with_body(_walk(f.body, turns))}) if turns else module


def _walk(s, turns):
    if isinstance(s, tirx.For) and (_MARK in s.annotations or spaced.MARK in s.annotations):
        inner = [s.body]
        while isinstance(inner[-1], tirx.For):
            inner.append(inner[-1].body)
        *inner, realize = inner
        moving = {s.loop_var, *(loop.loop_var for loop in inner)}
        if moving & set(tirx.analysis.undefined_vars(realize.predicate)):  # rows that end early
            return tirx.For(s.loop_var, s.min, s.extent, s.kind, s.body)
        make = _spaced_row if spaced.MARK in s.annotations else _whole_row
        return make([s, *inner], realize, turns[realize.block.name_hint], int(s.annotations.get(_MARK, 0)))
    return rebuilt(s, lambda inner: _walk(inner, turns))


def _whole_row(loops, realize, turn, lanes):
    """The loops (row, phases if any, lanes if any) shrink to one step, in which the block does the whole row."""
    row, lane = loops[0], loops[-1] if len(loops) > 1 + (turn.phases > 1) else None
    width = int(row.extent) * turn.phases
    b, (value, inside) = realize.block, _tests(realize, [row])
    source, target = Rows(value, turn.source, turn.phases), Rows(b.body, turn.target, turn.phases)
    begin, end = (max(turn.begin, 0), min(turn.end, width)) if turn.padded else (0, width)
    zero = lambda n: tirx.Broadcast(tirx.const(0.0, "float32"), n) if n > 1 else tirx.const(0.0, "float32")
    if lane is not None:
        zeros = lambda first, last: _each(first, last, lambda w: target.store(zero(lanes), w, 0, lanes))
        data = _turned(source, target, begin, end, lanes)
    else:
        zeros = lambda first, last: _straight(first, last, lanes, 0, lambda w, n: target.store(zero(n), w, 0, n))
    if lane is None and turn.phases > 1:
        data = _interleaved(source, target, width // turn.phases, turn.phases, lanes)
    elif lane is None:
        block = lanes if source.lane is not None else 0  # the source has blocks of lanes
        data = _straight(begin, end, lanes, block, lambda w, n: target.store(source.load(w // block if block else w, w % block if block else 0, n), w, 0, n))
    body = sequence([*zeros(0, begin), *data, *zeros(end, width)])
    if inside:
        body = tirx.IfThenElse(tirx.all(*inside), body, sequence(zeros(0, width)))
    wide = -(-width // (lanes * turn.phases)) * turn.phases if lane is None and source.lane is not None else width
    reads = [source.region(r, wide, lanes) if r.source.same_as(source.buffer) else r for r in b.reads]
    writes = [target.region(r, width, lanes) for r in b.writes]
    return _once(loops, realize, reads, writes, body)


def _spaced_row(loops, realize, turn, _):
    """The same for the loops (row, taps if any, lanes) of a spaced row."""
    b, (value, inside) = realize.block, _tests(realize, loops)
    target = Rows(b.body, turn.target, 1)
    body, empty = spaced.row(Rows(value, turn.source, 1), target, turn)
    if inside:
        body = tirx.IfThenElse(tirx.all(*inside), body, empty)
    extents = {turn.target[0]: turn.blocks, turn.target[1]: turn.lanes} | ({turn.taps.dim: turn.taps.count} if turn.taps else {})
    writes = [tirx.BufferRegion(target.buffer, [ir.Range.from_min_extent(at.min, extents.get(d, at.extent)) for d, at in enumerate(r.region)]) for r in b.writes]
    return _once(loops, realize, b.reads, writes, body)


def _tests(realize, loops):
    """(the element that a copy reads, the tests that it is data which do not depend on these loops): a row is padded at its ends, or wholly."""
    value, inside = realize.block.body.value, []
    moving = {v.var for v, at in zip(realize.block.iter_vars, realize.iter_values) if {loop.loop_var for loop in loops} & set(tirx.analysis.undefined_vars(at))}
    while isinstance(value, ir.Call):  # if_then_else(inside, element, 0)
        inside += [c for c in conjuncts(value.args[0]) if not moving & set(tirx.analysis.undefined_vars(c))]
        value = value.args[1]
    return value, inside


def _once(loops, realize, reads, writes, body):
    """One step of these loops around a block of that body."""
    once = lambda loop, inner: tirx.For(loop.loop_var, loop.min, tirx.const(1, "int32"), tirx.ForKind.SERIAL, inner)
    done = around(realize, reads=reads, writes=writes, body=body, init=None)
    for loop in reversed(loops):
        done = once(loop, done)
    return done


def _each(first, last, make):
    """Statements for steps first to last; many steps as a loop."""
    if last - first <= 8:
        return [make(i) for i in range(first, last)]
    step = tirx.Var("step", "int32")
    return [tirx.For(step, tirx.const(0, "int32"), tirx.const(last - first, "int32"), tirx.ForKind.SERIAL, make(step + first))]


def _straight(first, last, lanes, block, make):
    """`make(position, width)` for vectors that cover a row, the last of them overlapping the one before; none crosses a multiple of `block`."""
    if block:
        return [x for b in range(first, last, block) for x in _straight(b, min(b + block, last), lanes, 0, make)]
    if last <= first:
        return []
    width = min(lanes, 1 << (last - first).bit_length() - 1)
    rest = [make(last - width, width)] if (last - first) % width else []
    return _each(0, (last - first) // width, lambda i: make(i * width + first, width)) + rest


def _interleaved(source, target, steps, phases, lanes):
    """Rows in which the vectors of all phases take turns, block by block of `lanes` steps."""
    def block(b, count):
        made, bind = binding()
        v = [bind(source.load(b * phases + i, 0, lanes)) for i in range(phases)]
        store = lambda first, n: target.store(shuffle(v, [w % phases * lanes + w // phases for w in range(first, first + n)]), b * (lanes * phases) + first, 0, n)
        return sequence([*made, *_cover(count * phases, lanes, store)])
    return _each(0, steps // lanes, lambda b: block(b, lanes)) + ([block(steps // lanes, steps % lanes)] if steps % lanes else [])


def _cover(count, lanes, make):
    """`make(position, width)` for vectors that cover `count` positions from the first on, the last of them overlapping the one before."""
    width = min(lanes, 1 << count.bit_length() - 1)
    return [make(i, width) for i in [*range(0, count - width + 1, width), *([count - width] if count % width else [])]]


def _turned(source, target, begin, end, lanes):
    block = lambda at: sequence(_block(source, target, at, lanes))
    rest = [block(end - _QUARTER)] if (end - begin) % _QUARTER else []
    return _each(0, (end - begin) // _QUARTER, lambda g: block(g * _QUARTER + begin)) + rest


def _block(source, target, at, lanes):
    """Four positions from `at` on."""
    quarters, (made, bind) = range(lanes // _QUARTER), binding()
    if target.lane > target.row:
        v = [bind(shuffle([source.load(at, _QUARTER * k + i, _QUARTER) for k in quarters], range(lanes))) for i in range(_QUARTER)]
        for j, vector in enumerate(_quarters_turned(v, lanes, bind)):
            made.append(target.store(vector, at + j, 0, lanes))
    else:
        v = [bind(source.load(at + j, 0, lanes)) for j in range(_QUARTER)]
        for i, vector in enumerate(_quarters_turned(v, lanes, bind)):
            for k in quarters:
                made.append(target.store(shuffle([vector], range(_QUARTER * k, _QUARTER * (k + 1))), at, _QUARTER * k + i, _QUARTER))
    return made


def _quarters_turned(v, lanes, bind):
    """Four vectors with the 4 x 4 block in each of their quarters transposed."""
    def mixed(a, b, picked):  # per quarter, elements of a (0 to 3) and of b (4 to 7)
        return shuffle([a, b], [q + (i if i < _QUARTER else i - _QUARTER + lanes) for q in range(0, lanes, _QUARTER) for i in picked])
    low, high = (0, 4, 1, 5), (2, 6, 3, 7)
    t = [bind(mixed(v[a], v[b], half)) for half in (low, high) for a, b in ((0, 1), (2, 3))]
    return [bind(mixed(t[a], t[a + 1], half)) for a in (0, 2) for half in ((0, 1, 4, 5), (2, 3, 6, 7))]
