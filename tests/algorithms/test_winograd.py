"""Winograd rewrites are exact in exact arithmetic, apply where they should, and stay within the norm bound as float32 kernels."""

from math import prod

import numpy as np
import pytest

from convgen import algorithms
from convgen.algorithms import cook_toom, error_measure, winograd
from convgen.lang import access
from convgen.lang.program import Program
from convgen.ops import table
from tests.algorithms.sums import assert_equal_sums


@pytest.mark.parametrize("m, r", [*((m, 2) for m in range(2, 8)), *((m, 3) for m in range(2, 8)), (2, 4), (4, 4), (2, 5), (4, 5)])
def test_transforms_compute_a_correlation_exactly(m, r):
    a, g, b = cook_toom.transforms(m, r)
    rng = np.random.default_rng(0)
    taps, data = rng.integers(-9, 10, r), rng.integers(-9, 10, m + r - 1)
    products = [sum(x * int(t) for x, t in zip(row, taps)) * sum(x * int(d) for x, d in zip(line, data)) for row, line in zip(g, b)]
    outputs = [sum(x * p for x, p in zip(row, products)) for row in a]
    assert outputs == [sum(int(data[o + t]) * int(taps[t]) for t in range(r)) for o in range(m)]


_CASES = [
    ("conv2d", dict(N=2, C=16, O=5, H=9, W=11, kernel=3, padding=1, bias=True, activation="relu")),
    ("conv2d", dict(N=1, C=16, O=6, H=8, W=8, kernel=5, padding=((2, 1), (0, 2)))),
    ("conv2d", dict(N=1, C=16, O=3, H=7, W=13, kernel=3)),
    ("conv2d", dict(N=1, C=16, O=3, H=8, W=8, kernel=3, padding=2, padding_mode="reflect")),
    ("conv2d", dict(N=1, C=16, O=3, H=8, W=8, kernel=3, padding=2, padding_mode="circular")),
    ("conv1d", dict(N=2, C=16, O=6, L=17, kernel=3, padding=1, residual=True, bn=True, gate=True)),
    ("conv2d", dict(N=2, C=16, O=3, H=14, W=14, kernel=3, padding=1)),
    ("conv2d", dict(N=1, C=16, O=3, H=6, W=12, kernel=3, padding=1)),
]


@pytest.mark.parametrize("name, case", _CASES, ids=str)
def test_rewritten_sums_equal_the_direct_one(name, case):
    w = table.get(name)(**case)
    variants = algorithms.variants(w.program)
    assert {"winograd2", "winograd4", "direct"} <= set(variants)
    assert_equal_sums(w.program, variants.values())


@pytest.mark.parametrize("outputs, others", [((14, 14), [(7, 2), (7, 4)]), ((7, 7), [(4, 2)]), ((28, 28), [(7, 4)]), ((40, 40), [(5, 5)]), ((9, 9), [(3, 3), (5, 3)]), ((24, 24), []), ((12,), [(3,)])])
def test_tiles_of_other_shapes_where_they_fit_better(outputs, others):
    """Worked out by hand: on 14x14, for example, squares of 4 multiply 36 points 4x4 times, 7x2 as many 2x7 times and 7x4 54 points 2x4 times."""
    assert winograd.tiles(outputs, 3) == [(m,) * len(outputs) for m in (4, 2, 6)] + others


@pytest.mark.parametrize("outputs, others", [((56, 56), [(7, 7)]), ((9, 9), [(3, 3)]), ((40, 40), [])])
def test_tiles_of_other_shapes_for_two_taps(outputs, others):
    """Worked out by hand: on 56x56 squares of 4 multiply 25 points 14x14 times, squares of 7 multiply 64 points 8x8 times."""
    assert winograd.tiles(outputs, 2) == [(m, m) for m in (4, 2, 6)] + others


