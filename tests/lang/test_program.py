"""Descriptions: identity, structure, work, bounds, samples and the printed formula."""

import json

import numpy as np
import pytest

from convgen.errors import ArgumentError
from convgen.lang import Program, normal, operator, rows, uniform
from convgen.lang.carry import Magnitude
from convgen.lang.oracle import evaluate
from convgen.ops.conv import conv1d, conv2d, conv_transpose1d, conv_transpose2d
from convgen.ops.depthwise import depthwise_conv2d, dilated_reparam_conv2d, separable_block2d
from convgen.ops.dynamic import condconv2d, deform_conv2d, dynamic_conv1d, involution2d

CONV = dict(N=1, C=4, O=6, H=8, W=9, kernel=3)


def test_hash_is_of_what_is_computed():
    base = conv2d(**CONV).program.hash
    for other in (dict(N=7), dict(C=8, groups=2), dict(kernel=(5, 2)), dict(stride=2, padding=3, dilation=(1, 2)), dict(dtype="float16"), dict(layout="NHWC")):
        assert conv2d(**CONV | other).program.hash == base
    for other in (dict(bias=True), dict(activation="relu"), dict(padding_mode="reflect"), dict(residual=True)):
        assert conv2d(**CONV | other).program.hash != base
    assert dilated_reparam_conv2d(N=1, C=4, H=8, W=9, kernel=5).program.hash != dilated_reparam_conv2d(N=1, C=4, H=8, W=9, kernel=7).program.hash


def test_descriptions_of_an_unknown_format_are_refused():
    d = conv2d(**CONV).description
    assert Program.from_json(d).to_json() == d
    with pytest.raises(ValueError, match="format 99 is unknown"):
        Program.from_json(d | {"format": 99})


def test_stages_that_read_parameters_only_are_bound():
    w = dilated_reparam_conv2d(N=1, C=4, H=8, W=9, kernel=5)
    assert [s.name for s in w.program.bind_stages] == ["merged_kernel", "merged_bias"]
    assert [s.name for s in w.program.run_stages] == ["sum", "out"]
    assert [s.name for s in condconv2d(**CONV, E=2).program.run_stages] == ["kernel", "sum"]
    assert w.program.constants == {"merged_kernel", "merged_bias"} | {t.name for t in w.program.tensors if t.name != "x"}
    assert w.program.shape("x") == (1, 4, 8, 9) and w.program.shape("merged_kernel") == (4, 1, 5, 5)
    assert conv2d(**CONV).program.bind_stages == () and conv2d(**CONV).program.constants == {"weight"}


@pytest.mark.parametrize("w, exact", [
    (conv2d(**CONV), True), (conv2d(**CONV, activation="relu6", bias=True), True), (conv2d(**CONV, activation="hardswish"), False),
    (conv2d(**CONV, activation="gelu"), False), (condconv2d(**CONV, E=2), True), (deform_conv2d(**CONV), False),
    (dynamic_conv1d(N=1, C=4, HEADS=2, L=9, K=3), False), (dynamic_conv1d(N=1, C=4, HEADS=2, L=9, K=3, softmax=False), True),
])
def test_exact_means_that_integers_stay_integers(w, exact):
    assert w.program.exact is exact
    if not exact:
        with pytest.raises(ArgumentError, match="does not keep integers"):
            w.program.sample_integers()


@pytest.mark.parametrize("w, flops", [
    (conv2d(**CONV), 2 * 6 * 6 * 7 * 4 * 9),
    (conv2d(**CONV, bias=True, activation="relu"), 2 * 6 * 6 * 7 * 4 * 9 + 2 * 6 * 6 * 7),
    (conv2d(N=2, C=4, O=6, H=8, W=9, kernel=3, groups=2), 2 * 2 * 6 * 6 * 7 * 2 * 9),
    (depthwise_conv2d(N=1, C=4, H=8, W=8, kernel=7, padding=3), 2 * 4 * 64 * 49),
    (separable_block2d(**CONV, padding=1), 2 * 4 * 72 * 9 + 2 * 4 * 6 * 72),
    (involution2d(N=1, C=4, G=2, H=8, W=8, kernel=3, padding=1), 2 * 4 * 64 * 9),
    # every input meets every tap once, except where the crop of `padding` drops it
    (conv_transpose2d(N=1, C=4, O=6, H=8, W=9, kernel=2, stride=2), 2 * 4 * 6 * 72 * 4),
    (conv_transpose1d(N=1, C=1, O=1, L=10, K=4, stride=4, padding=0), 2 * 40),
])
def test_flops_are_the_work_of_a_call(w, flops):
    assert w.flops == flops


def test_merging_is_no_work_of_a_call_but_its_result_is_traffic():
    w = dilated_reparam_conv2d(N=1, C=4, H=8, W=9, kernel=5)
    assert w.flops == 2 * 4 * 72 * 25 + 4 * 72
    assert w.bytes == 4 * (4 * 72 + 4 * 72 + 4 * 25 + 4)
    assert conv2d(**CONV, dtype="float16").bytes == 2 * (4 * 72 + 6 * 4 * 9 + 6 * 42)


