"""Workloads: ids, canonical arguments, signatures, and one-sentence refusals."""

import numpy as np
import pytest
import torch

from convgen.errors import ArgumentError
from convgen.lang import parse
from convgen.ops.conv import conv1d, conv2d, conv3d, conv_transpose2d
from convgen.ops.depthwise import depthwise_conv2d, dilated_reparam_conv2d, inception_depthwise_conv2d
from convgen.ops.dynamic import deform_conv2d, dynamic_conv1d
from convgen.runtime.signature import Operator as Served

CONV = dict(N=1, C=4, O=6, H=8, W=9, kernel=3)


@pytest.mark.parametrize("make, text", [
    (lambda: conv3d(N=1, C=16, O=32, D=8, H=56, W=56, kernel=3, padding=1, dilation=2, bias=True, activation="relu"),
     "conv3d:n1,c16,o32,d8,h56,w56,k3x3x3;padding=1,dilation=2:f32.f32.f32:ncdhw:act=relu,bias"),
    (lambda: conv1d(N=2, C=3, O=3, L=5, K=2, layout="channels_last", residual=True), "conv1d:n2,c3,o3,l5,k2:f32.f32.f32:nlc:residual"),
    (lambda: conv2d(**CONV, padding=((0, 1), (2, 3)), stride=(1, 2), padding_mode="reflect", groups=2),
     "conv2d:n1,c4,o6,h8,w9,k3x3;stride=1x2,padding=0_1x2_3,groups=2,padding_mode=reflect:f32.f32.f32:nchw"),
    (lambda: conv2d(**CONV | {"N": 8}, any_batch=True, padding="same", dtype=torch.bfloat16), "conv2d:n8+,c4,o6,h8,w9,k3x3;padding=1:bf16.f32.bf16:nchw"),
    (lambda: conv2d(**CONV, dtype="float16", out_dtype=torch.float32, layout="NHWC"), "conv2d:n1,c4,o6,h8,w9,k3x3:f16.f32.f32:nhwc"),
    (lambda: conv_transpose2d(**CONV, stride=2, output_padding=(1, 0)), "conv_transpose2d:n1,c4,o6,h8,w9,k3x3;stride=2,output_padding=1x0:f32.f32.f32:nchw"),
    (lambda: depthwise_conv2d(N=1, C=4, M=2, H=8, W=9, kernel=(3, 5)), "depthwise_conv2d:n1,c4,m2,h8,w9,k3x5:f32.f32.f32:nchw"),
    (lambda: inception_depthwise_conv2d(N=1, C=8, GC=2, H=8, W=9, BAND=7, bias_w=True), "inception_depthwise_conv2d:n1,c8,gc2,h8,w9,band7:f32.f32.f32:nchw:bias_w"),
    (lambda: dilated_reparam_conv2d(N=1, C=4, H=8, W=9, kernel=5, eps=1e-6), "dilated_reparam_conv2d:n1,c4,h8,w9,k5x5;eps=1e-06:f32.f32.f32:nchw"),
    (lambda: dynamic_conv1d(N=1, C=4, HEADS=2, L=9, kernel=3, softmax=False, alignment="causal"),
     "dynamic_conv1d:n1,c4,heads2,l9,k3;alignment=causal,softmax=false:f32.f32.f32:ncl"),
    (lambda: deform_conv2d(**CONV, DG=2, mask=True, bias=True), "deform_conv2d:n1,c4,o6,h8,w9,dg2,k3x3:f32.f32.f32:nchw:bias,mask"),
])
def test_ids_are_as_documented_and_read_back(make, text):
    w = make()
    assert w.id == str(w) == text
    again = parse(text)
    assert again == w and hash(again) == hash(w) and again.signature == w.signature and again.attributes == w.attributes


@pytest.mark.parametrize("layout, canonical", [("channels_first", "channels_first"), ("NCHW", "channels_first"), ("nhwc", "channels_last"), ("channels_last", "channels_last")])
def test_layouts_have_aliases(layout, canonical):
    assert conv2d(**CONV, layout=layout).layout == canonical


