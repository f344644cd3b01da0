"""Quantised convolutions: the oracle against float64 sums with FBGEMM's rounding, and against PyTorch's quantised operators."""

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from convgen.errors import ArgumentError
from convgen.lang.ids import LONG
from convgen.ops.quantized import TYPES, quantized_conv2d, quantized_depthwise_conv2d
from tests.ops.cases import repeatable, workloads

both = pytest.mark.parametrize("op", [quantized_conv2d, quantized_depthwise_conv2d], ids=lambda op: op.name)


def groups(w):
    return w.attributes.get("groups", w.dims["C"])


def exact(w, x, weight, x_zero_point, x_scale=None, weight_scale=None, y_scale=None, y_zero_point=None, bias=None):
    """Sums in float64, where they are exact, then float32 step by step."""
    a, zero = w.attributes, int(x_zero_point[0])
    x = F.pad(x, [p for pair in reversed(a["padding"]) for p in pair], value=zero).double() - zero
    total = F.conv2d(x, weight.double(), None, a["stride"], 0, a["dilation"], groups(w)).to(torch.int32).numpy()
    low = 0 if w.out_dtype != "uint8" else int(y_zero_point[0])
    if w.out_dtype == "int32":
        return np.maximum(total, 0) if a["relu"] else total
    f, across = np.float32, (-1, 1, 1)
    scale = (x_scale.numpy() * weight_scale.numpy()).reshape(across)
    real = total.astype(f)
    if bias is not None:
        real = real + bias.numpy().reshape(across) / scale
    assert real.dtype == scale.dtype == f
    if w.out_dtype == "float32":
        return np.maximum(real * scale, 0) if a["relu"] else real * scale
    steps = np.rint(real * (scale / y_scale.numpy())).astype(np.int64) + int(y_zero_point[0])
    return np.clip(steps, low if a["relu"] else 0, 255)


@both
@pytest.mark.parametrize("types", TYPES)
def test_oracle_is_exact(op, types):
    @repeatable
    @given(workloads(op, out_dtype=LONG[types.split(".")[2]]), st.integers(0, 9), st.sampled_from((None, 0, 255)))
    def check(w, seed, zero):
        tensors = w.sample(seed)
        if zero is not None:
            tensors["x_zero_point"].fill_(zero)
            if "y_zero_point" in tensors:
                tensors["y_zero_point"].fill_(zero)
        assert w.program.exact and w.program.integral
        assert np.array_equal(w.reference(**tensors), exact(w, **tensors))
    check()


@both
def test_onednn_rounds_to_a_neighbour_at_most(op):
    @repeatable
    @given(workloads(op))
    def check(w):
        tensors = w.sample(1)
        y = w.reference(**tensors)
        found = w.baseline(**tensors)
        assert found.dtype == torch.uint8
        difference = np.abs(found.numpy().astype(int) - y)
        assert difference.max() <= 1 and np.count_nonzero(difference) <= max(1, y.size // 1000)
    check()


@both
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("relu", [False, True])
def test_fbgemm_bit_by_bit(op, bias, relu):
    """torch.ops.quantized.conv2d on the engine whose arithmetic is documented. Its depthwise kernel saturates sums of two products at int16, so weights are halved."""
    engine = torch.backends.quantized.engine
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        pytest.skip("this build of PyTorch has no FBGEMM")
    sizes = {"C": 32, "O": 24, "groups": 2} if op is quantized_conv2d else {"C": 40}
    w = op(N=2, H=11, W=9, kernel=3, padding=(1, 2), stride=(1, 2), bias=bias, relu=relu, **sizes)
    t = w.sample(2)
    if op is quantized_depthwise_conv2d:
        t["weight"] = t["weight"].div(2, rounding_mode="trunc")
    try:
        torch.backends.quantized.engine = "fbgemm"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # these tensors are deprecated, and the arithmetic is what counts
            weight = torch._make_per_channel_quantized_tensor(t["weight"], t["weight_scale"].double(), torch.zeros(len(t["weight"]), dtype=torch.long), 0)
            x = torch._make_per_tensor_quantized_tensor(t["x"], float(t["x_scale"]), int(t["x_zero_point"]))
        packed = torch.ops.quantized.conv2d_prepack(weight, t.get("bias"), [1, 2], [1, 2], [1, 1], groups(w))
        call = torch.ops.quantized.conv2d_relu if relu else torch.ops.quantized.conv2d
        found = call(x, packed, float(t["y_scale"]), int(t["y_zero_point"])).int_repr()
    finally:
        torch.backends.quantized.engine = engine
    assert np.array_equal(found.numpy(), w.reference(**t))


def test_halves_go_to_the_even_integer_and_ends_are_clamped():
    w = quantized_conv2d(N=1, C=1, O=1, H=1, W=8, kernel=1)
    scalar = lambda v, dtype=torch.float32: torch.tensor([v], dtype=dtype)
    y = w.reference(x=torch.tensor([0, 1, 2, 3, 4, 5, 6, 255], dtype=torch.uint8).reshape(1, 1, 1, 8), weight=scalar(127, torch.int8).reshape(1, 1, 1, 1),
                    x_scale=scalar(0.5), x_zero_point=scalar(3, torch.uint8), weight_scale=scalar(1.0), y_scale=scalar(127.0), y_zero_point=scalar(1, torch.uint8))
    assert y.reshape(-1).tolist() == [0, 0, 1, 1, 1, 2, 3, 127]


def test_sums_that_int32_cannot_hold_are_refused():
    with pytest.raises(ArgumentError, match="more terms than int32 can hold, got"):
        quantized_conv2d(N=1, C=8192, O=1, H=3, W=3, kernel=3)


def test_dtypes():
    small = dict(N=1, C=2, O=2, H=3, W=3, kernel=1)
    assert quantized_conv2d(**small).id.endswith(":u8.i32.u8:nchw")
    assert quantized_conv2d(**small, out_dtype="float32", layout="NHWC").id.endswith(":u8.i32.f32:nhwc")
    assert [t.dtype for t in quantized_conv2d(**small, out_dtype=torch.int32).program.tensors] == ["uint8", "uint8", "int8"]
    with pytest.raises(ArgumentError, match="quantized_conv2d: out_dtype must be one of uint8, float32, int32, got bfloat16"):
        quantized_conv2d(**small, out_dtype="bfloat16")
    with pytest.raises(ArgumentError, match="dtype must be one of uint8, got float32"):
        quantized_conv2d(**small, dtype="float32")
