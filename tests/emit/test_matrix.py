"""Sums as products of matrices: which stages are one, how their operands lie, and which tiles a GPU may take."""

import itertools

import pytest

from convgen import schedules
from convgen.emit import matrix, plan
from convgen.emit.matrix import Merged, Tile
from convgen.lang import access, parse
from convgen.lang.merge import merged
from convgen.schedules.cuda import matrices
from tests.emit.kernels import target

SM90 = target("cuda:sm_90")


def stage_of(text):
    program = merged(access.specialised(parse(text).program))
    return program, next(s for s in program.run_stages if s.combiner)


@pytest.mark.parametrize("text, axes, sizes, data, out", [
    ("conv2d:n2,c40,o72,h9,w11,k3x3;padding=1:f16.f32.f16:nhwc", (("n", "p", "q"), ("o",), ("kh", "kw", "c")), (198, 72, 360), (1, 8), (1, 4)),
    ("conv2d:n2,c64,o128,h8,w8,k1x1:bf16.f32.bf16:nchw", (("n", "p_q"), ("o",), ("kh", "kw", "c")), (128, 128, 64), (0, 8), (0, 4)),
    ("conv2d:n2,c6,o7,h8,w9,k3x3;stride=2:f16.f32.f32:nchw", (("n", "p", "q"), ("o",), ("kh", "kw", "c")), (24, 7, 54), (0, 1), (0, 4)),
    ("conv3d:n1,c10,o6,d2,h4,w3,k2x3x2;padding=1:bf16.f32.bf16:ndhwc", (("n", "do", "p", "q"), ("o",), ("kd", "kh", "kw", "c")), (48, 6, 120), (1, 2), (1, 2)),
    ("conv2d:n1,c24,o16,h1,w5,k1x1:f16.f32.f16:nhwc", (("n", "p", "q"), ("o",), ("kh", "kw", "c")), (5, 16, 24), (1, 8), (1, 4)),
    ("conv1d:n2+,c32,o16,l40,k3;padding=1:f16.f32.f32:ncl", (("lo",), ("o",), ("k", "c")), (40, 16, 96), (0, 1), (0, 4)),
])
def test_what_counts_as_a_product(text, axes, sizes, data, out):
    program, stage = stage_of(text)
    product = matrix.find(program, stage)
    assert (product.rows, product.columns, product.terms) == axes
    assert product.batch == (("n",) if "+" in text else ()) and product.sizes(stage) == sizes
    assert matrix.run_of_data(program, stage, product) == data and matrix.run_of_output(program, stage, product) == out


@pytest.mark.parametrize("text", [
    "conv2d:n1,c16,o16,h7,w6,k3x3:f32.f32.f32:nhwc",  # nothing narrow
    "conv2d:n1,c16,o16,h7,w6,k3x3;groups=2:f16.f32.f16:nhwc",  # a product for every group
    "depthwise_conv2d:n1,c16,h7,w6,k3x3:f16.f32.f16:nhwc", "involution2d:n1,c16,g2,h7,w6,k3x3;padding=1:f16.f32.f16:nhwc",
    "deform_conv2d:n1,c16,o16,h7,w6,k3x3:f16.f32.f16:nhwc",  # its data is computed in float32
    "quantized_conv2d:n1,c16,o16,h7,w6,k1x1:u8.i32.u8:nhwc",
])
def test_what_does_not(text):
    program = merged(access.specialised(parse(text).program))
    assert all(matrix.find(program, s) is None and matrices.tiles(program, s, SM90) == [] for s in program.run_stages)
    space = schedules.space(parse(text).description, SM90)
    assert not [knob for leaf in space.leaves.values() for knob in leaf.domains if knob.endswith(".tensor")]


@pytest.mark.parametrize("vector", [(0, 1), (0, 2), (1, 5)])
def test_a_merged_layout_and_its_inverse(vector):
    extents = [3, 4, 2, 5]
    layout = Merged(extents, [[0, 1], [2, 3]], [16, 15], vector)
    seen = set()
    for physical in itertools.product(*map(range, layout.shape)):
        logical = layout.logical(physical)
        assert layout.split_up(layout.index(logical)) == list(physical)
        seen.add(tuple(logical))
    beyond = [index for index in seen if any(i >= e for i, e in zip(index, extents))]
    assert len(seen) == 16 * 15 and set(itertools.product(*map(range, extents))) <= seen and len(beyond) == 16 * 15 - 120
    assert all(i < e for index in seen for i, e in zip(index, layout.extents)) and layout.extents[1::2] == extents[1::2]