@pytest.mark.parametrize("given, canonical", [
    (0, ((0, 0), (0, 0))), (2, ((2, 2), (2, 2))), ((1, 2), ((1, 1), (2, 2))), (((0, 1), 2), ((0, 1), (2, 2))), ([[0, 1], [2, 3]], ((0, 1), (2, 3))),
    ("valid", ((0, 0), (0, 0))), ("same", ((2, 2), (2, 3))),
])
def test_padding_is_canonical(given, canonical):
    w = conv2d(**CONV | {"kernel": (3, 2)}, padding=given, dilation=(2, 5))
    assert w.attributes["padding"] == canonical
    if given == "same":
        assert w.program.output.shape[2:] == (8, 9)


@pytest.mark.parametrize("given, message", [
    (dict(kernel=None), "conv2d: dimension KH must be a positive int, got None"),
    (dict(kernel=(3, 3, 3)), r"conv2d: kernel must be an int or 2 ints, got \(3, 3, 3\)"),
    (dict(kernel=(3, 2.5)), "conv2d: dimension KW must be a positive int, got 2.5"),
    (dict(kernel=True), "conv2d: dimension KH must be a positive int, got True"),
    (dict(KH=5), "conv2d: KH is given twice"),
    (dict(C=0), "conv2d: dimension C must be a positive int, got 0"),
    (dict(C="4"), "conv2d: dimension C must be a positive int, got '4'"),
    (dict(Z=3), "conv2d: unknown argument 'Z'; it takes N, C, O, H, W, KH, KW, stride"),
    (dict(stride=0), "conv2d: stride must be at least 1, got 0"),
    (dict(stride=(1, 2, 3)), r"conv2d: stride must be an int or 2 ints, got \(1, 2, 3\)"),
    (dict(padding=-1), "conv2d: padding must be at least 0, got -1"),
    (dict(padding="full"), "conv2d: padding must be an int, 2 ints, 2 .before, after. pairs, 'same' or 'valid', got 'full'"),
    (dict(padding="same", stride=2), r"conv2d: padding='same' needs stride 1, got \(2, 2\)"),
    (dict(padding_mode="mirror"), "conv2d: padding_mode must be one of 'zeros', 'reflect', 'replicate', 'circular', got 'mirror'"),
    (dict(padding_mode=["zeros"]), "conv2d: padding_mode must be one of"),
    (dict(padding_mode="reflect", padding=8), "conv2d: reflect padding must be smaller than the input, got H = 8, padding.0.lo = 8"),
    (dict(padding_mode="circular", padding=9), "conv2d: circular padding must not exceed the input, got H = 8, padding.0.lo = 9"),
    (dict(groups=3), "conv2d: C must be divisible by groups, got C = 4, groups = 3"),
    (dict(groups=4), "conv2d: O must be divisible by groups, got O = 6, groups = 4"),
    (dict(groups=(2,)), "conv2d: groups must be an int, got"),
    (dict(H=2), "conv2d: output dimension P must be at least 1, got H = 2, KH = 3, dilation.0 = 1"),
    (dict(H=2**15, W=2**14), "conv2d: x would have 2147483648 elements; kernels count them in 32 bits, so that at most 2147418112 are possible"),
    (dict(padding=2**31), r"conv2d: out would have \d+ elements"),
    (dict(bias=1), "conv2d: bias states whether the tensor is given; expected True or False, got 1"),
    (dict(activation="swish"), "conv2d: activation must be one of None, 'relu'"),
    (dict(activation=[1]), "conv2d: activation must be one of None, 'relu'"),
    (dict(dtype="int4"), "conv2d: dtype must be one of float32, float16, bfloat16, got int4"),
    (dict(acc_dtype="float16"), "conv2d: acc_dtype must be one of float32, got float16"),
    (dict(layout="NHCW"), "conv2d: layout must be channels_first, channels_last or an alias such as NCHW or NHWC, got 'NHCW'"),
])
def test_wrong_arguments_are_refused_in_one_sentence(given, message):
    with pytest.raises(ArgumentError, match=message) as caught:
        conv2d(**CONV | given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make, message", [
    (lambda: conv2d(N=1, C=4), "conv2d: dimensions O, H, W, KH, KW missing; it needs N, C, O, H, W, KH, KW"),
    (lambda: conv2d(1, 4), "conv2d: dimensions and attributes are given by keyword"),
    (lambda: inception_depthwise_conv2d(N=1, C=8, GC=2, H=8, W=9, kernel=3), "inception_depthwise_conv2d: unknown argument 'kernel'"),
    (lambda: inception_depthwise_conv2d(N=1, C=8, GC=3, H=8, W=9), "C must be at least 3 GC, got C = 8, GC = 3"),
    (lambda: inception_depthwise_conv2d(N=1, C=8, GC=2, H=8, W=9, bias=True), "unknown argument 'bias'"),
    (lambda: dilated_reparam_conv2d(N=1, C=4, H=8, W=9, kernel=3), "kernel must be square and one of .5, 7, 9, 11, 13, 15, 17., got 3x3"),
    (lambda: conv_transpose2d(**CONV, stride=2, output_padding=2), "conv_transpose2d: output_padding must be smaller than stride or dilation, got dilation.0 = 1, output_padding.0 = 2, stride.0 = 2"),
    (lambda: conv_transpose2d(**CONV, padding=6), "conv_transpose2d: output dimension P must be at least 1"),
    (lambda: deform_conv2d(**CONV, DG=3), "deform_conv2d: C must be divisible by DG, got C = 4, DG = 3"),
])
def test_other_operators_refuse_in_one_sentence(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


@pytest.mark.parametrize("text, message", [
    ("conv2d", "expected OP:DIMS"),
    ("conv2d:n1:f32.f32.f32:nchw:a:b", "expected OP:DIMS"),
    ("conv9d:n1:f32.f32.f32:nchw", "unknown operator 'conv9d'"),
    ("conv2d:n1,c4,o6,h8,w9,k3x3:f32.f32:nchw", "dtypes are input.accumulator.output, got 'f32.f32'"),
    ("conv2d:n1,c4,o6,h8,w9,k3x3:f32.f32.f99:nchw", "dtypes are input.accumulator.output"),
    ("conv2d:n1,c4,o6,h8,w9,k3x3:f32.f32.f32:nabc", "layout must be"),
    ("conv2d:n1,c4,o6,h8,w9,k3x3:f32.f32.f32:nchw:mask", "conv2d has no flag 'mask'"),
    ("conv2d:n1,c4,o6,h8,w9,k3x3:f32.f32.f32:nchw:kernel", "conv2d has no flag 'kernel'"),
    ("conv2d:n1,c4,o6,h8,w9,k3x3:f32.f32.f32:nchw:act=swish", "activation must be one of"),
    ("conv2d:n1,c4+,o6,h8,w9,k3x3:f32.f32.f32:nchw", "only n may be any size, got 'c4[+]'"),
    ("conv2d:n1,c4,o6,h8,w9,z3,k3x3:f32.f32.f32:nchw", "conv2d has no dimension Z"),
    ("conv2d:n1,c4,o6,h-8,w9,k3x3:f32.f32.f32:nchw", "cannot read dimension 'h-8'"),
    ("conv2d:n1,c4,o6,h8,w9,k3:f32.f32.f32:nchw", "kernel must be an int or 2 ints"),
    ("conv2d:n1,c4,o6,h8,w9,k3x3;stride:f32.f32.f32:nchw", "conv2d has no attribute 'stride'"),
    ("conv2d:n1,c4,o6,h8,w9,k3x3;pace=2:f32.f32.f32:nchw", "conv2d has no attribute 'pace'"),
    ("conv2d:n1,c4,o6,h8,w9,k3x3;stride=fast:f32.f32.f32:nchw", "cannot read attribute 'stride=fast'"),
    ("conv2d:n1,c4,o6,h8,w9,k3x3;activation=relu:f32.f32.f32:nchw", "conv2d has no attribute 'activation'"),
    ("conv2d:n1,c4,h8,w9,k3x3:f32.f32.f32:nchw", "dimension O missing"),
    ("dynamic_conv1d:n1,c4,heads2,l9,k3;softmax=maybe:f32.f32.f32:ncl", "cannot read attribute 'softmax=maybe'"),
    ("", "expected OP:DIMS"),
    (None, "a workload id is a text, got NoneType"),
])
def test_unreadable_ids_are_refused_in_one_sentence(text, message):
    with pytest.raises(ArgumentError, match=message):
        parse(text)


def test_the_digest_of_a_catalogue_operator_is_checked():
    w = conv2d(**CONV)
    assert parse(w.id.replace("conv2d", f"conv2d@{w.program.hash[:8]}")) == w
    with pytest.raises(ArgumentError, match="made for another one"):
        parse(w.id.replace("conv2d", "conv2d@01234567"))


def test_signature_is_as_agreed():
    w = conv2d(**CONV, stride=2, padding=1, bias=True, activation="relu")
    s = w.signature
    assert set(s) == {"operator", "hash", "summary", "formula", "tensors", "attributes", "positional", "when", "checks", "output", "pad_window"}
    assert s["tensors"][0] == {"name": "x", "kind": "input", "dims": ["N", "C", "H", "W"], "dtype": "float32", "spatial": [2, 3]}
    assert s["tensors"][1] == {"name": "weight", "kind": "param", "dims": ["O", ["//", "C", "groups"], "KH", "KW"], "dtype": "float32", "spatial": []}
    assert s["tensors"][2]["dims"] == ["O"]
    assert s["positional"] == ["x", "weight", "bias", "stride", "padding", "dilation", "groups"]
    assert s["pad_window"] == {"padding": [["*", "dilation.0", ["-", "KH", 1]], ["*", "dilation.1", ["-", "KW", 1]]]}
    assert ["==", "padding_mode", ["const", "zeros"]] in s["when"] and ["==", "activation", ["const", "relu"]] in s["when"]
    assert {"test": ["==", ["%", "C", "groups"], 0], "message": "C must be divisible by groups"} in s["checks"]
    assert s["output"]["spatial"] == [2, 3] and s["output"]["dims"][:2] == ["N", "O"]


def test_only_text_and_truth_are_specialised_on():
    """Sizes and integer attributes stay free: one signature serves all of them."""
    for w in (conv2d(**CONV), conv_transpose2d(**CONV), deform_conv2d(**CONV, mask=True)):
        assert all(test[0] == "==" and isinstance(test[2], list) for test in w.signature["when"])
    guards = [t for t in dilated_reparam_conv2d(N=1, C=4, H=8, W=9, kernel=5).signature["when"] if t[1] in ("KH", "KW")]
    assert guards == [["==", "KH", 5], ["==", "KW", 5]]


def test_a_signature_answers_for_other_sizes():
    served = Served("conv2d", [conv2d(**CONV).signature])
    call = served.resolve({"x": ((5, 6, 20, 21), "float32"), "weight": ((8, 3, 5, 4), "float32")}, {"padding": "same", "dilation": 2, "groups": 2})
    assert call.output_shape == (5, 8, 20, 21)
    with pytest.raises(ArgumentError, match="C must be divisible by groups"):
        served.resolve({"x": ((5, 7, 20, 21), "float32"), "weight": ((8, 3, 5, 4), "float32")}, {"groups": 2})


def test_reference_takes_numpy_and_torch_and_names_what_is_wrong():
    w = conv2d(**CONV)
    t = w.sample()
    x = t["x"].double() + 1e-12  # below float32: the oracle must not round its inputs
    assert not np.array_equal(w.reference(x=x, weight=t["weight"]), w.reference(x=x.float(), weight=t["weight"]))
    assert np.array_equal(w.reference(x=x.numpy(), weight=t["weight"].numpy()), w.reference(x=x, weight=t["weight"]))
    with pytest.raises(ArgumentError, match=r"conv2d: tensor weight of shape \(6, 4, 3, 3\) is missing"):
        w.reference(x=x)
    with pytest.raises(ArgumentError, match="conv2d: there is no tensor bias; it takes x, weight"):
        w.reference(**t, bias=x)
    with pytest.raises(ArgumentError, match=r"conv2d: x must have shape \(1, 4, 8, 9\), got \(4, 8, 9\)"):
        w.reference(x=x[0], weight=t["weight"])


def test_formulations_fold_parameters_once():
    w = dilated_reparam_conv2d(N=1, C=4, H=8, W=9, kernel=5, activation="relu")
    t = {k: v.double() for k, v in w.sample().items()}
    calls = w.formulations(**t)
    assert list(calls) == ["merged", "branches"]
    before = calls["merged"]()
    t["weight"].zero_()
    assert torch.equal(calls["merged"](), before) and not torch.equal(calls["branches"](), before)
