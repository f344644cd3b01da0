"""Calling operators: right numbers in every layout, copies where they are needed, one-sentence errors for the rest."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from convgen.errors import ArgumentError, NoKernel
from convgen.runtime.layout import preferred

LAST = torch.channels_last


def whole(*shape, seed=0, dtype=torch.float32):
    """Small integers, so that sums are exact."""
    return torch.randint(-3, 4, shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


X, W, B = whole(1, 4, 6, 6), whole(8, 4, 3, 3, seed=1), whole(8, seed=2)
WANTED = F.conv2d(X, W, padding=1)


def copies(lib):
    return sum(lib.stats()["copies"].values())


@pytest.mark.parametrize("fmt", [torch.contiguous_format, LAST])
def test_both_formats_in_place(lib, fmt):
    before = copies(lib)
    for _ in range(2):  # the second call takes the remembered way
        y = lib.conv2d(X.contiguous(memory_format=fmt), W, padding=1)
        assert torch.equal(y, WANTED) and y.is_contiguous(memory_format=fmt)
    assert copies(lib) == before


def test_formats_alternate_on_one_shape(lib):
    for _ in range(3):
        for x in (X, X.to(memory_format=LAST)):
            y = lib.conv2d(x, W, padding=1)
            assert torch.equal(y, WANTED) and y.stride() == F.conv2d(x, W, padding=1).stride()


@pytest.mark.parametrize("padding", [1, (1, 1), [1, 1], "same", ((1, 1), (1, 1))])
def test_spellings_of_padding(lib, padding):
    assert torch.equal(lib.conv2d(X, W, None, 1, padding), WANTED)
    assert torch.equal(lib.conv2d(x=X, weight=W, padding=padding), WANTED)


def test_bias_is_another_variant(lib):
    assert torch.equal(lib.conv2d(X, W, B, padding=1), F.conv2d(X, W, B, padding=1))


def test_omitted_attribute_is_its_default(lib):
    with pytest.raises(NoKernel, match=r"padding=\(\(1, 1\), \(1, 1\)\)"):
        lib.conv2d(X, W)


@pytest.mark.parametrize("n", [1, 3, 9])
def test_any_batch(lib, n):
    x = whole(n, 4, 5, 5, seed=n)
    assert torch.equal(lib.conv2d(x, W, padding=1), F.conv2d(x, W, padding=1))
    assert lib.explain("conv2d", x, W, padding=1).how == "any batch"


def test_views_with_gaps_are_copied_and_counted(lib):
    wide = whole(1, 4, 6, 12, seed=5)
    before = copies(lib)
    y = lib.conv2d(wide[..., ::2], W, padding=1)
    assert torch.equal(y, F.conv2d(wide[..., ::2], W, padding=1)) and y.is_contiguous()
    gapped = whole(1, 6, 6, 8, seed=6).permute(0, 3, 1, 2)[:, :4]  # channels closest together: channels_last out
    y = lib.conv2d(gapped, W, padding=1)
    assert torch.equal(y, F.conv2d(gapped, W, padding=1)) and y.is_contiguous(memory_format=LAST)
    assert copies(lib) == before + 2
    assert lib.explain("conv2d", gapped, W, padding=1).copies == ("x",)


def test_parameter_in_another_format_is_copied(lib):
    assert torch.equal(lib.conv2d(X, W.to(memory_format=LAST), padding=1), WANTED)


@pytest.mark.parametrize("offset", [1, 3, 8])
def test_misaligned_input(lib, offset):
    x = torch.empty(X.numel() + offset)[offset:].view(X.shape).copy_(X)
    assert x.data_ptr() % 64
    for _ in range(2):
        assert torch.equal(lib.conv2d(x, W, padding=1), WANTED)


def test_misaligned_numpy_and_read_only(lib):
    x = np.zeros(X.numel() + 1, np.float32)[1:].reshape(X.shape)
    x[:] = X.numpy()
    x.flags.writeable = False
    y = lib.conv2d(x, W.numpy(), padding=1)
    assert isinstance(y, np.ndarray) and np.array_equal(y, WANTED.numpy())


def test_strides_of_size_one_dimensions_mean_nothing(lib):
    x = X.as_strided(X.shape, (7, 36, 6, 1))
    before = copies(lib)
    assert torch.equal(lib.conv2d(x, W, padding=1), WANTED) and copies(lib) == before


@pytest.mark.parametrize("make", [lambda x: x, lambda x: x.to(memory_format=LAST), lambda x: x.as_strided(x.shape, (1, 99, 6, 1))])
def test_one_channel_is_both_formats(lib, make):
    x = make(whole(1, 1, 6, 6))
    y = lib.edge2d(x)
    assert torch.equal(y, x * torch.arange(1.0, 5).view(1, 4, 1, 1)) and y.is_contiguous(memory_format=LAST)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_dtypes(lib, dtype):
    x, gate = whole(2, 3, 4, 5, dtype=dtype), whole(2, 3, seed=3, dtype=dtype)
    for _ in range(2):
        y = lib.gate2d(x, gate)
        assert y.dtype == dtype and torch.equal(y, x * gate[:, :, None, None])


def test_second_input_follows_the_first(lib):
    x, gate = whole(2, 3, 4, 5).to(memory_format=LAST), whole(2, 3, seed=3)
    y = lib.gate2d(x, gate.t().contiguous().t())
    assert torch.equal(y, x * gate[:, :, None, None]) and y.is_contiguous(memory_format=LAST)


def test_scratch_memory(lib):
    x = whole(1, 8, 64, 64)
    for _ in range(3):
        assert torch.equal(lib.square2d(x), (x + 1) * (x + 1).flip(2))
    assert lib.stats()["workspace_bytes"] > 0


def test_other_dlpack_tensors_come_back_in_kind(lib):
    import tvm_ffi

    y = lib.square2d(tvm_ffi.from_dlpack(whole(1, 8, 64, 64)))
    assert type(y) is tvm_ffi.Tensor and tuple(y.shape) == (1, 8, 64, 64)


def test_out(lib):
    for out in (torch.full_like(WANTED, -9.0), torch.full_like(WANTED, -9.0, memory_format=LAST), torch.zeros(1, 8, 6, 12)[..., ::2]):
        assert lib.conv2d(X, W, padding=1, out=out) is out
        assert torch.equal(out, WANTED)


def test_out_may_not_overlap_an_input(lib):
    x = whole(1, 8, 64, 64)
    with pytest.raises(ArgumentError, match="overlaps"):
        lib.square2d(x, out=x)


@pytest.mark.parametrize("call, sentence", [
    (lambda lib: lib.conv2d(X), "conv2d: the tensor weight is required, got None or nothing"),
    (lambda lib: lib.conv2d(None, W), "conv2d: the tensor x is required"),
    (lambda lib: lib.conv2d(X[0], W), r"conv2d: x must have 4 dimensions \[N, C, H, W\], got 3 \(4, 6, 6\)"),
    (lambda lib: lib.conv2d(X, whole(8, 3, 3, 3)), r"conv2d: dimension 1 of weight must be \(C // groups\) = 4, got 3"),
    (lambda lib: lib.conv2d(X, W, whole(7)), r"conv2d: dimension 0 of bias must be O = 8 \(from weight\), got 7"),
    (lambda lib: lib.conv2d(X, W, groups=3), "conv2d: .*groups|dimension"),
    (lambda lib: lib.conv2d(X.double(), W), "conv2d: x must have dtype float32, got float64"),
    (lambda lib: lib.conv2d(X, W.bfloat16()), "conv2d: weight must have dtype float32, got bfloat16"),
    (lambda lib: lib.conv2d(X.to("meta"), W), "conv2d: x must be on the CPU or a CUDA device, got a tensor on meta"),
    (lambda lib: lib.conv2d(X.to_sparse(), W), "conv2d: x must be a strided tensor"),
    (lambda lib: lib.conv2d(X, W.numpy()), "conv2d: all tensors of a call must be of one kind"),
    (lambda lib: lib.conv2d(X.tolist(), W), "conv2d: x must be a tensor"),
    (lambda lib: lib.conv2d(X, W, stride="2"), "conv2d: stride must be an int or 2 ints, got '2'"),
    (lambda lib: lib.conv2d(X, W, strides=2), "conv2d has no argument 'strides'; it takes x, weight"),
    (lambda lib: lib.conv2d(X, W, weight=W), "conv2d: weight was given twice"),
    (lambda lib: lib.conv2d(X, W, None, 1, 1, 1, 1), "conv2d takes at most 6 positional arguments"),
    (lambda lib: lib.conv2d(X, W, stride=2, padding="same"), "conv2d: padding='same' needs stride 1"),
    (lambda lib: lib.conv2d(whole(1, 4, 2, 2), W), "conv2d: dimension 2 of the output would be 0"),
    (lambda lib: lib.conv2d(X[:0], W), "conv2d: dimension 0 of the output would be 0; an input is empty"),
    (lambda lib: lib.conv2d(X, W, padding=1, out=torch.empty(1, 8, 5, 6)), r"conv2d: out must be float32 \(1, 8, 6, 6\)"),
    (lambda lib: lib.conv2d(X, W, padding=1, out=torch.empty(1, 8, 6, 1).expand(1, 8, 6, 6)), "conv2d: out must not be an expanded tensor"),
])
def test_wrong_arguments_say_what_is_wrong(lib, call, sentence):
    with pytest.raises(ArgumentError, match=sentence) as caught:
        call(lib)
    assert "\n" not in str(caught.value)


def test_channels_that_are_one_and_the_same_are_channels_first(lib):
    gray = X[:, :1].expand(1, 4, 6, 6)
    assert torch.equal(lib.conv2d(gray, W, padding=1), lib.conv2d(gray.contiguous(), W, padding=1))
    assert preferred((1, 4, 6, 6), (36, 0, 6, 1), (2, 3)) == "channels_first"


def test_a_size_is_no_tensor_of_that_shape(lib):
    lib.conv2d(X, W, whole(8), (1, 1), padding=1)
    for bias, stride in (((8,), (1, 1)), (whole(8), torch.zeros(1, 1))):
        with pytest.raises(ArgumentError):
            lib.conv2d(X, W, bias, stride, padding=1)


def test_a_remembered_call_still_checks(lib):
    lib.conv2d(X, W, padding=1)
    for bad in (X.double(), X.to("meta")):
        with pytest.raises(ArgumentError):
            lib.conv2d(bad, W, padding=1)
    nan = torch.full_like(X, float("nan"))
    assert torch.isnan(lib.conv2d(nan, W, padding=1)).all()


def test_no_kernel_names_the_nearest(lib):
    with pytest.raises(NoKernel) as caught:
        lib.conv2d(whole(1, 4, 7, 6), W, padding=1)
    text = str(caught.value)
    assert "conv2d: no kernel for N=1,C=4,H=7,W=6,O=8,KH=3,KW=3 padding=((1, 1), (1, 1)) float32 channels_first" in text
    assert "nearest: conv2d:n1,c4,o8,h6,w6,k3x3;padding=1:f32.f32.f32:nchw (differs in H=6)" in text


def test_missing_variant_is_no_kernel(lib):
    with pytest.raises(NoKernel, match="edge2d: no kernel for .*; nearest: edge2d:n1,c1,h6,w6:f32.f32.f32:nhwc"):
        lib.edge2d(whole(1, 2, 6, 6))
    with pytest.raises(ArgumentError, match="gate2d: x must have dtype|gate2d: gate must have dtype"):
        lib.gate2d(whole(2, 3, 4, 5), whole(2, 3, dtype=torch.float16))


@pytest.mark.parametrize("inputs", [lambda: (X.clone().requires_grad_(), W), lambda: (X, torch.nn.Parameter(W))])
def test_gradients_are_never_dropped(lib, inputs):
    x, w = inputs()
    with torch.no_grad():
        assert torch.equal(lib.conv2d(x, w, padding=1), WANTED)
    with pytest.raises(RuntimeError, match=r"requires grad.*torch\.no_grad\(\)"):
        lib.conv2d(x, w, padding=1)
    with torch.inference_mode():
        assert torch.equal(lib.conv2d(x, w, padding=1), WANTED)


def test_unknown_operator(lib):
    with pytest.raises(AttributeError, match="has no operator 'conv4d'; it has conv2d"):
        lib.conv4d
    with pytest.raises(ArgumentError, match="has no operator"):
        lib.explain("conv4d", X)


def test_other_default_device_and_dtype(lib):
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            assert torch.equal(lib.conv2d(X, W, padding=1), WANTED)
    finally:
        torch.set_default_dtype(torch.float32)


def test_transforms_do_not_give_wrong_numbers(lib):
    batch = torch.stack([X, X + 1])
    lib.conv2d(X, W, padding=1)
    with pytest.raises(ArgumentError, match="torch.ops"):
        torch.func.vmap(lambda x: lib.conv2d(x, W, padding=1))(batch)


def test_fake_tensors_are_sent_to_the_op(lib):
    from torch._subclasses.fake_tensor import FakeTensorMode

    bound = lib.bind("conv2d", weight=W, padding=1)
    for mode in (FakeTensorMode(), FakeTensorMode(allow_non_fake_inputs=True)):
        lib.conv2d(X, W, padding=1), bound(X)
        with mode:
            x, w = mode.from_tensor(X), mode.from_tensor(W)
            for call in (lambda: lib.conv2d(x, w, padding=1), lambda: bound(x)):
                with pytest.raises(ArgumentError, match="torch.ops"):
                    call()
    with mode:  # real tensors, whose result would be fake
        for call in (lambda: lib.conv2d(X, W, padding=1), lambda: bound(X)):
            with pytest.raises(ArgumentError, match="torch.ops"):
                call()


def test_out_is_written_also_when_it_is_inference_memory(lib):
    with torch.inference_mode():
        out = torch.empty_like(WANTED)
        assert torch.equal(lib.conv2d(X, W, padding=1, out=out), WANTED)