def test_operands_are_filled_up_to_whole_tiles():
    program, stage = stage_of("conv2d:n1,c40,o72,h9,w11,k3x3;padding=1:f16.f32.f16:nhwc:bias")
    p = plan.make(program, {"algorithm": "direct", "sum.tensor": "64x64x32/2x2"}, 1).stage("sum")
    data, weights = p.operands.values() if p.operands[plan.key(p.matrix.data)] is next(iter(p.operands.values())) else reversed(list(p.operands.values()))
    assert (data.kind, data.dtype, data.layout.shape) == ("staged", "float16", [128, 48, 8])
    assert (weights.kind, weights.dtype, weights.layout.shape) == ("packed", "float16", [384, 128]) and p.layout.shape == [128, 128]


@pytest.mark.parametrize("name", ["cuda:sm_80", "cuda:sm_86", "cuda:sm_89", "cuda:sm_90"])
@pytest.mark.parametrize("text", ["conv2d:n32,c256,o256,h56,w56,k3x3;padding=1:bf16.f32.bf16:nhwc", "conv2d:n1,c3,o64,h56,w56,k7x7;stride=2,padding=3:f16.f32.f16:nchw",
                                  "conv2d:n1,c512,o512,h7,w7,k1x1:f16.f32.f16:nchw"])
def test_tiles_fit_the_target(text, name):
    machine, (program, stage) = target(name), stage_of(text)
    limits, found = machine["limits"], matrices.tiles(program, stage, target(name))
    assert len(found) > 10 and len(set(found)) == len(found)
    for tile in map(Tile.of, found):
        fragments = tile.rows * tile.columns // (tile.down * tile.across) // 256
        assert str(tile) in found and tile.terms % 16 == 0 and 1 <= fragments <= 8 and 32 * tile.down * tile.across <= limits["threads_per_block"]
        assert matrices.shared_bytes(tile) <= limits["shared_per_block"]


def test_larger_tiles_for_larger_products():
    first = lambda text: Tile.of(matrices.tiles(*stage_of(text), SM90)[0])
    small, large = first("conv2d:n1,c64,o64,h28,w28,k3x3;padding=1:f16.f32.f16:nhwc"), first("conv2d:n64,c256,o256,h56,w56,k3x3;padding=1:f16.f32.f16:nhwc")
    assert (small.rows * small.columns, large.rows, large.columns) == (1024, 128, 128)


@pytest.mark.parametrize("text, taken", [
    ("conv2d:n1,c64,o64,h56,w56,k3x3;padding=1:f16.f32.f16:nhwc", True), ("conv2d:n1,c2048,o512,h7,w7,k1x1:bf16.f32.bf16:nchw", True),
    ("conv2d:n1,c3,o64,h224,w224,k7x7;stride=2,padding=3:f16.f32.f16:nchw", True),
    ("conv2d:n1,c4,o8,h5,w5,k3x3:f16.f32.f16:nhwc", False), ("conv2d:n1,c64,o1,h56,w56,k3x3;padding=1:f16.f32.f16:nhwc", False),  # mostly fill
])
def test_defaults_take_the_tensor_cores_where_it_is_worth_it(text, taken):
    space = schedules.space(parse(text).description, SM90)
    choice = space.leaves["direct"].default()
    assert space.valid(choice) is None and bool(choice["sum.tensor"]) == taken
    if taken:
        assert space.default() == choice  # and no algorithm of fewer multiplications is thought faster


def test_a_store_that_waits_for_other_results_is_left_alone():
    from convgen.lang import operator

    @operator(dims="N C O H W", epilogue=False)
    def gated2d(o):
        """A 1x1 convolution, scaled by the mean of each output's row."""
        n, k, p, q = o.axes("N O H W")
        c, other, s = o.axis("c", o.C), o.axis("other", o.C), o.axis("s", o.W)
        x = o.input("x", "N C H W")
        gate = o.stage(o.sum(x[n, other, p, s], (other, s), name="gate"), (n, p))
        return o.stage(o.sum(o.param("weight", "O", "C")[k, c] * x[n, c, p, q], c), (n, k, p, q))[n, k, p, q] * gate[n, p]

    program = merged(access.specialised(gated2d(N=1, C=64, O=64, H=8, W=8, dtype="float16").program))
    found = [s for s in program.run_stages if matrix.find(program, s) is not None]
    assert len(found) == 1 and plan.epilogue_of(program)[0] is found[0] and matrices.tiles(program, found[0], SM90) == []
