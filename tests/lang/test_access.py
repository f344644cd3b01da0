"""Roles of axes, which follow from how they occur."""

import pytest

from convgen import algorithms
from convgen.lang import access, parse
from convgen.lang import expr as E
from convgen.lang.size import Size


def roles(id, stage="sum"):
    program = access.specialised(parse(id).program)
    found = access.roles(program.stage(stage))
    return found.window, found.spatial, found.channel, found.plain


@pytest.mark.parametrize("id, window, spatial, channel, plain", [
    ("conv2d:n2,c8,o16,h9,w9,k3x3;padding=1:f32.f32.f32:nchw", ["kh", "kw"], ["p", "q"], ["c"], ["n", "o"]),
    ("conv2d:n2,c8,o16,h9,w9,k3x3;stride=2,dilation=2,groups=4:f32.f32.f32:nchw", ["kh", "kw"], ["p", "q"], ["c"], ["n", "o"]),
    ("conv2d:n1,c8,o16,h9,w9,k1x3:f32.f32.f32:nhwc", ["kw"], ["q"], ["c", "kh"], ["n", "o", "p"]),
    ("conv3d:n1,c4,o4,d3,h4,w5,k2x2x2:f32.f32.f32:ncdhw", ["kd", "kh", "kw"], ["do", "p", "q"], ["c"], ["n", "o"]),
    ("conv_transpose1d:n1,c4,o6,l8,k4:f32.f32.f32:ncl", ["k"], ["lo"], ["c"], ["n", "o"]),
    ("conv_transpose1d:n1,c4,o6,l8,k4;stride=2:f32.f32.f32:ncl", [], [], ["c", "k"], ["n", "o", "lo"]),  # moves every second step only
    ("depthwise_conv2d:n1,c8,m2,h9,w9,k3x3:f32.f32.f32:nchw", ["kh", "kw"], ["p", "q"], [], ["n", "o"]),
    ("involution2d:n1,c8,g2,h9,w9,k3x3:f32.f32.f32:nchw", ["kh", "kw"], ["p", "q"], [], ["n", "c"]),
])
def test_roles(id, window, spatial, channel, plain):
    assert roles(id) == (window, spatial, channel, plain)


def test_a_batch_of_one_changes_no_role():
    assert roles("conv2d:n1,c1,o16,h9,w9,k3x3:f32.f32.f32:nchw") == (["kh", "kw"], ["p", "q"], ["c"], ["n", "o"])


def test_samples_are_gathered_and_the_convolution_after_them_is_dense():
    id = "deform_conv2d:n1,c4,o6,h7,w7,dg2,k3x3;padding=1:f32.f32.f32:nchw"
    program = access.specialised(parse(id).program)
    sampled = access.roles(program.stage("sampled"))
    assert not sampled.window and not sampled.channel and set("pq") <= set(sampled.gathered)
    window, _, channel, plain = roles(id)
    assert not window and sorted(channel) == ["c", "kh", "kw"] and set(plain) == {"n", "o", "p", "q"}


def test_linear_reads_affine_indices_only():
    a, b = (E.Axis(n, Size(n, 8, [])) for n in "ab")
    assert access.linear(a * 2 + b * 3 - 1) == ({"a": 2, "b": 3}, -1)
    assert access.linear(a * Size("stride.0", 4, []) - a * 4) == ({}, 0)
    assert access.linear(a // 2 + b) is None and access.linear(a * b) is None
    assert access.linear(a // 1) == ({"a": 1}, 0) and access.linear(a % 1) == ({}, 0)


def test_values_along_an_axis():
    a, b = (E.Axis(n, Size(n, 8, [])) for n in "ab")
    assert list(access.on_axis(a // 2 * 3 + b, "a", 6)) == [0, 0, 3, 3, 6, 6]
    assert list(access.on_axis(b + 1, "a", 3)) == [1, 1, 1]
    assert access.on_axis(E.to_int(E.unary("floor", E.Tensor("t", [8])[a])), "a", 4) is None


def test_coefficients_repeat_with_the_tiles():
    w = parse("conv2d:n1,c16,o16,h9,w11,k3x3;padding=1:f32.f32.f32:nchw")
    program = access.specialised(algorithms.variants(w.program)["winograd4"])
    result, data = program.stage("sum_result_q"), program.stage("sum_data_q")
    assert [access.period(result, a) for a in ("n", "o", "p", "q")] == [0, 0, 0, 4]
    assert access.period(program.stage("sum_result_p"), "p") == 4
    assert access.period(data, "q_point") == 6 and access.period(data, "q_tile") == 0


@pytest.mark.parametrize("id, finished", [
    ("inverted_residual2d:n1,c8,hidden16,o8,h9,w9,k3x3:f32.f32.f32:nchw", {"expanded": "sum", "filtered": "sum2", "out": "sum3"}),
    ("convnext_block2d:n1,c8,hidden16,h9,w9,k7x7:f32.f32.f32:nhwc", {"depthwise": "sum", "mean": "total", "spread": "squares", "activated": "sum2", "out": "sum3"}),
    ("dynamic_conv1d:n2,c8,heads2,l9,k3:f32.f32.f32:nlc:act=silu", {"out": "sum"}),  # its softmax reads a maximum and a total for every tap
])
def test_sums_that_become_a_maps_results_one_by_one(id, finished):
    program = access.specialised(parse(id).program)
    assert {s.name: found for s in program.run_stages if (found := access.finishes(program, s))} == finished
