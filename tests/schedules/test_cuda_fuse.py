"""Which reductions of a CUDA space may be computed in another's blocks, which tiles allow it, and when the default does so."""

import random

import pytest

from convgen import schedules
from convgen.lang import parse
from tests.emit.kernels import target

MACHINE = target("cuda:sm_90")
SEPARABLE = "separable_block2d:n1,c64,o128,h28,w28,k3x3;padding=1:f32.f32.f32:nchw"
RESIDUAL = "inverted_residual2d:n1,c32,hidden192,o32,h28,w28,k3x3:f32.f32.f32:nchw"


def leaves(text):
    return schedules.space(parse(text).description, MACHINE).leaves


def joined(leaf, *producers):
    """The default with these reductions, and no others, in blocks of their consumers."""
    choice = leaf.default() | {f.knob: False for f in leaf.fusions}
    for f in leaf.fusions:
        choice |= leaf._best(f.producer) if f.producer in leaf.works else {}
    for f in leaf.fusions:
        if f.producer.name in producers:
            choice = leaf._joined(f, choice, leaf._best(f.consumer, (f,)))
    return choice


@pytest.mark.parametrize("text, expected", [
    (SEPARABLE, [("depthwise", "pointwise", [])]),
    (RESIDUAL, [("sum", "sum2", ["expanded"]), ("sum2", "sum3", ["filtered"])]),
    ("convnext_block2d:n1,c32,hidden128,h28,w28,k7x7:f32.f32.f32:nhwc", [("squares", "sum2", ["spread", "normed"]), ("sum2", "sum3", ["activated"])]),  # its first sum has three readers
    ("conv2d:n1,c32,o32,h14,w14,k3x3;padding=1:f32.f32.f32:nchw", []), ("deform_conv2d:n1,c8,o8,h9,w9,k3x3;padding=1:f32.f32.f32:nchw", []),
])
def test_pairs_are_found_by_what_reads_what(text, expected):
    assert [(f.producer.name, f.consumer.name, f.maps) for f in leaves(text)["direct"].fusions] == expected


def test_tables_are_not_computed_inside():
    """Winograd's transforms: each of their results has coefficients of its own."""
    found = leaves("conv2d:n1,c32,o32,h14,w14,k3x3;padding=1:f32.f32.f32:nchw")
    assert len(found) > 1 and not any(leaf.fusions for leaf in found.values())


@pytest.mark.parametrize("text, producers, knobs, reason", [
    (RESIDUAL, ["sum2"], {"filtered.inline": False}, "what lies between sum2 and sum3 is not computed where it is read"),
    (SEPARABLE, ["depthwise"], {"depthwise.unroll": 0}, "depthwise has no tile of its own"),
    (SEPARABLE, ["depthwise"], {"pointwise.data": "direct", "pointwise.weights": "shared"}, "pointwise does not read depthwise from shared memory"),
    (RESIDUAL, ["sum2"], {"sum.fused": True}, "sum2 has no blocks of its own that could compute sum"),
    (SEPARABLE, ["depthwise"], {"pointwise.f.each": 1, "pointwise.f.threads": 2, "pointwise.x.threads": 28, "pointwise.x.each": 1}, "depthwise would be computed 64.0 times"),
])
def test_what_is_refused(text, producers, knobs, reason):
    leaf = leaves(text)["direct"]
    choice = joined(leaf, *producers)
    assert leaf.valid(choice) is None
    assert reason in (leaf.valid(choice | knobs) or "nothing")


def test_repeats_are_counted_by_footprint():
    """4 rows and 8 columns with a window of 3 read 6 x 10 positions; every block along the output channels computes them anew."""
    leaf = leaves(RESIDUAL)["direct"]
    first, second = leaf.fusions
    tile = {f"sum2.{slot}.{part}": 1 for slot in "fyx" for part in ("threads", "each")} | {"sum2.chunk": 0, "sum2.data": "shared", "sum2.weights": "direct", "sum2.unroll": 0}
    c = joined(leaf) | tile | {"sum2.y.each": 4, "sum2.x.threads": 8}
    assert first.repeated(leaf.works[1].shape(c), c) == 7 * 4 * 60 / 28**2
    c |= {"sum3.f.threads": 8, "sum3.f.each": 1, "sum3.y.threads": 4, "sum3.y.each": 1, "sum3.x.threads": 7, "sum3.x.each": 1, "sum3.chunk": 16}
    assert second.repeated(leaf.works[2].shape(c), c) == 4


@pytest.mark.parametrize("text, fused", [
    (SEPARABLE, {"depthwise.fused"}), (RESIDUAL, {"sum.fused"}), (SEPARABLE.replace("n1,", "n32,").replace("c64,o128", "c512,o512"), set()),
    ("convnext_block2d:n8,c96,hidden384,h56,w56,k7x7:f32.f32.f32:nhwc", set()),
])
def test_the_default_fuses_where_the_estimate_gains(text, fused):
    """Small layers, whose launches count; not large ones, where blocks would repeat the work."""
    leaf = leaves(text)["direct"]
    choice = leaf.default()
    assert leaf.valid(choice) is None and {f.knob for f in leaf.fusions if choice[f.knob]} == fused
    for f in leaf.fusions:
        other = joined(leaf) if choice[f.knob] else leaf._joined(f, choice, leaf._best(f.consumer, (f,)))
        assert leaf.constraint(other) is not None or leaf.seconds(choice) <= leaf.seconds(other)


def test_random_points_and_neighbours_fuse():
    leaf = leaves(SEPARABLE)["direct"]
    points = leaf.candidates(random.Random(1), 20)
    assert len(points) == 20 and 3 < sum(c["depthwise.fused"] for c in points) < 17
    assert all(leaf.valid(c) is None for c in points)
    default = leaf.default()
    assert any(not c["depthwise.fused"] for c in leaf.neighbours(default)) and len(leaf.features(default)) == len(leaf.feature_names)
    assert leaf.work(default) > leaf.work(default | {"depthwise.fused": False}) * 0.9
