"""Terms that meet only padding: which may be left out, how many they are, and kernels that leave them out."""

import itertools
import random

import pytest

from convgen import schedules
from convgen.emit import borders, plan as P
from convgen.lang import access, parse
from convgen.lang.size import value_of
from tests.emit.kernels import complaints, job, target

AVX2 = target("x86:avx2")


def stage_of(id, name="sum"):
    program = access.specialised(parse(id).program)
    return program, program.stage(name)


@pytest.mark.parametrize("id", ["depthwise_conv2d:n1,c4,h6,w5,k7x3;padding=3_5x0_2:f32.f32.f32:nchw", "conv2d:n2,c3,o4,h7,w9,k3x4;stride=2x1,padding=1x3_2,dilation=1x3:f32.f32.f32:nhwc",
                                "conv1d:n1,c2,o3,l9,k5;padding=0_4:f32.f32.f32:ncl", "involution2d:n1,c8,g2,h4,w5,k3x5;padding=1x2:f32.f32.f32:nchw"])
def test_the_share_in_padding_is_a_count(id):
    program, stage = stage_of(id)
    (load,) = [l for l in stage.body.loads() if access.padded(l)]
    assert borders.droppable(stage, load)
    shape, extents = program.tensor(load.data[0]).shape, access.extents(stage)
    names = sorted({n for d in access.padded(load) for n in load.args[d].axes()})
    meets = 0
    for point in itertools.product(*(range(extents[n]) for n in names)):
        index = [sum(k * dict(zip(names, point)).get(n, 0) for n, k in terms.items()) + c - value_of(pair[0])
                 for (terms, c), pair in zip(map(access.linear, load.args), load.data[1].amounts)]
        meets += all(0 <= index[d] < shape[d] for d in access.padded(load))
    total = 1
    for n in names:
        total *= extents[n]
    assert borders.in_padding(program, stage) == pytest.approx(1 - meets / total, abs=1e-12)


@pytest.mark.parametrize("id", ["depthwise_conv2d:n1,c4,h9,w9,k3x3;padding=1,padding_mode=reflect:f32.f32.f32:nchw", "depthwise_conv2d:n1,c4,h9,w9,k3x3:f32.f32.f32:nchw",
                                "conv2d:n1,c4,o4,h9,w9,k3x3;padding=1,padding_mode=circular:f32.f32.f32:nhwc"])
def test_only_zeros_may_be_left_out(id):
    program, stage = stage_of(id)
    assert not any(borders.droppable(stage, l) for l in stage.body.loads()) and borders.in_padding(program, stage) == 0.0
    assert "skip" not in schedules.space(parse(id).description, AVX2).leaves["direct"].domains["sum.padding"]


def chosen(id, **knobs):
    leaf = schedules.space(parse(id).description, AVX2).leaves["direct"]
    return leaf, leaf.default() | {"sum.padding": "skip", "sum.order": "vector"} | {f"sum.{k}": v for k, v in knobs.items()}


ID = "depthwise_conv2d:n1,c16,h14,w14,k13x13;padding=6:f32.f32.f32:nhwc"


@pytest.mark.parametrize("knobs, dims", [
    (dict(tile1=14, tile2=1, unroll=1), (2, 3)),  # one tile spans the row
    (dict(tile1=7, tile2=1, unroll=1), (2, 3)),  # tiles of a row have code of their own
    (dict(tile1=7, tile2=1, unroll=1, order="position"), (2,)),
    (dict(tile1=7, tile2=1, unroll=0), (2,)),  # taps of one loop
    (dict(tile1=7, tile2=2, unroll=1), (3,)),  # two rows in a tile meet different padding
])
def test_where_testing_terms_is_free(knobs, dims):
    leaf, choice = chosen(ID, vec="o", vectors=1, **knobs)
    program, stage = leaf.program, leaf.program.stage("sum")
    load = next(l for l in stage.body.loads() if l.data[0] == "x")
    assert borders.skipped(program, stage, load, choice) == dims
    plan = P.make(program, choice, 8)
    operand = next(o for o in plan.stage("sum").operands.values() if o.source == "x")
    if len(dims) == 2:  # no zeros are read, so there is no copy
        assert operand.kind == "raw" and P.staged_bytes(plan) == 0
    else:  # the copy is padded where zeros are read, and there alone
        assert operand.kind == "staged" and P.staged_bytes(plan) == 4 * 16 * 14 * 26
    share = (14 * 13 - 2 * 21) / (14 * 13)
    assert leaf.work(choice) == pytest.approx(2 * 16 * (14 * 13) ** 2 * share ** len(dims), abs=1)


