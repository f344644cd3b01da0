"""Traced integers: arithmetic stays symbolic, decisions are recorded."""

import numpy as np
import pytest

from convgen.lang.size import Size, combine, tree_of, value_of
from convgen.runtime.sizes import evaluate


def sizes():
    guards = []
    return Size("H", 7, guards), Size("K", 3, guards), guards


def test_arithmetic_keeps_tree_and_value():
    h, k, guards = sizes()
    for made, value in ((h + k, 10), (h - k, 4), (2 * h, 14), (10 - h, 3), (h // k, 2), (15 // k, 5), (h % k, 1), (17 % h, 3), (-h, -7), (h + np.int64(2), 9)):
        assert made.value == value == evaluate(made.tree, {"H": 7, "K": 3})
    assert guards == []


def test_units_fold_so_that_hashes_agree():
    h, k, guards = sizes()
    assert (h + 0).tree == (0 + h).tree == (h * 1).tree == (1 * h).tree == (h // 1).tree == (h - 0).tree == "H"
    assert (Size(2, 2, guards) * Size(3, 3, guards)).tree == 6


@pytest.mark.parametrize("decide, fact", [
    (lambda h, k: h == 7, ["==", "H", 7]), (lambda h, k: h == 8, ["!=", "H", 8]), (lambda h, k: h < k, [">=", "H", "K"]), (lambda h, k: h > 5, [">", "H", 5]),
    (lambda h, k: h <= 6, [">", "H", 6]), (lambda h, k: k >= 9, ["<", "K", 9]), (lambda h, k: h != k, ["!=", "H", "K"]), (lambda h, k: int(h), ["==", "H", 7]),
    (lambda h, k: bool(h - 7), ["==", ["-", "H", 7], 0]), (lambda h, k: range(k), ["==", "K", 3]), (lambda h, k: max(h, k), ["<=", "K", "H"]),
])
def test_decisions_are_recorded_once(decide, fact):
    h, k, guards = sizes()
    decide(h, k), decide(h, k)
    assert guards == [fact] and evaluate(fact, {"H": 7, "K": 3})


def test_constants_need_no_guard_and_max_can_stay_symbolic():
    h, k, guards = sizes()
    assert int(Size(4, 4, guards)) == 4 and tree_of(5) == value_of(5) == 5
    larger = combine("max", h, k, guards)
    assert larger.tree == ["max", "H", "K"] and larger.value == 7 and guards == []
    with pytest.raises(TypeError):
        hash(h)
