"""Register tiles that slide along a window over what they have loaded: where they are offered, and that they are right for every stride, dilation, border and sum."""

import pytest

from convgen import schedules
from convgen.emit import tiling
from convgen.lang import parse
from convgen.runtime.cpu import missing
from tests.emit.kernels import complaints, job, target

MACHINE = target("x86:avx512")
# id → knobs; windows along both axes, with steps and taps apart, whole planes whose border is left out, kernels per pixel, and sums over channels
SLIDING = {
    "depthwise_conv2d:n1,c3,h14,w20,k5x3;padding=2x1:f32.f32.f32:nchw:act=relu,bias": dict(tile1=7, vectors=2),
    "depthwise_conv2d:n2,c4,h7,w16,k3x3;padding=1:f32.f32.f32:nchw": dict(tile1=7, padding="skip"),
    "depthwise_conv2d:n1,c2,h16,w16,k3x5;padding=3x2,dilation=3x1:f32.f32.f32:nchw": dict(tile1=4, tile2=2, unroll=2),
    "depthwise_conv2d:n1,c2,h15,w18,k3x2;stride=2x1,padding=1:f32.f32.f32:nchw": dict(tile1=4, store="row"),
    "involution2d:n1,c4,g2,h6,w17,k3x3;padding=1:f32.f32.f32:nchw": dict(tile1=6),
    "conv2d:n1,c3,o4,h8,w32,k3x3;padding=1:f32.f32.f32:nchw": dict(tile1=4, tile2=2),
}


def choices(machine):
    for id, knobs in SLIDING.items():
        w = parse(id)
        leaf = schedules.space(w.description, machine).leaves["direct"]
        c = leaf.default() | {"sum.vec": "q", "sum.inner": "slide", "sum.unroll": 1, "sum.tile2": 1, "sum.vectors": 1, "sum.padding": "stage", "sum.store": "tile", "sum.copies": "root", "sum.order": "vector"}
        yield w, leaf, c | {f"sum.{k}": v for k, v in knobs.items()}


def test_sums_of_sliding_tiles_are_right(kernels):
    if missing(MACHINE["features"]):
        pytest.skip("this processor cannot run such kernels")
    sums = list(choices(MACHINE))
    assert not [w.id for w, leaf, choice in sums if leaf.valid(choice) is not None]
    answers = kernels.ask([job(w, MACHINE, choice) for w, _, choice in sums])
    assert not [line for (w, _, _), answer in zip(sums, answers) for line in complaints(w, answer)]


def test_a_tile_slides_along_its_own_axis_only():
    for w, leaf, choice in choices(MACHINE):
        stage = leaf.anchors["sum"].stage
        taps = leaf.anchors["sum"].roles.window
        assert tiling.window_order(leaf.program, stage, choice) == taps[::-1] and tiling.unrolled(leaf.program, stage, choice)[-1] == taps[0]
        assert tiling.window_order(leaf.program, stage, choice | {"sum.inner": "channel"}) == taps
        for knobs in ({"sum.tile1": 1}, {"sum.unroll": 0}):
            assert leaf.valid(choice | knobs) is not None
    pixels = schedules.space(parse("depthwise_conv2d:n1,c64,h14,w14,k3x3;padding=1:f32.f32.f32:nhwc").description, MACHINE).leaves["direct"]
    assert pixels.valid(pixels.default() | {"sum.inner": "slide"}) is not None, "tiles along rows meet the taps of a row anyway"


@pytest.mark.parametrize("machine, slides", [("x86:avx512", True), ("x86:avx2", False), ("arm:cortex-a76", False)])
def test_rows_in_vectors_are_slid_over_by_default_where_registers_are_many(machine, slides):
    choice = schedules.space(parse("depthwise_conv2d:n1,c120,h28,w28,k5x5;padding=2:f32.f32.f32:nchw").description, target(machine)).default()
    assert (choice["sum.inner"] == "slide") == slides