def test_a_row_of_too_many_tiles_keeps_one_code():
    leaf, choice = chosen("depthwise_conv2d:n1,c16,h56,w56,k31x31;padding=15:f32.f32.f32:nhwc", vec="o", vectors=1, tile1=7, tile2=1, unroll=1)
    assert leaf.constraint(choice) is None
    leaf, choice = chosen("depthwise_conv2d:n1,c16,h80,w80,k31x31;padding=15:f32.f32.f32:nhwc", vec="o", vectors=1, tile1=8, tile2=1, unroll=1)
    assert "too much code" in leaf.constraint(choice)


_KERNELS = [
    "depthwise_conv2d:n2,c17,h6,w5,k7x9;padding=3_4x5_2:f32.f32.f32:nhwc:bias", "depthwise_conv2d:n1,c33,h5,w6,k11x11;padding=5:f32.f32.f32:nchw:act=relu",
    "depthwise_conv2d:n1,c8,m2,h9,w8,k5x5;padding=4,dilation=2,stride=2x1:f32.f32.f32:nhwc", "depthwise_conv2d:n1,c16,h7,w15,k7x7;padding=3:bf16.f32.bf16:nchw",
    "conv2d:n2,c12,o20,h5,w7,k3x3;padding=2_1x0_3:f32.f32.f32:nchw:bias,residual", "conv2d:n1,c12,o20,h7,w6,k3x5;padding=1x2,groups=4:f32.f32.f32:nhwc",
    "conv1d:n2,c8,o17,l6,k5;padding=4,dilation=2:f32.f32.f32:nlc", "conv3d:n1,c4,o9,d3,h4,w5,k3x3x3;padding=1:f32.f32.f32:ncdhw",
    "involution2d:n1,c12,g3,h5,w6,k5x3;padding=2x1:f32.f32.f32:nhwc", "condconv2d:n2,c16,o16,e2,h5,w5,k3x3;padding=1,groups=16:f32.f32.f32:nhwc", "dilated_reparam_conv2d:n2,c17,h4,w3,k9x9:f32.f32.f32:nchw:bias",
]


def leaving_out(w, machine, seed):
    """A random choice of the direct algorithm that leaves terms out."""
    leaf, rng = schedules.space(w.description, machine).leaves["direct"], random.Random(seed)
    knobs = [k for k, values in leaf.domains.items() if "skip" in values]
    drawn = (leaf.draw(rng) | dict.fromkeys(knobs, "skip") for _ in range(20000))
    return next(c for c in drawn if knobs and leaf.constraint(c) is None)


@pytest.mark.parametrize("id", _KERNELS)
def test_kernels_that_leave_terms_out(kernels, id):
    w, native = parse(id), target()
    asked = [job(w, machine, leaving_out(w, machine, seed)) for seed, machine in enumerate((native, AVX2))]
    wrong = [line for answer in kernels.ask(asked) for line in complaints(w, answer)]
    assert not wrong, "\n".join(wrong)


def test_any_batch(kernels):
    text = "c16,h7,w6,k9x9;padding=4:f32.f32.f32:nhwc"
    w = parse(f"depthwise_conv2d:n2+,{text}")
    (answer,) = kernels.ask([job(w, AVX2, leaving_out(w, AVX2, 0), [parse(f"depthwise_conv2d:n{n},{text}") for n in (1, 3, 8)])])
    assert not complaints(w, answer) and len(answer["verdicts"]) == 4


@pytest.mark.parametrize("id", ["tvconv2d:n2,c8,h7,w1,k2x1;stride=1x3,padding=0_1x1_0,dilation=3x1:f32.f32.f32:nhwc:bias", "conv2d:n1,c4,o8,h5,w1,k1x1;stride=1x3,padding=0x1:f32.f32.f32:nhwc"])
def test_nothing_but_padding(kernels, id):
    """Windows that never meet the data leave nothing to leave out; the output is what follows the sum."""
    w = parse(id)
    leaf = schedules.space(w.description, AVX2).leaves["direct"]
    assert borders.in_padding(leaf.program, leaf.program.stage("sum")) == 1 and "skip" not in leaf.domains["sum.padding"]
    (answer,) = kernels.ask([job(w, AVX2)])
    assert not complaints(w, answer)
