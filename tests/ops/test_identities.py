"""Exact identities between operators and of single operators, from the literature. They hold for the oracle without PyTorch."""

import numpy as np
import pytest

from convgen.ops import blocks, conv, depthwise, dynamic
from tests.ops.cases import assert_equal

rng = np.random.default_rng(0)
RANKS = {1: dict(L=11, K=3), 2: dict(H=9, W=7, KH=3, KW=2), 3: dict(D=4, H=5, W=6, KD=2, KH=3, KW=1)}
DIRECT = {1: conv.conv1d, 2: conv.conv2d, 3: conv.conv3d}
TRANSPOSED = {1: conv.conv_transpose1d, 2: conv.conv_transpose2d, 3: conv.conv_transpose3d}
LENGTHS = {1: "L", 2: "HW", 3: "DHW"}


def draw(w, **given):
    """Standard normal tensors for a workload, except those given."""
    return {t.name: given.get(t.name, rng.standard_normal(t.shape)) for t in w.program.tensors}


def positions(rank, shape):
    return dict(zip(LENGTHS[rank], shape[2:]))


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("stride, padding, dilation, groups", [(1, 0, 1, 1), (2, 1, 1, 2), (3, ((2, 1),), 2, 2), (2, ((0, 2),), 3, 1)])
def test_transposed_convolution_is_the_adjoint(rank, stride, padding, dilation, groups):
    padding = padding * rank if isinstance(padding, tuple) else padding
    forward = DIRECT[rank](N=2, C=4, O=6, **RANKS[rank] | {d: 2 * v + 5 for d, v in RANKS[rank].items() if d in "LDHW"},
                           stride=stride, padding=padding, dilation=dilation, groups=groups)
    t = draw(forward)
    y = rng.standard_normal(forward.program.output.shape)
    plain = TRANSPOSED[rank](N=2, C=6, O=4, kernel=forward.program.tensor("weight").shape[2:], **positions(rank, y.shape),
                             stride=stride, padding=padding, dilation=dilation, groups=groups)
    extra = tuple(a - b for a, b in zip(t["x"].shape[2:], plain.program.output.shape[2:]))
    back = plain.op(**plain.dims, **plain.attributes | {"output_padding": extra})
    assert back.program.output.shape == t["x"].shape
    left, right = (forward.reference(**t) * y).sum(), (t["x"] * back.reference(x=y, weight=t["weight"])).sum()
    assert abs(left - right) <= 1e-11 * np.abs(y).sum()


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_transposed_is_convolution_of_the_zero_stuffed_input(rank):
    w = TRANSPOSED[rank](N=1, C=3, O=2, **RANKS[rank], stride=2, padding=1, output_padding=1, dilation=2)
    t = draw(w)
    stuffed = np.zeros((1, 3, *(2 * n - 1 for n in t["x"].shape[2:])))
    stuffed[(slice(None), slice(None), *[slice(None, None, 2)] * rank)] = t["x"]
    flipped = np.flip(t["weight"], tuple(range(2, 2 + rank))).swapaxes(0, 1)
    around = tuple((2 * (k - 1), 2 * (k - 1) + 1) for k in flipped.shape[2:])  # dilation (k - 1), and output_padding behind
    same = DIRECT[rank](N=1, C=3, O=2, kernel=flipped.shape[2:], **positions(rank, stuffed.shape), padding=around, dilation=2)
    inside = (slice(None), slice(None), *[slice(1, -1)] * rank)  # padding = 1 crops the result
    assert_equal(same.reference(x=stuffed, weight=flipped)[inside], w.reference(**t))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_dilated_is_the_zero_stuffed_kernel(rank):
    sizes = RANKS[rank] | {d: 2 * v for d, v in RANKS[rank].items() if d in "LDHW"}
    w = DIRECT[rank](N=1, C=3, O=2, **sizes, padding=2, dilation=3, stride=2)
    t = draw(w)
    dense = np.zeros((2, 3, *(3 * (k - 1) + 1 for k in t["weight"].shape[2:])))
    dense[(slice(None), slice(None), *[slice(None, None, 3)] * rank)] = t["weight"]
    same = DIRECT[rank](N=1, C=3, O=2, kernel=dense.shape[2:], **positions(rank, t["x"].shape), padding=2, stride=2)
    assert_equal(same.reference(x=t["x"], weight=dense), w.reference(**t))


