"""The measure of rounding errors: published values, invariance, the search tool's sets and measured errors."""

from fractions import Fraction as F

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convgen.algorithms import cook_toom, error_measure
from tests.tool import load


@pytest.fixture(scope="module")
def tool():
    return load("winograd_points")


def points(*magnitudes):
    return (F(0), *(sign * F(x) for x in magnitudes for sign in (1, -1)))


def test_values():
    """Computed by hand for F(2,3); the others are those of independent computations."""
    # A rows 1,1,1,0 and 0,1,-1,1; squared norms of G 1, 3/4, 3/4, 1 and of B 2, 2, 2, 2
    assert error_measure.squared(2, points(1), 3) == F(2 + F(3, 2) + F(3, 2) + F(3, 2) + F(3, 2) + 2, 6)
    for m, given_points, value in ((4, points("2/3", "3/2"), 4.76), (4, points(1, 2), 10.8), (4, points("5/6", "7/6"), 11.2), (6, points("1/2", 1, 2), 20.6),
                                   (6, points("3/5", 1, "7/6"), 147), (6, points(1, 2, 3), 964), (8, points("1/2", "3/4", "5/4", "5/2"), 133)):
        assert float(error_measure.squared(m, given_points, 3)) == pytest.approx(value, rel=5e-3)


def test_listed_points_are_at_least_as_good_as_simple_ones():
    for m, r in (*((m, 3) for m in range(2, 8)), (2, 5), (4, 5)):
        simple = [F(0), *(sign * F(i) for i in range(1, 5) for sign in (1, -1))][:m + r - 2]
        assert error_measure.squared(m, cook_toom.POINTS[m + r - 2], r) <= error_measure.squared(m, simple, r)


rationals = st.fractions(F(-3), F(3), max_denominator=6)


@settings(max_examples=25)
@given(st.lists(rationals, min_size=4, max_size=4, unique=True), st.sampled_from([(2, 4), (3, 3), (4, 2)]))
def test_any_points_give_a_correlation(chosen, tile):
    """`transforms` at any distinct points, judged by computing a correlation, and the tool's floating-point measure against the exact one."""
    m, r = tile
    a, g, b = cook_toom.transforms(m, r, chosen)
    kernel, data = [F(3 * i - 1) for i in range(r)], [F(i * i - 3) for i in range(m + r - 1)]
    transformed = [sum(x * y for x, y in zip(row, kernel)) * sum(x * y for x, y in zip(line, data)) for row, line in zip(g, b)]
    for o in range(m):
        assert sum(x * y for x, y in zip(a[o], transformed)) == sum(kernel[t] * data[o + t] for t in range(r))


def test_the_search(tool):
    for m, r, best in ((2, 3, {0, 1}), (4, 3, {0, F(2, 3), F(3, 2)}), (6, 3, {0, F(1, 2), 1, 2})):
        found = tool.snapped(m, r, tool.optimum(m, r), 6)
        assert {abs(p) for p in found} == best
        assert tool.approximate(m, [float(p) for p in found], r) == pytest.approx(float(error_measure.squared(m, found, r)))
    assert len(tool.snapped(2, 4, tool.optimum(2, 4), 3)) == 4  # one point without its opposite


def test_measured_errors_follow_the_measure(tool):
    """In two dimensions the relative error is proportional to E1^2 (by a factor that hardly depends on the points)."""
    sets = [(4, tool.PUBLISHED["NOVA"][4, 3]), (4, points("2/3", "3/2")), (6, points("1/2", 1, 2)), (6, tool.PUBLISHED["textbook"][6, 3])]
    factors = [tool.measured(m, p, 3, channels=16, tiles=32) / float(error_measure.squared(m, p, 3)) for m, p in sets]
    assert max(factors) < 1.6 * min(factors) and 7e-8 < np.median(factors) < 2.5e-7  # each sums in its own order, which depends on the processor


def test_the_table(tool, capsys):
    assert tool.main(["--tiles", "4,3", "--denominators", "3"]) == 0
    text = capsys.readouterr().out
    assert "| F(4,3) | in use | 0, 2/3, -2/3, 3/2, -3/2 | 4.76 |" in text and "NOVA | 0, 5/6, -5/6, 7/6, -7/6 | 11.2 |" in text and "textbook" in text