def test_bound_of_a_convolution_is_its_condition_sum():
    w = conv2d(**CONV, padding=1, groups=2)
    t = w.program.sample(0)
    y, condition, n = w.program.reference_with_bound(t)
    np.testing.assert_allclose(condition, w.reference(**{k: np.abs(v.astype(float)) for k, v in t.items()}), rtol=1e-14)
    assert n == 2 * 9 and (np.abs(y) <= condition).all()


def test_bound_notices_a_lost_tap_of_a_large_kernel():
    w = depthwise_conv2d(N=1, C=1, H=16, W=16, kernel=31, padding=15)
    t = w.program.sample(0)
    y, condition, n = w.program.reference_with_bound(t)
    t["weight"][0, 0, 15, 15] = 0
    error = np.abs(w.reference(**t) - y)
    assert (error > 10 * (2 * 4 * np.sqrt(n) * 2.0**-24 * condition + 2.0**-24 * np.abs(y))).mean() > 0.9


def test_bound_knows_that_coordinates_round():
    """A sample far from the origin is known less exactly; the bound grows by its distance, not by its square."""
    def relative(width):
        w = deform_conv2d(N=1, C=1, O=1, H=width, W=width, kernel=1)
        t = w.program.sample(0)
        _, condition, _ = w.program.reference_with_bound(t)
        return np.median(condition)
    assert 2 < relative(64) / relative(8) < 16


def test_magnitude_bounds_every_partial_sum():
    w = conv1d(N=1, C=2, O=1, L=4, K=2, bias=True, activation="relu")
    t = {"x": np.full((1, 2, 4), -3.0), "weight": np.array([[[1.0, -2], [2, 1]]]), "bias": np.array([-5.0])}
    y, largest, _ = evaluate(w.program, t, Magnitude())
    assert (y == 0).all() and (largest == 3 * 6 + 5).all()


def test_large_grids_are_evaluated_in_chunks(monkeypatch):
    w = deform_conv2d(N=2, C=2, O=3, H=5, W=4, kernel=3, mask=True)
    t = w.program.sample(0)
    whole = w.program.reference_with_bound(t)
    monkeypatch.setattr("convgen.lang.oracle._LIMIT", 20)
    for a, b in zip(whole, w.program.reference_with_bound(t)):
        np.testing.assert_allclose(a, b, rtol=1e-13)


def test_realistic_values_are_data_of_the_description():
    @operator(dims="N C")
    def declared(o):
        n, c = o.axes("N C")
        a, b = o.input("a", "N C", values=uniform(5, 6)), o.param("b", 2, "C", values=rows(normal(100, 1), uniform(-1, 0)))
        return a[n, c] + b[0, c] * b[1, c]
    program = Program.from_json(json.loads(json.dumps(declared(N=50, C=60).description)))
    t = program.sample(0)
    assert 5 <= t["a"].min() and t["a"].max() <= 6 and abs(t["b"][0].mean() - 100) < 1 and t["b"][1].max() <= 0
    assert t["a"].dtype == np.float32


def test_parameters_are_scaled_by_the_terms_they_meet():
    t = conv2d(N=1, C=64, O=64, H=4, W=4, kernel=3).program.sample(0)
    assert abs(t["weight"].std() * 24 - 1) < 0.05 and abs(t["x"].std() - 1) < 0.1


@pytest.mark.parametrize("limit", [2**24, 2**11, 2**8])
def test_integers_stay_dense_enough_to_test_something(limit):
    w = conv2d(N=1, C=256, O=2, H=6, W=6, kernel=3)
    t = w.program.sample_integers(0, limit)
    assert np.abs(t["x"]).max() == 4 and np.abs(t["weight"]).max() == 2
    assert np.count_nonzero(w.reference(**t)) > 8


def test_integers_give_up_on_constants_beyond_the_limit():
    with pytest.raises(ArgumentError, match="its constants alone give 6, and integers are exact below 5"):
        conv2d(**CONV, activation="relu6").program.sample_integers(0, 5)


@pytest.mark.parametrize("w, text", [
    (conv2d(**CONV, padding=1), "y[n, o, p, q] = sum_{c, kh, kw} weight[o, c, kh, kw] * x[n, o // (O // groups) * (C // groups) + c, "
                                "p * stride.0 + kh * dilation.0 - padding.0.lo, q * stride.1 + kw * dilation.1 - padding.1.lo]"),
    (conv1d(N=1, C=1, O=1, L=4, K=2, bias=True, activation="relu"), "y[n, o, lo] = max(sum[n, o, lo] + bias[o], 0)"),
    (dynamic_conv1d(N=1, C=4, HEADS=2, L=9, K=3), "exp[n, head, k, t] = exp(weight[n, head, k, t] - top[n, head, t])"),
])
def test_formula_is_in_the_notation_of_papers(w, text):
    assert text in w.signature["formula"].split("\n")