@pytest.mark.parametrize("groups", [2, 3, 6])
def test_grouped_is_block_diagonal(groups):
    w = conv.conv2d(N=2, C=6, O=12, H=5, W=6, kernel=3, padding=1, groups=groups)
    t = draw(w)
    dense, c, o = np.zeros((12, 6, 3, 3)), 6 // groups, 12 // groups
    for g in range(groups):
        dense[g * o:(g + 1) * o, g * c:(g + 1) * c] = t["weight"][g * o:(g + 1) * o]
    same = conv.conv2d(N=2, C=6, O=12, H=5, W=6, kernel=3, padding=1)
    assert_equal(same.reference(x=t["x"], weight=dense), w.reference(**t))


@pytest.mark.parametrize("m", [1, 3])
def test_depthwise_is_block_diagonal_dense_and_grouped(m):
    w = depthwise.depthwise_conv2d(N=2, C=5, M=m, H=6, W=5, kernel=3, padding=((0, 2), (1, 1)), stride=2)
    t = draw(w)
    dense = np.zeros((5 * m, 5, 3, 3))
    for o in range(5 * m):
        dense[o, o // m] = t["weight"][o, 0]
    same = conv.conv2d(N=2, C=5, O=5 * m, H=6, W=5, kernel=3, padding=((0, 2), (1, 1)), stride=2)
    assert_equal(same.reference(x=t["x"], weight=dense), w.reference(**t))
    grouped = conv.conv2d(N=2, C=5, O=5 * m, H=6, W=5, kernel=3, padding=((0, 2), (1, 1)), stride=2, groups=5)
    assert_equal(grouped.reference(**t), w.reference(**t))


def test_depthwise_of_an_outer_product_is_two_passes():
    x, row, column = rng.standard_normal((1, 4, 8, 9)), rng.standard_normal((4, 1, 1, 5)), rng.standard_normal((4, 1, 5, 1))
    op = depthwise.depthwise_conv2d
    across = op(N=1, C=4, H=8, W=9, kernel=(1, 5), padding=(0, 2)).reference(x=x, weight=row)
    both = op(N=1, C=4, H=8, W=9, kernel=(5, 1), padding=(2, 0)).reference(x=across, weight=column)
    assert_equal(op(N=1, C=4, H=8, W=9, kernel=5, padding=2).reference(x=x, weight=row * column), both)


@pytest.mark.parametrize("mode, numpy_mode", [("zeros", "constant"), ("reflect", "reflect"), ("replicate", "edge"), ("circular", "wrap")])
@pytest.mark.parametrize("pads", [((1, 1), (2, 0)), ((4, 4), (3, 4)), ((0, 3), (4, 1))])
def test_padding_mode_is_padding_first(mode, numpy_mode, pads):
    w = conv.conv2d(N=1, C=3, O=2, H=5, W=5, kernel=(3, 2), padding=pads, padding_mode=mode, stride=(1, 2))
    t = draw(w)
    padded = np.pad(t["x"], [(0, 0), (0, 0), *pads], mode=numpy_mode)
    plain = conv.conv2d(N=1, C=3, O=2, **positions(2, padded.shape), kernel=(3, 2), stride=(1, 2))
    assert_equal(w.reference(**t), plain.reference(x=padded, weight=t["weight"]))


def test_circular_padding_by_the_whole_input():
    w = conv.conv1d(N=1, C=1, O=1, L=4, kernel=3, padding=4, padding_mode="circular")
    t = draw(w)
    padded = np.concatenate([t["x"]] * 3, axis=2)
    assert_equal(w.reference(**t), conv.conv1d(N=1, C=1, O=1, L=12, kernel=3).reference(x=padded, weight=t["weight"]))


def test_same_padding_of_an_even_kernel_puts_the_odd_one_after():
    w = conv.conv2d(N=1, C=1, O=1, H=5, W=6, kernel=(2, 4), padding="same", dilation=(1, 3))
    assert w.attributes["padding"] == ((0, 1), (4, 5)) and w.program.output.shape == (1, 1, 5, 6)


def test_separable_block_is_two_convolutions():
    w = depthwise.separable_block2d(N=2, C=4, O=6, H=7, W=8, kernel=3, padding=1, stride=2, dilation=2)
    t = draw(w)
    inner = depthwise.depthwise_conv2d(N=2, C=4, H=7, W=8, kernel=3, padding=1, stride=2, dilation=2).reference(x=t["x"], weight=t["weight_dw"])
    outer = conv.conv2d(N=2, C=4, O=6, **positions(2, inner.shape), kernel=1)
    assert_equal(outer.reference(x=inner, weight=t["weight_pw"]), w.reference(**t))


@pytest.mark.parametrize("stride, padding, dilation", [(1, 1, 1), (2, ((2, 1), (0, 2)), 1), (1, 2, 2)])
def test_partial_padding_keeps_a_constant_image_constant(stride, padding, dilation):
    w = conv.partial_padding_conv2d(N=1, C=3, O=2, H=8, W=7, kernel=3, stride=stride, padding=padding, dilation=dilation)
    weight = rng.standard_normal((2, 1, 3, 1)) * rng.standard_normal((1, 3, 1, 1))  # rows alike, so that every part of a window weighs its share
    t = {"x": np.ones((1, 3, 8, 7)), "weight": np.broadcast_to(weight.mean(2, keepdims=True), (2, 3, 3, 3))}
    assert_equal(w.reference(**t), np.broadcast_to(t["weight"].sum((1, 2, 3)).reshape(1, 2, 1, 1), w.program.output.shape))
    assert {"row_ratio", "column_ratio"} <= {s.name for s in w.program.bind_stages}


def test_partial_convolution_of_a_whole_image_is_partial_padding():
    sizes = dict(N=2, C=4, O=6, H=7, W=6, kernel=(3, 2), stride=2, padding=((1, 2), (0, 1)), groups=2)
    w, same = conv.partial_conv2d(**sizes), conv.partial_padding_conv2d(**sizes)
    t = draw(same)
    assert_equal(w.reference(**t, mask=np.ones((2, 1, 7, 6))), same.reference(**t))


def test_partial_convolution_sees_nothing_behind_the_mask():
    w = conv.partial_conv2d(N=1, C=3, O=4, H=9, W=8, kernel=3, padding=1, bias=True)
    mask = np.zeros((1, 1, 9, 8))
    mask[..., 4] = 1
    t = draw(w, mask=mask)
    y = w.reference(**t)
    assert (y[..., [0, 1, 2, 6, 7]] == 0).all() and (y[..., 3:6] != 0).all()
    assert_equal(w.reference(**t | {"x": np.where(mask > 0, t["x"], 1e6)}), y)


@pytest.mark.parametrize("r, k", [(2, 3), (3, 3), (2, 5), (3, 1)])
def test_pixel_shuffle_is_a_transposed_convolution(r, k):
    """ESPCN: tap (i, j) of phase (a, b) becomes tap (a + r (2 half - i), b + r (2 half - j)) of a kernel r times as large."""
    half = k // 2
    w = conv.conv2d_pixel_shuffle(N=1, C=3, O=2, H=5, W=4, kernel=k, padding=half, upscale=r)
    t = draw(w)
    large = np.zeros((3, 2, k * r, k * r))
    for a, b, i, j in np.ndindex(r, r, k, k):
        large[:, :, a + r * (2 * half - i), b + r * (2 * half - j)] = t["weight"][a * r + b::r * r, :, i, j].T
    same = conv.conv_transpose2d(N=1, C=3, O=2, H=5, W=4, kernel=k * r, stride=r, padding=r * half)
    assert_equal(same.reference(x=t["x"], weight=large), w.reference(**t))


@pytest.mark.parametrize("c, o, stride, hidden", [(4, 4, 1, 10), (4, 6, 1, 10), (4, 4, 2, 10), (4, 4, 1, 4)])
def test_inverted_residual_is_its_layers_in_a_row(c, o, stride, hidden):
    w = blocks.inverted_residual2d(N=2, C=c, HIDDEN=hidden, O=o, H=7, W=6, kernel=(3, 5), stride=stride)
    t = draw(w)
    y = t["x"]
    assert ("weight_expand" in t) == (hidden != c)
    if hidden != c:
        y = conv.conv2d(N=2, C=c, O=hidden, H=7, W=6, kernel=1, bias=True, activation="relu6").reference(x=y, weight=t["weight_expand"], bias=t["bias_expand"])
    y = depthwise.depthwise_conv2d(N=2, C=hidden, H=7, W=6, kernel=(3, 5), padding=(1, 2), stride=stride, bias=True, activation="relu6").reference(
        x=y, weight=t["weight_dw"], bias=t["bias_dw"])
    y = conv.conv2d(N=2, C=hidden, O=o, **positions(2, y.shape), kernel=1, bias=True).reference(x=y, weight=t["weight_project"], bias=t["bias_project"])
    assert_equal(w.reference(**t), y + t["x"] if stride == 1 and c == o else y)


def test_large_kernel_attention_is_its_layers_in_a_row():
    w = blocks.large_kernel_attention2d(N=2, C=4, H=9, W=8, SMALL=3, kernel=(3, 5), dilation=(3, 2))
    t, op = draw(w), depthwise.depthwise_conv2d
    y = op(N=2, C=4, H=9, W=8, kernel=3, padding=1, bias=True).reference(x=t["x"], weight=t["weight_dw"], bias=t["bias_dw"])
    y = op(N=2, C=4, H=9, W=8, kernel=(3, 5), padding=(3, 4), dilation=(3, 2), bias=True).reference(x=y, weight=t["weight_dilated"], bias=t["bias_dilated"])
    y = conv.conv2d(N=2, C=4, O=4, H=9, W=8, kernel=1, bias=True, gate=True).reference(x=y, weight=t["weight_pw"], bias=t["bias_pw"], gate=t["x"])
    assert_equal(w.reference(**t), y)


def test_convnext_block_ignores_a_shift_and_a_factor_of_all_its_filtered_channels():
    """The layer norm takes out what all channels of a pixel share; without it a layer scale of zero leaves the input."""
    w = blocks.convnext_block2d(N=1, C=5, HIDDEN=12, H=6, W=7, kernel=3, eps=0.0)
    t = draw(w)
    changed = t | {"weight_dw": 3 * t["weight_dw"], "bias_dw": 3 * t["bias_dw"] + 0.7}
    assert_equal(w.reference(**t), w.reference(**changed))
    assert_equal(w.reference(**t | {"layer_scale": np.zeros(5)}), t["x"])
    assert {s.name for s in w.program.bind_stages} == {"scaled_1", "shift", "shifted_1", "scaled_2", "shifted_2"}


def test_inception_is_one_depthwise_convolution():
    w = depthwise.inception_depthwise_conv2d(N=2, C=8, GC=2, H=6, W=13, bias_hw=True, bias_h=True)
    t = draw(w)
    kernel, bias = np.zeros((8, 1, 11, 11)), np.zeros(8)
    kernel[:2, 0, 5, 5] = 1
    kernel[2:4, 0, 4:7, 4:7] = t["weight_hw"][:, 0]
    kernel[4:6, 0, 5:6] = t["weight_w"][:, 0]
    kernel[6:, 0, :, 5:6] = t["weight_h"][:, 0]
    bias[2:4], bias[6:] = t["bias_hw"], t["bias_h"]
    same = depthwise.depthwise_conv2d(N=2, C=8, H=6, W=13, kernel=11, padding=5, bias=True)
    assert_equal(same.reference(x=t["x"], weight=kernel, bias=bias), w.reference(**t))


@pytest.mark.parametrize("k", sorted(depthwise.DILATED_BRANCHES))
def test_merged_reparameterisation_is_the_sum_of_its_branches(k):
    w = depthwise.dilated_reparam_conv2d(N=1, C=3, H=6, W=9, kernel=k)
    assert {s.name for s in w.program.bind_stages} == {"merged_kernel", "merged_bias"}
    t = {name: v.double().numpy() for name, v in w.sample(1).items()}
    total = 0
    for i, (size, dilation) in enumerate([(k, 1), *depthwise.DILATED_BRANCHES[k]]):
        branch = depthwise.depthwise_conv2d(N=1, C=3, H=6, W=9, kernel=size, padding="same", dilation=dilation)
        y = branch.reference(x=t["x"], weight=t[f"weight{i or ''}"])
        scale, shift, mean, variance = (row.reshape(3, 1, 1) for row in t[f"bn{i or ''}"])
        total = total + (y - mean) / np.sqrt(variance + 1e-5) * scale + shift
    assert_equal(w.reference(**t), total)


def test_condconv_with_one_expert_chosen_is_that_expert():
    w = dynamic.condconv2d(N=3, C=4, O=6, E=3, H=5, W=6, kernel=3, padding=1, groups=2)
    t = draw(w, routing=np.eye(3)[[2, 0, 1]])
    plain = conv.conv2d(N=1, C=4, O=6, H=5, W=6, kernel=3, padding=1, groups=2)
    for n, expert in enumerate((2, 0, 1)):
        assert_equal(w.reference(**t)[n:n + 1], plain.reference(x=t["x"][n:n + 1], weight=t["weight"][expert]))


def test_condconv_with_equal_routing_is_a_convolution():
    w = dynamic.condconv2d(N=3, C=4, O=6, E=2, H=5, W=6, kernel=3, stride=2)
    t = draw(w, routing=np.array([[0.3, 0.9]] * 3))
    plain = conv.conv2d(N=3, C=4, O=6, H=5, W=6, kernel=3, stride=2)
    assert_equal(w.reference(**t), plain.reference(x=t["x"], weight=0.3 * t["weight"][0] + 0.9 * t["weight"][1]))


def test_condconv_is_linear_in_routing():
    w = dynamic.condconv2d(N=2, C=3, O=2, E=4, H=4, W=4, kernel=2)
    a, b = draw(w), rng.standard_normal((2, 4))
    added = w.reference(**a | {"routing": a["routing"] + 2 * b})
    assert_equal(added, w.reference(**a) + 2 * w.reference(**a | {"routing": b}))


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_involution_with_a_constant_kernel_is_a_shared_depthwise_convolution(groups):
    w = dynamic.involution2d(N=1, C=6, G=groups, H=7, W=6, kernel=3, padding=((1, 2), (0, 1)), stride=2, dilation=2)
    shape = w.program.tensor("weight").shape
    kernel = rng.standard_normal((groups, 3, 3))
    t = draw(w, weight=np.broadcast_to(kernel[None, :, :, :, None, None], shape))
    plain = depthwise.depthwise_conv2d(N=1, C=6, H=7, W=6, kernel=3, padding=((1, 2), (0, 1)), stride=2, dilation=2)
    assert_equal(w.reference(**t), plain.reference(x=t["x"], weight=np.repeat(kernel, 6 // groups, 0)[:, None]))


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_ska_is_involution_of_permuted_channels(groups):
    sizes = dict(N=2, C=6, G=groups, H=7, W=6, kernel=3, padding=((1, 2), (0, 1)), stride=2, dilation=2)
    w, same = dynamic.ska2d(**sizes), dynamic.involution2d(**sizes)
    t = draw(w)
    order = np.arange(6).reshape(-1, groups).T.ravel()  # channels that share a kernel become neighbours
    assert_equal(w.reference(**t)[:, order], same.reference(x=t["x"][:, order], weight=t["weight"]))


def test_ska_with_a_constant_kernel_is_a_depthwise_convolution_with_tied_kernels():
    w = dynamic.ska2d(N=1, C=6, G=2, H=7, W=6, kernel=3, padding=1)
    kernel = rng.standard_normal((2, 3, 3))
    t = draw(w, weight=np.broadcast_to(kernel[None, :, :, :, None, None], w.program.tensor("weight").shape))
    plain = depthwise.depthwise_conv2d(N=1, C=6, H=7, W=6, kernel=3, padding=1)
    assert_equal(w.reference(**t), plain.reference(x=t["x"], weight=np.tile(kernel, (3, 1, 1))[:, None]))


def test_tvconv_with_a_constant_kernel_is_a_depthwise_convolution():
    sizes = dict(N=2, C=5, H=7, W=6, kernel=(3, 2), padding=((1, 2), (0, 1)), stride=2, dilation=2)
    w = dynamic.tvconv2d(**sizes)
    kernel = rng.standard_normal((5, 3, 2))
    t = draw(w, weight=np.broadcast_to(kernel[:, :, :, None, None], w.program.tensor("weight").shape))
    assert_equal(w.reference(**t), depthwise.depthwise_conv2d(**sizes).reference(x=t["x"], weight=kernel[:, None]))


def test_tvconv_is_involution_with_a_group_per_channel_and_the_same_kernels_for_every_sample():
    sizes = dict(N=2, C=5, H=7, W=6, kernel=3, padding=1, stride=(2, 1))
    w, same = dynamic.tvconv2d(**sizes), dynamic.involution2d(**sizes, G=5)
    t = draw(w)
    assert_equal(w.reference(**t), same.reference(x=t["x"], weight=np.broadcast_to(t["weight"], same.program.tensor("weight").shape)))


@pytest.mark.parametrize("alignment", ["centred", "causal"])
def test_dynamic_convolution_with_constant_logits_is_a_moving_average(alignment):
    w = dynamic.dynamic_conv1d(N=2, C=4, HEADS=2, L=9, K=4, alignment=alignment)
    t = draw(w, weight=np.full((2, 2, 4, 9), 0.7))
    before = 3 if alignment == "causal" else 2
    padded = np.pad(t["x"], [(0, 0), (0, 0), (before, 3 - before)])
    assert_equal(w.reference(**t), sum(padded[:, :, k:k + 9] for k in range(4)) / 4)


def test_dynamic_convolution_with_kernels_constant_in_time_is_a_depthwise_convolution():
    w = dynamic.dynamic_conv1d(N=2, C=5, HEADS=5, L=9, K=3, softmax=False)
    kernel = rng.standard_normal((5, 3))
    t = draw(w, weight=np.broadcast_to(kernel[None, :, :, None], (2, 5, 3, 9)))
    plain = conv.conv1d(N=2, C=5, O=5, L=9, K=3, padding=1, groups=5)
    assert_equal(w.reference(**t), plain.reference(x=t["x"], weight=kernel[:, None]))


def test_dynamic_convolution_survives_large_logits():
    w = dynamic.dynamic_conv1d(N=1, C=2, HEADS=1, L=5, K=3)
    t = draw(w, weight=rng.standard_normal((1, 1, 3, 5)) + 5000)
    assert_equal(w.reference(**t), w.reference(**t | {"weight": t["weight"] - 5000}), 1e-9)


DEFORM = dict(N=2, C=4, O=6, H=7, W=6, kernel=3)


def offsets(w, pairs):
    """The same (dy, dx) per tap at every position, sample and offset group. `pairs`: [KH*KW, 2]."""
    n, channels, p, q = w.program.tensor("offset").shape
    groups = channels // (2 * len(pairs))
    return np.broadcast_to(np.tile(np.asarray(pairs, float).reshape(-1), groups)[None, :, None, None], (n, channels, p, q))


@pytest.mark.parametrize("groups, dg", [(1, 1), (2, 1), (1, 2), (2, 4)])
@pytest.mark.parametrize("mask", [None, 1.0, 0.5])
def test_deformable_convolution_without_offsets_is_a_convolution(groups, dg, mask):
    w = dynamic.deform_conv2d(**DEFORM, DG=dg, groups=groups, padding=((1, 0), (2, 1)), stride=(2, 1), mask=mask is not None)
    t = draw(w, offset=offsets(w, np.zeros((9, 2))))
    if mask is not None:
        t["mask"] = np.full_like(t["mask"], mask)
    plain = conv.conv2d(**DEFORM, groups=groups, padding=((1, 0), (2, 1)), stride=(2, 1))
    assert_equal(w.reference(**t), (mask or 1.0) * plain.reference(x=t["x"], weight=t["weight"]))


@pytest.mark.parametrize("dy, dx", [(1, -2), (-3, 0), (0, 5), (9, 9)])
def test_integer_offsets_shift_the_image(dy, dx):
    w = dynamic.deform_conv2d(**DEFORM, padding=1)
    t = draw(w, offset=offsets(w, [(dy, dx)] * 9))
    far = 20  # zeros around, the window moved by the offset
    padded = np.pad(t["x"], [(0, 0), (0, 0), (far, far), (far, far)])
    shifted = padded[:, :, far - 1 + dy:far + 8 + dy, far - 1 + dx:far + 7 + dx]
    plain = conv.conv2d(**DEFORM | {"H": 9, "W": 8})
    assert np.abs(w.reference(**t) - plain.reference(x=shifted, weight=t["weight"])).max() < 1e-12


@pytest.mark.parametrize("d", [2, 3])
def test_offsets_that_spread_the_taps_are_a_dilation(d):
    w = dynamic.deform_conv2d(**DEFORM, padding=1)
    t = draw(w, offset=offsets(w, [((i - 1) * (d - 1), (j - 1) * (d - 1)) for i in range(3) for j in range(3)]))
    assert_equal(w.reference(**t), conv.conv2d(**DEFORM, padding=d, dilation=d).reference(x=t["x"], weight=t["weight"]))


def test_half_a_pixel_is_the_mean_of_two():
    w = dynamic.deform_conv2d(N=1, C=1, O=1, H=1, W=6, kernel=1)
    x = rng.standard_normal((1, 1, 1, 6))
    y = w.reference(x=x, offset=offsets(w, [(0, 0.5)]), weight=np.ones((1, 1, 1, 1)))
    assert_equal(y[0, 0, 0], (x[0, 0, 0] + np.append(x[0, 0, 0, 1:], 0)) / 2)


def test_equal_offset_groups_are_one_group():
    one = dynamic.deform_conv2d(**DEFORM, padding=1, DG=1)
    t = draw(one)
    two = dynamic.deform_conv2d(**DEFORM, padding=1, DG=2)
    assert_equal(two.reference(**t | {"offset": np.concatenate([t["offset"]] * 2, 1)}), one.reference(**t))
