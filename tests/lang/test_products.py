"""Sums of products by strided views and matrices: the same integers as on the full grid, whatever is cut, split or summed along a diagonal."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convgen.lang import parse, products
from convgen.lang.carry import Magnitude, Rounding, most
from convgen.lang.oracle import evaluate
from convgen.lang.products import Operand, sum_of_products
from tests.ops.cases import OPERATORS, repeatable, workloads


def on_the_full_grid(operands, out, extents):
    order = list(extents)
    grid = dict(zip(order, np.indices([extents[n] for n in order])))
    value = math.prod(o.array[tuple(sum((m * grid[n] for n, m in terms.items()), start) for terms, start in o.dims)] for o in operands)
    summed = value.sum(axis=tuple(d for d, n in enumerate(order) if n not in out))
    return summed.transpose([[n for n in order if n in out].index(n) for n in out])


@st.composite
def sums(draw):
    """Windows of data times a kernel, and sometimes a mask: axes n and c are shared or not, steps may be negative, and a tap may stand alone."""
    small = st.integers(1, 3)
    extents = {"n": draw(small), "c": draw(small), "o": draw(st.sampled_from((1, 9))), "p": draw(st.integers(1, 6)), "q": draw(small), "r": draw(st.integers(1, 9)), "s": draw(small)}
    rng = np.random.default_rng(draw(st.integers(0, 99)))

    def operand(*dims):
        placed = []
        for axes in dims:
            terms = {n: draw(st.sampled_from((1, 1, 2, -1))) for n in axes}
            ends = [m * (extents[n] - 1) for n, m in terms.items()]
            before, after = draw(st.integers(0, 1)), draw(st.integers(0, 1))
            placed.append((terms, before - sum(min(0, e) for e in ends), before + sum(map(abs, ends)) + after + 1))
        return Operand(rng.integers(-9, 10, [size for *_, size in placed]).astype(np.float64), tuple((terms, start) for terms, start, _ in placed))

    data = operand("n", "c", "pr", "qs")
    kernel = operand(*draw(st.sampled_from((["c", "r", "s"], ["o", "c", "r", "s"], ["c", "r"], ["n", "r", "s", "c"], ["c", "r", "s", "p", "q"], ["o", "s"], ["r", "o", "p"]))))
    operands = [data, kernel] + ([operand(*draw(st.sampled_from((["n", "p", "r"], ["q"], ["c", "s"]))))] if draw(st.booleans()) else [])
    seen = {n for o in operands for n in o.axes}
    out = draw(st.permutations([n for n in "ncopq" if n in seen and (n != "c" or draw(st.booleans()))]))
    return operands, out, {n: e for n, e in extents.items() if n in seen}


@pytest.mark.parametrize("limits", ({}, {"_BLOCK": 16, "_FEW": 2, "_LONG": 4}, {"_BLOCK": 1, "_FEW": 3, "_LONG": 2}))
def test_equals_the_full_grid(limits):
    @settings(max_examples=30, deadline=None, derandomize=True)
    @given(sums())
    def check(case):
        operands, out, extents = case
        found = sum_of_products(operands, out, extents)
        assert np.array_equal(found, on_the_full_grid(operands, out, extents))

    with pytest.MonkeyPatch.context() as patch:
        for name, value in limits.items():
            patch.setattr(products, name, value)
        check()


def test_a_product_of_three_that_is_too_large_is_not_formed(monkeypatch):
    monkeypatch.setattr(products, "_MOST", 10)
    x = products.plain(np.ones((3, 4)), ["a", "b"])
    assert sum_of_products([x, x, x], ["a"], {"a": 3, "b": 4}) is None and np.array_equal(sum_of_products([x, x], ["a"], {"a": 3, "b": 4}), [4.0] * 3)


SUMS = ("depthwise_conv2d:n2,c3,h9,w7,k7x5;padding=6,dilation=1x2:f32.f32.f32:nchw:bias", "depthwise_conv1d:n1,c2,l90,k67;padding=66_0:f32.f32.f32:ncl",
        "conv2d:n2,c3,o9,h7,w8,k3x3;stride=2x1,padding=1,padding_mode=reflect:f32.f32.f32:nchw", "involution2d:n1,c4,g2,h5,w6,k3x3;padding=1:f32.f32.f32:nchw")


@pytest.mark.parametrize("id", SUMS)
def test_the_oracle_gives_what_it_gives_tap_by_tap(id, monkeypatch):
    """Values and carried bounds alike, on the way through views and on the one without them; and none exceeds what is known in advance."""
    program = parse(id).program
    tensors = program.sample_integers(3)
    views = [evaluate(program, tensors, carry) for carry in (Magnitude(), Rounding())]
    monkeypatch.setattr("convgen.lang.oracle._Stage._windows", lambda *_: None)
    for carry, (value, carried, n) in zip((Magnitude(), Rounding()), views):
        expected = evaluate(program, tensors, carry)
        assert np.array_equal(value, expected[0]) and np.array_equal(carried, expected[1]) and n == expected[2]
    assert views[0][1].max() <= most(program, tensors) < math.inf


@pytest.mark.parametrize("name", [n for n in OPERATORS if n in ("deform_conv2d", "large_kernel_attention2d", "inverted_residual2d")])
def test_magnitudes_are_known_in_advance(name):
    @repeatable
    @given(workloads(OPERATORS[name]))
    def check(w):
        if w.program.exact and not w.program.integral:
            tensors = w.program.sample_integers(1)
            assert evaluate(w.program, tensors, Magnitude())[1].max() <= most(w.program, tensors)
    check()
