"""Kernels whose stages run tile by tile of the output, and sums that skip what a condition makes zero, against the oracle."""

import random

import pytest

from convgen import schedules
from convgen.lang import parse
from convgen.ops import table
from convgen.schedules.cpu import default
from tests.emit.kernels import complaints, job, target

CASES = [
    "depthwise_conv2d:n2,c32,h13,w14,k11x11;padding=5:f32.f32.f32:nhwc",
    "depthwise_conv2d:n1,c48,h16,w12,k9x9;padding=3:f32.f32.f32:nchw:act=relu,bias",
    "conv2d:n2,c16,o32,h24,w20,k3x3;padding=1:f32.f32.f32:nhwc",
    "conv2d:n1,c32,o32,h18,w18,k3x3;padding=1:f32.f32.f32:nchw:bias",
    "conv2d_pixel_shuffle:n1,c16,o16,h12,w8,k3x3;padding=1:f32.f32.f32:nhwc:bias_conv",
    "conv2d_pixel_shuffle:n1,c16,o3,h12,w8,k3x3;padding=1,upscale=4:f32.f32.f32:nchw:bias_conv,act=relu",
    "separable_block2d:n2,c24,o32,h15,w16,k3x3;padding=1:f32.f32.f32:nhwc:act=relu6,bias",
    "separable_block2d:n1,c32,o48,h16,w15,k3x3;padding=1,stride=2:f32.f32.f32:nchw",
    "condconv2d:n3,c32,o32,e4,h9,w8,k5x5;padding=2,groups=32:f32.f32.f32:nchw",
    "dynamic_conv1d:n2,c64,heads2,l48,k5:f32.f32.f32:nlc",
]


def tiled(w, machine, seed, count):
    """Random choices that cut the output, several algorithms where there are."""
    space = schedules.space(w.description, machine)
    found = [c for leaf in space.leaves.values() for c in leaf.candidates(random.Random(seed), 24)]
    return [c for c in found if any(name.startswith("cut.") and size for name, size in c.items())][:count]


@pytest.mark.parametrize("id", CASES)
def test_tiled_kernels(kernels, id):
    w, asked = parse(id), []
    for count, name in ((2, "native"), (1, "x86:avx2")):
        machine = target(name)
        asked += [job(w, machine, choice) for choice in tiled(w, machine, count, count)]
    assert len(asked) >= 2
    wrong = [line for answer in kernels.ask(asked) for line in complaints(w, answer)]
    assert not wrong, "\n".join(wrong)


def test_a_tiled_kernel_serves_any_batch(kernels):
    w = parse("conv2d:n4+,c16,o32,h16,w16,k3x3;padding=1:f32.f32.f32:nhwc")
    machine = target()
    choice = tiled(w, machine, 0, 1)[0]
    (answer,) = kernels.ask([job(w, machine, choice, [parse(f"conv2d:n{n},c16,o32,h16,w16,k3x3;padding=1:f32.f32.f32:nhwc") for n in (1, 3)])])
    assert not complaints(w, answer) and len(answer["verdicts"]) == 3


@pytest.mark.parametrize("id, cut", [("conv2d:n1,c16,o16,h32,w30,k3x3;padding=1:f32.f32.f32:nchw:bias", {"p": 12}), ("conv2d:n1,c16,o16,h17,w30,k3x3;padding=1:f32.f32.f32:nhwc", {"q": 16})])
def test_tiles_of_transforms_go_on_beyond_the_plane(kernels, id, cut):
    """Tiles that a plane ends in, along rows and along columns: TVM refuses loops that end early at places of their own."""
    w, machine = parse(id), target()
    leaf = schedules.space(w.description, machine).leaves["winograd4"]
    choice = default.within(leaf, cut)
    assert leaf.valid(choice) is None
    (answer,) = kernels.ask([job(w, machine, choice)])
    assert not complaints(w, answer)


def test_large_kernels_skip_tiles_of_padding(kernels):
    """Rows of tiles that hold padding only are left out; the result, borders included, is the same."""
    op = table.get("depthwise_conv2d")
    for name, w in (("winograd4_blocks", op(N=1, C=16, H=12, W=9, kernel=(19, 9), padding=((9, 9), (4, 4)), layout="NHWC")),
                    ("winograd4_blocks", op(N=1, C=16, H=9, W=12, kernel=17, padding=((0, 16), (8, 8)))),
                    ("winograd4x1_blocks", op(N=1, C=40, H=14, W=28, kernel=(27, 5), padding=(13, 2)))):
        leaf = schedules.space(w.description, target()).leaves[name]
        assert any(e.op == "select" for s in leaf.program.run_stages for e in s.body.walk())
        wrong, _ = kernels.check([w], choice=leaf.default())
        assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("plane, algorithms", [((14, 14), ("winograd7x2", "winograd7x4")), ((7, 7), ("winograd4x2",)), ((9, 9), ("winograd3", "winograd5x3"))])
def test_tiles_of_every_shape(kernels, plane, algorithms):
    """Judged by the norm bound, like all of Winograd."""
    w = table.get("conv2d")(N=1, C=32, O=16, H=plane[0], W=plane[1], kernel=3, padding=1, bias=True)
    leaves = schedules.space(w.description, target()).leaves
    for name in algorithms:
        wrong, _ = kernels.check([w], choice=leaves[name].default())
        assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("id", [
    "conv_transpose2d:n2,c32,o16,h5,w8,k4x4;stride=2,padding=1:f32.f32.f32:nchw:act=relu,bias",
    "conv_transpose2d:n1,c32,o32,h7,w8,k3x3;stride=2,padding=1,output_padding=1:f32.f32.f32:nhwc:residual",
])
def test_phases_by_winograd(kernels, id):
    """The last transform stores its phases where they belong in the output."""
    w = parse(id)
    leaf = schedules.space(w.description, target()).leaves["winograd2_phases"]
    assert len(leaf.program.output.shape) == 6
    wrong, _ = kernels.check([w], choice=leaf.default())
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("cut", [0, 7])
def test_a_sum_between_two_others_is_finished_where_it_leaves_the_registers(kernels, cut):
    w, machine = parse("inverted_residual2d:n1,c16,hidden32,o16,h14,w14,k3x3:f32.f32.f32:nhwc"), target("x86:avx2")
    choice = schedules.space(w.description, machine).leaves["direct"].default()
    axes = [k for k in choice if k.startswith("cut.")]
    knobs = {"tile1": 7, "tile2": 1, "vectors": 1, "producer": "root"}
    choice |= dict.fromkeys(axes, 0) | {axes[0]: cut, "sum2.padding": "inline", "sum3.store": "pass" if cut else "tile"}
    choice |= {f"{stage}.{name}": value for stage in ("sum", "sum2", "sum3") for name, value in knobs.items()}
    (answer,) = kernels.ask([{"cmd": "scheduled", "description": w.description, "target": machine, "choice": choice}])
    assert answer["text"].count("T.parallel") == (1 if cut else 3) and "sum_global" not in answer["text"]
    (check,) = kernels.ask([job(w, machine, choice)])
    assert not complaints(w, check)
