"""Unfolding of upsampled axes: only where a sum is read once at every step and phase, and always the same result."""

import numpy as np
import pytest

from convgen import algorithms
from convgen.lang import access, parse
from convgen.lang.size import value_of
from convgen.lang.unfold import phases, unfolded

UNFOLDED = {
    "conv_transpose2d:n2,c3,o5,h4,w3,k4x4;stride=2,padding=1:f32.f32.f32:nchw": [2, 5, 4, 2, 3, 2],
    "conv_transpose2d:n1,c4,o6,h3,w4,k3x3;stride=3x2,padding=0x1,output_padding=0x1,groups=2:f32.f32.f32:nhwc:bias,residual,act=silu": [1, 6, 3, 3, 4, 2],
    "conv_transpose1d:n3+,c4,o5,l7,k16;stride=8,padding=4:f32.f32.f32:ncl": [3, 5, 7, 8],
    "conv_transpose3d:n1,c3,o2,d2,h3,w2,k2x2x2;stride=2:f32.f32.f32:ndhwc:bn": [1, 2, 2, 2, 3, 2, 2, 2],
    "conv2d_pixel_shuffle:n1,c4,o3,h4,w5,k3x3;padding=1,upscale=3:f32.f32.f32:nchw:bias_conv,act=relu": [1, 3, 4, 3, 5, 3],
    "conv2d_pixel_shuffle:n1,c4,o1,h4,w5,k3x3;padding=1,upscale=3:f32.f32.f32:nchw:bias_conv": [1, 1, 4, 3, 5, 3],
}
APART = [
    "conv_transpose2d:n1,c4,o4,h4,w3,k3x3;stride=2,padding=1:f32.f32.f32:nchw",  # an odd plane
    "conv2d:n1,c4,o6,h6,w7,k3x3;padding=1:f32.f32.f32:nchw",
]


def split(id):
    found = algorithms.variants(parse(id).program)
    return access.specialised(found.get("phases", found["direct"]))


@pytest.mark.parametrize("id", UNFOLDED)
def test_steps_and_phases_become_axes_of_the_sum(id):
    before = split(id)
    program = unfolded(before)
    last = program.stages[-1]
    assert list(program.output.shape) == list(last.shape) == UNFOLDED[id]
    assert last.combiner or [a.name for a in next(s for s in program.run_stages if s.combiner).axes] == [a.name for a in last.axes]
    tensors = before.sample(0)
    np.testing.assert_allclose(program.reference(tensors), before.reference(tensors).reshape(UNFOLDED[id]), rtol=1e-13, atol=1e-13)
    assert program.flops == before.flops and program.bytes == before.bytes
    shown = lambda p: [(d, n) for d, _, n in p.output.memory(p.layout)]
    assert shown(program) == shown(before)  # the border keeps the caller's dims
    assert all(program.output.shape[d] == r for d, r in phases(program.output).items()) and phases(before.output) == {}


@pytest.mark.parametrize("id", APART)
def test_other_programs_stay(id):
    program = split(id)
    assert unfolded(program) is program


@pytest.mark.parametrize("id, digits", [
    ("conv2d_pixel_shuffle:n1,c16,o8,h8,w8,k3x3;padding=1:f32.f32.f32:nhwc:bias_conv", True),
    ("conv2d_pixel_shuffle:n1,c16,o4,h8,w8,k3x3;padding=1:f32.f32.f32:nhwc", False),  # vectors of four channels only
    ("conv2d_pixel_shuffle:n1,c16,o8,h8,w8,k3x3;padding=1:f32.f32.f32:nchw", False),
])
def test_sums_before_have_digits_where_vectors_of_channels_are_stored(id, digits):
    """Else a sum before would be gathered from, or lose its vectors: the copy stays, on steps and phases."""
    before = access.specialised(algorithms.variants(parse(id).program)["winograd4"])
    program = unfolded(before)
    inner = [[value_of(a.size) for a in s.axes if a.name.startswith("o")] for s in program.run_stages if "points" in s.name or "result" in s.name]
    channels, last = parse(id).dims["O"], program.stages[-1]
    assert inner == [[channels] if digits else [4 * channels]] * 3
    assert list(last.shape) == list(program.output.shape) == [1, channels, 8, 2, 8, 2]
    assert not any(e.op in ("//", "%") for e in last.body.walk())
    tensors = before.sample(0)
    np.testing.assert_allclose(program.reference(tensors), before.reference(tensors).reshape(last.shape), rtol=1e-13, atol=1e-13)
    assert [(d, n) for d, _, n in program.output.memory(program.layout)] == [(d, n) for d, _, n in before.output.memory(before.layout)]


def test_positions_in_blocks_are_no_phases():
    before = access.specialised(algorithms.variants(parse("depthwise_conv1d:n1,c8,l2048,k512;padding=511_0:f32.f32.f32:ncl").program)["fft256"])
    assert unfolded(before) is before
