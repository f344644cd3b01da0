"""Intervals and simplification of index expressions, against exhaustive evaluation."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from convgen.lang import expr as E
from convgen.lang.oracle import VALUE
from convgen.lang.ranges import interval, simplify, whole
from convgen.lang.size import Size

EXTENTS = {"a": 3, "b": 4, "c": 1}
RANGES = whole(EXTENTS)
AXES = [E.Axis(name, Size(n, n, [])) for name, n in EXTENTS.items()]


def evaluated(e, at):
    if e.op == "axis":
        return at[e.data]
    if not e.args:
        return E.constant(e)
    return int(VALUE[e.op](*(evaluated(x, at) for x in e.args)))


@st.composite
def indices(draw, depth=4):
    if depth == 0 or draw(st.integers(0, 3)) == 0:
        value = draw(st.integers(-3, 5))
        return draw(st.sampled_from([*AXES, E.lift(value), E.lift(Size("S", value, []))]))
    op = draw(st.sampled_from(["+", "-", "*", "//", "%", "min", "max", "neg", "abs"]))
    left = draw(indices(depth - 1))
    if op in ("neg", "abs"):
        return E.unary(op, left)
    if op in ("//", "%"):
        return E.binary(op, left, draw(st.sampled_from([1, 2, 3, 7])))
    return E.binary(op, left, draw(indices(depth - 1)))


@settings(max_examples=150)
@given(indices())
def test_interval_holds_and_simplification_changes_nothing(e):
    lo, hi = interval(e, RANGES)
    simple = simplify(e, EXTENTS)
    assert len(list(simple.walk())) <= len(list(e.walk()))
    for point in itertools.product(*(range(n) for n in EXTENTS.values())):
        at = dict(zip(EXTENTS, point))
        value = evaluated(e, at)
        assert lo <= value <= hi and evaluated(simple, at) == value


def test_group_maps_of_one_group_vanish():
    o, c = E.Axis("o", Size(8, 8, [])), E.Axis("c", Size(4, 4, []))
    mapped = o // Size("outputs", 8, []) * Size("inputs", 4, []) + c
    assert simplify(mapped, {"o": 8, "c": 4}) is c
    assert simplify(mapped, {"o": 16, "c": 4}).axes() == ["o", "c"]


def test_data_has_no_interval_until_it_is_clamped():
    load = E.Tensor("t", [4])[AXES[0]]
    assert interval(load * 2.0, RANGES) == (-np.inf, np.inf)
    clamped = E.to_int(E.binary("min", E.binary("max", E.unary("floor", load), 0.0), 6.0))
    assert interval(clamped, RANGES) == (0, 6) and interval(E.unary("sigmoid", load), RANGES) == (0, 1)
