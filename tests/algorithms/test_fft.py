"""Fourier rewrites are exact up to their constants, apply where they should and for the work that they claim."""

import numpy as np
import pytest

from convgen import algorithms, schedules
from convgen.algorithms import fft
from convgen.lang import access
from convgen.lang.program import Program
from convgen.ops import table
from tests.algorithms.sums import assert_equal_sums
from tests.emit.kernels import target

NAMES = {f"fft{n}" for n in fft.POINTS}
_CASES = [
    ("depthwise_conv1d", dict(N=2, C=3, L=700, K=300, padding=((299, 0),), bias=True, activation="relu")),  # causal, one block where a tile holds it
    ("depthwise_conv1d", dict(N=1, C=2, L=1100, K=1024, padding=((1023, 0),))),  # blocks that begin with the data
    ("depthwise_conv1d", dict(N=1, C=2, L=900, K=1025, padding=512)),
    ("depthwise_conv1d", dict(N=1, C=2, M=1, L=640, K=129)),  # no padding, a block as long as half a tile and one
    ("depthwise_conv1d", dict(N=1, C=2, L=300, K=200, padding=100, padding_mode="circular")),
    ("depthwise_conv1d", dict(N=1, C=2, L=300, K=700, padding=((900, 3),), padding_mode="replicate")),
    ("depthwise_conv1d", dict(N=1, C=2, L=130, K=1500, padding=((1600, 20),))),  # outputs that meet nothing but padding
    ("depthwise_conv2d", dict(N=1, C=2, H=3, W=290, kernel=(1, 260), padding=((0, 0), (130, 129)), residual=True)),
    ("conv1d", dict(N=2, C=2, O=3, L=400, kernel=256, padding=5, gate=True)),
    ("conv1d", dict(N=1, C=4, O=4, L=400, kernel=150, groups=4)),
]


@pytest.mark.parametrize("name, case", _CASES, ids=str)
def test_rewritten_sums_equal_the_direct_one(name, case):
    w = table.get(name)(**case)
    variants = algorithms.variants(w.program)
    assert set(variants) >= (NAMES if w.dims.get("K", w.dims.get("KW")) > 150 else {"fft256"})
    assert_equal_sums(w.program, [Program.from_json(variants[algorithm].to_json()) for algorithm in NAMES & set(variants)])


@pytest.mark.parametrize("name, case", [
    ("depthwise_conv1d", dict(N=1, C=2, L=400, K=127)),
    ("depthwise_conv1d", dict(N=1, C=2, L=400, K=130, stride=2)),
    ("depthwise_conv1d", dict(N=1, C=2, L=400, K=130, dilation=2)),
    ("depthwise_conv1d", dict(N=1, C=2, M=2, L=400, K=130)),
    ("depthwise_conv1d", dict(N=1, C=2, L=400, K=130, padding=60, padding_mode="reflect")),
    ("depthwise_conv2d", dict(N=1, C=2, H=140, W=140, kernel=129)),
    ("dynamic_conv1d", dict(N=1, C=2, HEADS=2, L=300, K=200)),
], ids=str)
def test_left_alone_where_it_does_not_apply(name, case):
    assert not NAMES & set(algorithms.variants(table.get(name)(**case).program))


def test_the_spectrum_is_made_when_bound_and_the_work_no_longer_grows_with_the_window():
    works = {}
    for k in (1024, 4096):
        w = table.get("depthwise_conv1d")(N=1, C=64, L=4096, K=k, padding=((k - 1, 0),))
        program = access.specialised(algorithms.variants(w.program)["fft1024"])
        works[k] = program.flops
        names = [s.name for s in program.bind_stages]
        assert names == ["sum_real", "sum_complex", "sum_kernel1", "sum_kernel2"]
        spectrum = program.stage("sum_kernel2")
        assert np.prod(spectrum.shape) < 2.1 * 64 * k
        assert program.flops < w.flops / (2.5 if k == 1024 else 9)
    assert works[4096] < 1.25 * works[1024]
    assert algorithms.oracle("fft256") == "N"


def test_tiles_of_padding_are_not_transformed():
    w = table.get("depthwise_conv1d")(N=1, C=2, L=2048, K=2048, padding=((2047, 0),))
    program = access.specialised(algorithms.variants(w.program)["fft256"])
    points, data = program.stage("sum_points"), program.stage("sum_data2")
    assert access.extents(points)["lo_tile"] == access.extents(data)["lo_grid"] == 16 and access.extents(points)["k_block"] == 16


def test_long_windows_take_it_untuned_and_short_ones_do_not():
    machine = target("x86:avx512")
    for k, taken in ((256, False), (2048, True)):
        w = table.get("depthwise_conv1d")(N=1, C=16, L=2048, K=k, padding=((k - 1, 0),))
        assert (schedules.space(w.description, machine).default()["algorithm"] in NAMES) == taken
