"""The phase split computes the same sums, for every combination that it claims, and leaves the others alone."""

import itertools

import numpy as np
import pytest

from convgen import algorithms
from convgen.lang import access
from convgen.ops import table
from tests.algorithms.sums import assert_equal_sums

_CASES = [dict(kernel=k, stride=s, padding=p, dilation=d, output_padding=e) for k, s, p, d, e in itertools.product((1, 2, 3, 5), (1, 2, 3), (0, 1), (1, 2, 3), (0, 1))
          if e < max(s, d)]  # PyTorch refuses other output_padding, too


@pytest.mark.parametrize("case", _CASES, ids=lambda c: "-".join(f"{k}{v}" for k, v in c.items()))
def test_the_split_sum_equals_the_conditional_sum(case):
    w = table.get("conv_transpose1d")(N=2, C=3, O=5, L=7, **case)
    variants = algorithms.variants(w.program)
    applies = np.gcd(case["dilation"], case["stride"]) == 1
    assert ("phases" in variants) == applies
    assert_equal_sums(w.program, variants.values())


@pytest.mark.parametrize("case", [dict(groups=2, bias=True, activation="relu"), dict(residual=True), dict(groups=2, bias=True, bn=True), dict(groups=2, padding=((0, 1), (1, 0)))], ids=str)
def test_groups_epilogues_and_uneven_padding(case):
    w = table.get("conv_transpose2d")(N=2, C=4, O=6, H=5, W=6, kernel=(3, 4), stride=(2, 3), output_padding=(1, 0), **case)
    tensors = w.program.sample(1)
    split = algorithms.variants(w.program)["phases"]
    np.testing.assert_allclose(split.reference(tensors), w.program.reference(tensors), rtol=0, atol=1e-12)


def test_the_work_falls_by_the_strides():
    w = table.get("conv_transpose2d")(N=1, C=16, O=16, H=8, W=8, kernel=4, stride=2, padding=1)
    split = access.specialised(algorithms.variants(w.program)["phases"])
    assert [s.name for s in split.bind_stages] == []  # 4 taps divide into 2 phases: nothing to fill
    inner = split.stages[0]
    assert access.extents(inner)["kh"] == access.extents(inner)["kw"] == 2
    assert access.roles(inner).window == ["kh", "kw"] and access.roles(inner).channel == ["c"]
    assert "p_phase" in access.roles(inner).plain


def test_kernels_that_do_not_divide_are_filled_when_bound():
    w = table.get("conv_transpose2d")(N=1, C=4, O=4, H=8, W=8, kernel=3, stride=2)
    split = algorithms.variants(w.program)["phases"]
    assert [s.name for s in split.bind_stages] == ["sum_phases"]


def test_operators_without_such_a_condition_are_left_alone():
    for op in table.TABLE:
        for w in op.workloads()[:1]:
            assert ("phases" in algorithms.variants(w.program)) == ("transpose" in op.name)