@pytest.mark.parametrize("height", range(4, 60))
def test_offered_tiles_save_and_are_accurate(height):
    for outputs in ((height, height), (height, 14), (height,)):
        work = lambda tile: prod(m + 2 for m in tile) * prod(-(-n // m) for n, m in zip(outputs, tile))
        usual, others = winograd.tiles(outputs, 3)[:3], winograd.tiles(outputs, 3)[3:]
        assert len(others) <= 3
        for tile in others:
            assert all(work(tile) < work(u) for u in usual if prod(m + 2 for m in u) <= prod(m + 2 for m in tile))
            error = prod(float(error_measure.squared(m, cook_toom.POINTS[m + 1], 3)) ** 0.5 for m in tile)
            assert error <= float(error_measure.squared(6, cook_toom.POINTS[7], 3))


_LONG = [
    ("depthwise_conv2d", dict(N=1, C=3, H=14, W=13, kernel=13, padding=6)),
    ("depthwise_conv2d", dict(N=2, C=3, H=14, W=17, kernel=(9, 11), padding=((2, 1), (0, 3)), bias=True, activation="relu")),
    ("depthwise_conv2d", dict(N=1, C=3, H=6, W=40, kernel=(1, 31), padding=(0, 15))),
    ("depthwise_conv2d", dict(N=1, C=2, H=12, W=11, kernel=9, padding=4, padding_mode="circular")),
    ("dilated_reparam_conv2d", dict(N=1, C=3, H=14, W=13, kernel=13)),
    ("conv2d", dict(N=1, C=2, O=3, H=14, W=13, kernel=9)),
    ("conv1d", dict(N=1, C=2, O=3, L=30, kernel=12, padding=5)),
]


@pytest.mark.parametrize("name, case", _LONG, ids=str)
def test_long_windows_are_cut_into_blocks(name, case):
    w = table.get(name)(**case)
    found = {n: v for n, v in algorithms.variants(w.program).items() if n.endswith("_blocks")}
    assert "winograd4_blocks" in found
    assert_equal_sums(w.program, list(found.values()))


_MIXED = [
    ("depthwise_conv2d", dict(N=2, C=3, H=24, W=17, kernel=(21, 5), padding=((10, 9), (2, 0)), bias=True), ["winograd4x1_blocks", "winograd5x1_blocks"]),
    ("depthwise_conv2d", dict(N=1, C=3, H=9, W=28, kernel=(5, 27), padding=(2, 13), layout="channels_last"), ["winograd1x4_blocks"]),
    ("depthwise_conv2d", dict(N=1, C=2, H=28, W=12, kernel=(25, 3), padding=(12, 1), padding_mode="reflect"), ["winograd4x1_blocks"]),
    ("conv2d", dict(N=1, C=8, O=7, H=12, W=20, kernel=(2, 12), padding=(1, 6)), ["winograd1x4_blocks"]),
]


@pytest.mark.parametrize("name, case, offered", _MIXED, ids=str)
def test_a_short_window_beside_a_long_one_is_left_as_it_is(name, case, offered):
    w = table.get(name)(**case)
    found = {n: v for n, v in algorithms.variants(w.program).items() if n.startswith("winograd")}
    assert sorted(found) == offered and all(v.flops < w.flops for v in found.values())
    assert_equal_sums(w.program, list(found.values()))


@pytest.mark.parametrize("size, kernel, offered", [(28, 29, {4, 5}), (56, 31, {4}), (10, 9, {4, 5}), (14, 13, {4})])
def test_larger_blocks_are_offered_where_they_take_less_work(size, kernel, offered):
    w = table.get("depthwise_conv2d")(N=1, C=2, H=size, W=size, kernel=kernel, padding=kernel // 2)
    found = {n: v for n, v in algorithms.variants(w.program).items() if n.endswith("_blocks")}
    assert set(found) == {f"winograd{b}_blocks" for b in offered}
    assert_equal_sums(w.program, list(found.values()))


def test_blocks_save_two_thirds_of_the_work_of_a_large_kernel():
    w = table.get("depthwise_conv2d")(N=1, C=16, H=56, W=56, kernel=31, padding=15)
    assert algorithms.variants(w.program)["winograd4_blocks"].flops < w.flops / 3


_PHASES = [
    ("conv_transpose2d", dict(N=2, C=33, O=3, H=5, W=7, kernel=4, stride=2, padding=1, bias=True, activation="relu")),
    ("conv_transpose2d", dict(N=1, C=32, O=2, H=1, W=6, kernel=3, stride=2, padding=((1, 0), (0, 1)), output_padding=1, layout="channels_last")),
    ("conv_transpose2d", dict(N=1, C=32, O=2, H=7, W=3, kernel=(6, 4), stride=(3, 2), padding=((1, 2), (3, 0)), residual=True)),
    ("conv_transpose2d", dict(N=1, C=32, O=2, H=6, W=7, kernel=4, stride=2, padding=((5, 4), (4, 5)))),
    ("conv_transpose2d", dict(N=1, C=32, O=2, H=6, W=7, kernel=(4, 2), stride=2, padding=((1, 1), (0, 0)))),
    ("conv_transpose2d", dict(N=1, C=32, O=2, H=6, W=7, kernel=3, padding=1)),
    ("conv_transpose1d", dict(N=2, C=32, O=3, L=9, kernel=16, stride=8, padding=4)),
    ("conv_transpose1d", dict(N=1, C=32, O=3, L=9, kernel=9, stride=2, padding=4)),
]


@pytest.mark.parametrize("name, case", _PHASES, ids=str)
def test_phases_of_transposed_convolutions_are_transformed_like_other_sums(name, case):
    w = table.get(name)(**case)
    found = {n: v for n, v in algorithms.variants(w.program).items() if n.startswith("winograd")}
    assert found and all(n.endswith("_phases") and algorithms.oracle(n) == "N" for n in found)
    assert_equal_sums(w.program, found.values())


@pytest.mark.parametrize("width, sizes", [(56, {4, 2}), (9, {3}), (11, {4, 2}), (7, {4, 2})])
def test_tiles_of_phases_divide_the_rows_where_some_do(width, sizes):
    w = table.get("conv_transpose2d")(N=1, C=32, O=4, H=width, W=width, kernel=4, stride=2, padding=1)
    assert {n for n in algorithms.variants(w.program) if n.startswith("winograd")} == {f"winograd{m}_phases" for m in sizes}


@pytest.mark.parametrize("case, copies", [
    (dict(kernel=4, stride=2, padding=0), [[], []]),  # all phases read the same data
    (dict(kernel=4, stride=2, padding=1), [["p_phase"], ["p_phase", "q_phase"]]),
    (dict(kernel=6, stride=3, padding=1), [["p_shift"], ["p_shift", "q_shift"]]),  # two of three phases do
], ids=str)
def test_phases_share_transformed_data_where_they_read_the_same(case, copies):
    w = table.get("conv_transpose2d")(N=1, C=32, O=4, H=9, W=12, **case)
    program = algorithms.variants(w.program)["winograd2_phases"]
    axes = [program.stage(f"sum_split_data_{p}").axes for p in "pq"]
    assert [[a.name for a in found if a.name.endswith(("_phase", "_shift"))] for found in axes] == copies
    assert all(a.size.value == 2 for found in axes for a in found if a.name.endswith(("_phase", "_shift")))


@pytest.mark.parametrize("name, case", [
    ("conv2d", dict(N=1, C=16, O=4, H=9, W=9, kernel=3, stride=2)),
    ("conv_transpose2d", dict(N=1, C=32, O=4, H=9, W=9, kernel=4, stride=3, dilation=2)),
    ("conv_transpose2d", dict(N=1, C=64, O=4, H=9, W=9, kernel=4, stride=2, groups=2)),
    ("conv_transpose2d", dict(N=1, C=16, O=4, H=9, W=9, kernel=4, stride=2)),
    ("conv_transpose2d", dict(N=1, C=32, O=4, H=9, W=9, kernel=2, stride=2)),
    ("conv_transpose2d", dict(N=1, C=32, O=4, H=9, W=9, kernel=20, stride=2)),
    ("conv_transpose3d", dict(N=1, C=32, O=4, D=3, H=5, W=5, kernel=4, stride=2)),
    ("conv2d", dict(N=1, C=16, O=4, H=9, W=9, kernel=3, dilation=2)),
    ("conv2d", dict(N=1, C=32, O=4, H=9, W=9, kernel=3, groups=2)),
    ("conv2d", dict(N=1, C=3, O=4, H=9, W=9, kernel=3)),
    ("conv2d", dict(N=1, C=16, O=4, H=9, W=9, kernel=(3, 5))),
    ("conv2d", dict(N=1, C=16, O=4, H=9, W=9, kernel=1)),
    ("conv3d", dict(N=1, C=16, O=4, D=5, H=5, W=5, kernel=3)),
    ("depthwise_conv2d", dict(N=1, C=16, H=9, W=9, kernel=3)),
    ("depthwise_conv2d", dict(N=1, C=16, H=19, W=19, kernel=(7, 11))),
    ("depthwise_conv2d", dict(N=1, C=16, H=29, W=29, kernel=13, stride=2)),
    ("involution2d", dict(N=1, C=16, G=1, H=9, W=9, kernel=3, padding=1)),
    ("condconv2d", dict(N=1, C=16, O=16, E=2, H=9, W=9, kernel=3)),
], ids=str)
def test_left_alone_where_it_does_not_apply(name, case):
    assert not any(a.startswith("winograd") for a in algorithms.variants(table.get(name)(**case).program))


def test_the_kernel_transform_runs_when_bound_and_the_work_falls():
    w = table.get("conv2d")(N=1, C=64, O=64, H=56, W=56, kernel=3, padding=1)
    program = access.specialised(algorithms.variants(w.program)["winograd4"])
    assert [s.name for s in program.bind_stages] == ["sum_kernel_p", "sum_kernel_q"]
    assert program.flops < w.flops / 2.5
    assert algorithms.oracle("winograd4") == "N" and algorithms.oracle("direct") == algorithms.oracle("phases") == "EF"


def test_a_rewritten_program_survives_json():
    w = table.get("conv2d")(N=1, C=16, O=3, H=8, W=8, kernel=3)
    program = algorithms.variants(w.program)["winograd2"]
    again = Program.from_json(program.to_json())
    tensors = w.program.sample(0)
    np.testing.assert_array_equal(again.reference(tensors), program.reference(tensors))
