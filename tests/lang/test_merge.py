"""Merging of adjacent axes: only where no read tells them apart, and always the same result."""

import numpy as np
import pytest

from convgen.lang import access, parse
from convgen.lang.merge import merged

JOINED = {
    "conv2d:n2,c5,o6,h4,w7,k1x1:f32.f32.f32:nchw": [2, 6, 28],
    "conv2d:n2,c5,o6,h4,w7,k1x1:f32.f32.f32:nhwc": [2, 6, 28],
    "conv2d:n1,c4,o6,h4,w7,k1x1;groups=2:f32.f32.f32:nhwc:bias,act=relu,residual": [1, 6, 28],
    "conv3d:n1,c4,o6,d2,h3,w5,k1x1x1:f32.f32.f32:nchw": [1, 6, 30],
    "conv2d:n3+,c4,o6,h3,w5,k1x1:f32.f32.f32:nchw": [3, 6, 15],
}
APART = [
    "conv2d:n1,c4,o6,h6,w7,k3x3;padding=1:f32.f32.f32:nchw",
    "conv2d:n1,c4,o6,h6,w7,k1x1;stride=2:f32.f32.f32:nchw",
    "conv2d:n1,c4,o6,h6,w7,k1x1;padding=1:f32.f32.f32:nchw",
    "conv2d:n1,c4,o6,h6,w7,k3x1:f32.f32.f32:nchw",
    "conv2d:n1,c4,o6,h6,w1,k1x1:f32.f32.f32:nchw",
    "conv1d:n2,c4,o6,l7,k1:f32.f32.f32:nchw",
    "depthwise_conv2d:n1,c4,h6,w7,k3x3:f32.f32.f32:nchw",
]


def simplified(id):
    return access.specialised(parse(id).program)


@pytest.mark.parametrize("id", JOINED)
def test_positions_become_one_axis(id):
    before = simplified(id)
    program = merged(before)
    assert list(program.output.shape) == [a.size.value for a in program.stages[-1].axes] == JOINED[id]
    tensors = before.sample(0)
    views = {t.name: tensors[t.name].reshape(t.shape) for t in program.tensors}
    np.testing.assert_allclose(program.reference(views), before.reference(tensors).reshape(JOINED[id]), rtol=1e-13)
    assert program.flops == before.flops and program.bytes == before.bytes


@pytest.mark.parametrize("id", APART)
def test_axes_that_a_read_tells_apart_stay(id):
    program = simplified(id)
    assert merged(program) is program


@pytest.mark.parametrize("layout, order, shape", [("nchw", [0, 1, 2, 3], [2, 5, 4, 7]), ("nhwc", [0, 2, 3, 1], [2, 4, 7, 5])])
def test_the_border_keeps_the_callers_dims(layout, order, shape):
    program = merged(simplified(f"conv2d:n2,c5,o6,h4,w7,k1x1:f32.f32.f32:{layout}"))
    assert [(d, n) for d, _, n in program.tensor("x").memory(program.layout)] == list(zip(order, shape))
