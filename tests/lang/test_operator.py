"""Operators outside the catalogue: unregistered use, composition, and what a wrong declaration is told."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from convgen.errors import ArgumentError
from convgen.lang import Program, integer, ints, operator, pads, parse
from convgen.ops.conv import conv2d, conv_transpose2d
from tests.lang.declared import gated_block2d, gaussian_conv2d, local_max2d, two_kernels_conv2d

SIZES = dict(N=2, C=4, H=6, W=7)


def sample(w):
    return {k: v.double() for k, v in w.sample().items()}


def test_own_operator_works_unregistered():
    w = local_max2d(**SIZES, kernel=(3, 2), padding=((1, 1), (0, 1)), stride=(1, 2))
    t = sample(w)
    padded = F.pad(t["x"], (0, 1, 1, 1), mode="replicate")
    patches = padded.unfold(2, 3, 1).unfold(3, 2, 2)  # N C P Q KH KW
    expected = (patches * t["weight"].permute(0, 3, 4, 1, 2).unsqueeze(1)).amax((4, 5))
    np.testing.assert_allclose(w.reference(**t), expected, rtol=1e-14)
    assert w.program.exact and not w.has_baseline and w.formulations(**t) == {}
    with pytest.raises(ArgumentError, match="no PyTorch baseline"):
        w.baseline(**t)


def test_own_operator_has_the_hash_in_its_id():
    w = local_max2d(**SIZES, kernel=3)
    assert w.id.startswith(f"local_max2d@{w.program.hash[:8]}:")
    assert parse(w.id, operator=local_max2d) == w
    with pytest.raises(ArgumentError, match="unknown operator 'local_max2d'"):
        parse(w.id)
    with pytest.raises(ArgumentError, match="made for another one"):
        parse(w.id.replace(w.program.hash[:8], "00000000"), operator=local_max2d)
    with pytest.raises(ArgumentError, match="names local_max2d, and the operator is conv2d"):
        parse(w.id, operator=conv2d)


def test_epilogue_needs_a_linear_last_stage():
    for flag in ({"bias": True}, {"residual": True}, {"activation": "relu"}):
        with pytest.raises(ArgumentError, match="local_max2d: .* linear last stage only"):
            local_max2d(**SIZES, kernel=3, **flag)


@pytest.mark.parametrize("groups", [1, 2])
def test_merged_kernels_run_once(groups):
    w = two_kernels_conv2d(**SIZES, O=6, kernel=(3, 2), groups=groups, padding=1, stride=2, bias=True, activation="relu")
    assert [s.name for s in w.program.bind_stages] == ["merged"]
    assert [t.name for t in w.program.tensors] == ["big", "point", "x", "bias"]
    t = sample(w)
    kernel = t["big"].clone()
    kernel[:, :, 1, 1] += t["point"]
    expected = F.conv2d(t["x"], kernel, t["bias"], stride=2, padding=1, groups=groups).relu()
    np.testing.assert_allclose(w.reference(**t), expected, atol=1e-13)


def test_composed_description_stays_symbolic_and_travels_as_json():
    def with_stride(stride):
        return two_kernels_conv2d(N=1, C=4, O=6, H=9, W=9, kernel=3, padding=1, stride=stride).program
    a, b = with_stride(1), with_stride(2)
    assert a.hash == b.hash and a.output.trees == b.output.trees and "stride.0" in json.dumps(a.output.trees)
    assert {"test": ["==", ["%", "KH", 2], 1], "message": "KH must be odd"} in a.checks
    again, values = Program.from_json(json.loads(json.dumps(b.to_json()))), b.sample()
    assert again.hash == b.hash and np.array_equal(again.reference(values), b.reference(values))


def test_generated_kernel_is_bound_together_with_its_table():
    w = gaussian_conv2d(**SIZES, K=5, padding=2)
    assert [s.name for s in w.program.bind_stages] == ["square", "gaussian", "total", "normalised"]
    t = sample(w)
    d = torch.arange(5.0, dtype=torch.float64) - 2
    kernel = torch.exp(-(d[:, None] ** 2 + d**2) * t["inverse_width"][:, None, None])
    kernel = kernel / kernel.sum((1, 2), keepdim=True)
    np.testing.assert_allclose(w.reference(**t), F.conv2d(t["x"], kernel[:, None], padding=2, groups=4), atol=1e-14)


@pytest.mark.parametrize("squash", ["sigmoid", "tanh"])
def test_operators_in_a_row(squash):
    w = gated_block2d(**SIZES, O=5, kernel=3, squash=squash, residual=True)
    t = sample(w)
    first = F.conv2d(t["x"], t["weight_dw"], t["bias_dw"], padding=1, groups=4).relu()
    expected = F.conv2d(first, t["weight_pw"]) * getattr(torch, squash)(t["x"].sum(1, keepdim=True) / 2) + t["residual"]
    np.testing.assert_allclose(w.reference(**t), expected, atol=1e-13)
    assert ["==", "squash", ["const", squash]] in w.signature["when"]


def declared(body, dims="N C H W K", **options):
    body.__name__ = "mine"
    return operator(dims=dims, **options)(body)


def refused(body, message, **given):
    with pytest.raises(ArgumentError, match=message) as caught:
        declared(body)(**dict(SIZES, K=3) | given)
    assert str(caught.value).count("\n") == 0


def test_reading_outside_a_tensor_is_refused():
    def body(o):
        n, c, h, w = o.axes("N C H W")
        k = o.window("K")
        return o.sum(o.input("x", "N C H W")[n, c, h + k, w], k)
    refused(body, "mine: the stage sum reads x at 0 to 7 of dimension 2, which has 6 elements; pad it")
    assert declared(body)(**SIZES, K=1)


def test_reading_beyond_one_reflection_is_refused():
    def body(o):
        n, c, h, w = o.axes("N C H W")
        return o.input("x", "N C H W", pad=[(6, 6), (0, 0)], mode="reflect")[n, c, h, w]
    refused(body, "reads x at 0 to 5 of dimension 2")


def test_a_select_guards_what_it_reads():
    def body(o):
        n, c, h, w = o.axes("N C H W")
        x = o.input("x", "N C H W")
        return o.select(h >= 1, x[n, c, h - 1, w], 7.0)
    w = declared(body)(**SIZES, K=1)
    x = np.arange(2 * 4 * 6 * 7.0).reshape(2, 4, 6, 7)
    y = w.reference(x=x)
    assert (y[:, :, 0] == 7).all() and (y[:, :, 1:] == x[:, :, :-1]).all()


def test_clamped_gathers_are_known_to_stay_inside():
    def body(o):
        n, c, h, w = o.axes("N C H W")
        at = o.input("at", "N H W")[n, h, w]
        return o.input("x", "N C H W")[n, c, o.int(o.minimum(o.maximum(o.floor(at), 0.0), o.float(o.H - 1))), w]
    assert declared(body)(**SIZES, K=1).program.output.shape == (2, 4, 6, 7)

    def free(o):
        n, c, h, w = o.axes("N C H W")
        return o.input("x", "N C H W")[n, c, o.int(o.input("at", "N H W")[n, h, w]), w]
    refused(free, "reads x at -inf to inf of dimension 2")


@pytest.mark.parametrize("body, message", [
    (lambda o: None, "mine: a declaration returns the value of one output element, got NoneType"),
    (lambda o: o.axes("N C H W") and o.input("x", "N C H W"), "returns the value of one output element, got Tensor"),
    (lambda o: o.input("x", "N")[o.axis("n", o.N)], "states its output axes with o.axes"),
    (lambda o: o.input("x", "N Z")[o.axes("N Z")], "mine: dimension Z is missing"),
    (lambda o: o.input("x", "N C")[tuple(o.axes("N C H"))], "x has 2 dimensions, but is indexed by 3"),
    (lambda o: o.input("x", "C K")[(*o.axes("C"), o.axis("r", o.K))], "depends on axis r, which is neither reduced nor one of its own"),
    (lambda o: o.input("x", "N")[o.axes("N")[0]] + o.input("x", "N")[0], "mine: the name x is taken"),
    (lambda o: o.input("out", "N")[o.axes("N")[0]], "mine: the name out is taken"),
    (lambda o: o.input("x", "N", pad=[1])[o.axes("N")[0]], "padding of x must be .before, after. pairs"),
    (lambda o: o.input("x", "N", pad=[(1, 1)], mode="mirror")[o.axes("N")[0]], "padding mode must be one of zeros, reflect, replicate, circular, value, got 'mirror'"),
    (lambda o: o.select(o.axes("N")[0], 1.0, 0.0), "expected a condition such as a comparison, got the index n"),
    (lambda o: 1.0 if o.axes("N")[0] == 0 else 0.0, "has no truth value"),
    (lambda o: o.axes("N")[0] / 2, "ambiguous"),
    (lambda o: (o.axes("N")[0] > 0) * 2.0, "cannot compute . with the condition"),
    (lambda o: o.float(o.axes("N")[0]) + "1", "cannot use str in an expression"),
    (lambda o: o.float(o.axis("z", o.K - 3)), "mine: axis z would have 0 elements"),
    (lambda o: o.activation("swish", o.float(o.axes("N")[0])), "mine: activation must be one of relu, .*, got 'swish'"),
])
def test_wrong_declarations_are_told_what_is_wrong(body, message):
    refused(body, message)


@pytest.mark.parametrize("given, message", [
    (dict(weight=2.5), "conv2d: weight must be an attribute, a dimension or a tensor, got 2.5"),
    (dict(kernel=3), "conv2d: kernel must be"),
    (dict(KH=3), "conv2d: dimension KW is missing"),
    (dict(KH=3, KW=3, stride="a"), "conv2d: stride must be an int or 2 ints, got 'a'"),
    (dict(KH=3, KW=3, stride=0), "conv2d: stride must be at least 1"),
    (dict(KH=3, KW=3, activation="swish"), "conv2d: activation must be one of"),
    (dict(KH=3, KW=3, groups=3), "conv2d: C must be divisible by groups, got C = 4"),
    (dict(KH=9, KW=9), "conv2d: output dimension P must be at least 1"),
])
def test_wrong_use_of_an_inner_operator_is_told_what_is_wrong(given, message):
    refused(lambda o: conv2d(o, O=4, **given), message)


def test_inner_operator_checks_the_tensors_it_is_given():
    def shape(o):
        return conv2d(o, weight=o.param("w", "C", "C", 3, 3), O=o.C, KH=5, KW=5, padding="same")
    refused(shape, r"conv2d: weight must have shape \(4, 4, 5, 5\), got w of shape \(4, 4, 3, 3\)")

    def value(o):
        return conv2d(o, weight=o.param("w", "C", "C", 3, 3)[0, 0, 0, 0] * 2.0, O=o.C, KH=1, KW=1)
    refused(value, r"conv2d: weight must be a tensor; make one with o.stage")

    def unused(o):
        return conv2d(o, offset=o.param("w", "C"), O=o.C, KH=1, KW=1)
    refused(unused, "conv2d: there is no tensor offset to give")

    def twice(o):
        a = o.stage(conv2d(o, O=o.C, KH=1, KW=1))
        return conv2d(o, x=a, O=o.C, KH=1, KW=1)
    refused(twice, "conv2d: the name weight is taken; .* hand the inner operator its own as weight=...")


def test_inner_attributes_take_sizes_pairs_and_same():
    @operator(dims="N C H W K")
    def mine(o, *, step: int = 1):
        x = o.stage(conv2d(o, O=o.C, KH=o.K, KW=1, padding="same", dilation=(2, 1)), name="first")
        return conv_transpose2d(o, x=x, weight=o.param("up", "C", "C", 2, 2), O=o.C, KH=2, KW=2, stride=(step, 1), padding=((0, 1), 0), output_padding=0)
    w = mine(**SIZES, K=3, step=2)
    t = sample(w)
    first = F.conv2d(t["x"], t["weight"], padding=(2, 0), dilation=(2, 1))
    np.testing.assert_allclose(w.reference(**t), F.conv_transpose2d(first, t["up"], stride=(2, 1))[:, :, :-1], atol=1e-13)
    assert "step" in json.dumps(w.program.output.trees)


@pytest.mark.parametrize("dims, body, message", [
    ("N c", lambda o: 0, "dimension 'c' must consist of capital letters"),
    ("N C2", lambda o: 0, "dimension 'C2' must consist of capital letters"),
    ("N N", lambda o: 0, "the name 'N' is used twice"),
    ("N", lambda o, layout="a": 0, "the name 'layout' is reserved"),
    ("N", lambda o, bias=True: 0, "the name 'bias' is reserved"),
    ("N", lambda o, activation="relu": 0, "the name 'activation' is reserved"),
    ("N", lambda o, N=1: 0, "the name 'N' is used twice"),
    ("N", lambda o, a=None: 0, "attribute a needs a default"),
    ("N", lambda o, a=(1, 2): 0, "attribute a needs a default"),
    ("N", lambda o, a="x:y": 0, "a must consist of letters, digits"),
    ("N", lambda o, a: 0, "attribute a needs a default"),
])
def test_declarations_that_ids_could_not_carry_are_refused(dims, body, message):
    with pytest.raises(ArgumentError, match=message):
        declared(body, dims=dims)


def test_attributes_of_every_kind_pass_through_the_id():
    @operator(dims="N C=3 LONG KD KH KW", epilogue=False)
    def kinds(o, *, size=ints(3, 0, -2), pad=pads(1), n=integer(5, -9), f: float = 0.1, b: bool = False, s: str = "a.b-c_d+1"):
        """All kinds."""
        n, c, i = o.axes("N C LONG")
        return o.input("x", "N C LONG")[n, c, i] * f
    w = kinds(N=8, LONG=2, kernel=(1, 2, 3), any_batch=True, C=4, size=(-1, 0, 2), pad=((0, 3),), n=-7, f=1e-30, b=True, s="zz",
              dtype="float16", out_dtype="bfloat16", layout="NLC")
    assert w.id.split(":", 1)[1] == "n8+,c4,long2,k1x2x3;size=-1x0x2,pad=0_3,n=-7,f=1e-30,b=true,s=zz:f16.f32.bf16:nlc"
    again = parse(w.id, operator=kinds)
    assert again == w and again.attributes == w.attributes and again.flags == w.flags == {"any_batch": True}
    for wrong, message in (({"s": 5}, "kinds: s must be a text, got 5"), ({"s": "a,b"}, "kinds: s must consist of letters"), ({"f": float("nan")}, "f must be a finite number, got nan"),
                           ({"f": "1"}, "f must be a finite number, got '1'"), ({"b": 1}, "b must be True or False, got 1"), ({"n": -10}, "n must be at least -9, got -10")):
        with pytest.raises(ArgumentError, match=message):
            kinds(N=1, LONG=2, kernel=1, **wrong)
    plain = kinds(N=1, LONG=2, kernel=1)
    assert plain.id.split(":", 1)[1] == "n1,long2,k1x1x1:f32.f32.f32:ncl"
