"""Sums of narrow products by an instruction that takes four (u8 x s8) or two (bfloat16) at a time, and by plain arithmetic where there is none."""

import random

import pytest

from convgen import schedules
from convgen.emit import dot
from convgen.lang import parse
from convgen.runtime.cpu import missing
from tests.emit.kernels import complaints, job, target

WORKLOADS = [
    "quantized_conv2d:n1,c19,o17,h5,w9,k5x3;stride=2x1,padding=2_1x0_3,relu=true:u8.i32.u8:nchw:bias", "quantized_conv2d:n2,c33,o16,h3,w4,k3x5;padding=1x4,dilation=1x2:u8.i32.i32:nhwc",
    "quantized_conv2d:n1,c32,o64,h9,w7,k3x3;stride=2,padding=1,groups=2:u8.i32.u8:nhwc:bias", "quantized_conv2d:n1,c62,o34,h6,w5,k1x1:u8.i32.f32:nhwc",
    "conv2d:n1,c19,o33,h5,w9,k5x3;stride=2x1,padding=2_1x0_3:bf16.f32.bf16:nchw:act=relu,bias,residual", "conv2d:n1,c16,o64,h7,w6,k3x3;padding=1,groups=2,padding_mode=replicate:bf16.f32.f32:nhwc",
    "conv3d:n2,c10,o16,d2,h4,w3,k2x3x2;padding=1:bf16.f32.bf16:ndhwc",
]


def leaf(text, machine):
    return schedules.space(parse(text).description, machine).leaves["direct"]


def machine_with(*extras, base="x86:avx512"):
    """A preset and what it may use beside."""
    names = {"avx512_vnni": "+avx512vnni", "avx512_bf16": "+avx512bf16", "avx_vnni": "+avxvnni"}
    machine = target(base)
    return machine | {"features": [*machine["features"], *extras], "attrs": [names[e] for e in extras]}


def drawn(text, machine, wanted, seed):
    rng = random.Random(seed)
    space = leaf(text, machine)
    return next(c for _ in range(2000) if (c := space.draw(rng) | {"sum.dot": wanted}) and space.valid(c) is None)


@pytest.mark.parametrize("text", WORKLOADS)
def test_with_and_without_the_instruction(kernels, text):
    machine = machine_with("avx512_vnni", "avx512_bf16")
    if missing(machine["features"]):
        pytest.skip("this machine has not both instructions")
    w = parse(text)
    choices = [leaf(text, machine).default(), *(drawn(text, machine, True, seed) for seed in (1, 2, 3)), drawn(text, machine, False, 4)]
    assert choices[0]["sum.dot"]
    answers = kernels.ask([job(w, machine, c) for c in choices])
    wrong = [f"{c}: {line}" for c, a in zip(choices, answers) for line in complaints(w, a)]
    assert not wrong, "\n".join(wrong)
    assert all({"avx512_vnni", "avx512_bf16"} <= set(a["entry"]["features"]) for a in answers)  # the loader refuses it elsewhere


def test_eight_lanes_of_processors_without_avx512(kernels):
    machine = machine_with("avx_vnni", base="x86:avx2")
    if missing(machine["features"]):
        pytest.skip("this machine has no AVX-VNNI")
    wrong, answers = kernels.check([parse(t) for t in WORKLOADS[:4]], machine)
    assert not wrong, "\n".join(wrong)
    assert all(a["entry"]["choice"]["sum.dot"] and a["entry"]["choice"]["sum.lanes"] == 8 for a in answers)


@pytest.mark.parametrize("text", [WORKLOADS[0], WORKLOADS[4]])
@pytest.mark.parametrize("name", ["x86:avx2", "x86:avx512"])
def test_a_target_without_it_has_no_such_choice(text, name):
    space = leaf(text, target(name))
    assert not [knob for knob in space.domains if knob.endswith(".dot")]
    assert space.valid(space.default() | {"sum.dot": True}) == "the knobs are not those of this space"


@pytest.mark.parametrize("text, found", [
    (WORKLOADS[0], ("c", 4)), (WORKLOADS[4], ("c", 2)),
    ("conv2d:n1,c16,o16,h7,w6,k3x3:f32.f32.f32:nhwc", None),  # nothing narrow
    ("conv2d:n1,c16,o16,h7,w6,k3x3:f16.f32.f16:nhwc", None),  # no instruction adds up float16 in float32
    ("quantized_conv2d:n1,c1,o16,h7,w6,k3x3:u8.i32.u8:nhwc", None), ("quantized_conv2d:n1,c12,o16,h7,w6,k3x3;groups=2:u8.i32.u8:nhwc", None),  # no four channels in a row
    ("quantized_depthwise_conv2d:n1,c16,h7,w6,k3x3:u8.i32.u8:nhwc", None),
])
def test_what_counts_as_a_dot_product(text, found):
    program = leaf(text, target("x86:avx2")).program
    product = dot.find(program, next(s for s in program.run_stages if s.combiner))
    assert (None if product is None else (product.axis, product.width)) == found


def test_constraints_name_the_reason():
    machine = machine_with("avx512_vnni", "avx512_bf16")
    space = leaf("quantized_conv2d:n1,c16,o32,h14,w14,k3x3;padding=1:u8.i32.u8:nchw", machine)
    good = space.default()
    assert space.valid(good) is None
    assert "needs its channels side by side" in space.valid(good | {"sum.pack": "plain"})
    assert "reads padded data from a copy" in space.valid(good | {"sum.padding": "inline"})


def test_rate_over_float32():
    machine = machine_with("avx512_vnni", "avx512_bf16")
    rate = lambda text, target=machine: schedules.rate(parse(text).program, target)
    assert [rate(WORKLOADS[i]) for i in (0, 3, 4, 6)] == [4, 4, 2, 2] and rate(WORKLOADS[0], target("x86:avx512")) == 1
    assert rate("quantized_depthwise_conv2d:n1,c16,h7,w6,k3x3:u8.i32.u8:nhwc") == rate("conv2d:n1,c16,o16,h7,w6,k3x3:f32.f32.f32:nhwc") == 1
