"""Plans: which reads are copied, packed or direct, in which layout, and how much memory that takes."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convgen import algorithms, schedules
from convgen.emit import plan as P, tiling
from convgen.emit.layout import Layout
from convgen.lang import access, parse
from tests.emit.kernels import complaints, job, target
from tests.emit.workloads import HARD, workload

AVX2 = target("x86:avx2")


def planned(id, **knobs):
    w = parse(id)
    choice = schedules.space(w.description, AVX2).default()
    return P.make(access.specialised(w.program), choice | knobs, 8)


def operand(plan, tensor, stage="sum"):
    return next(o for o in plan.stage(stage).operands.values() if o.source == tensor)


@settings(max_examples=60)
@given(st.data())
def test_layouts_are_invertible(data):
    extents = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    order = data.draw(st.permutations(range(len(extents))))
    split = data.draw(st.none() | st.integers(0, len(extents) - 1))
    layout = Layout(extents, order, split, data.draw(st.sampled_from((1, 2, 4))))
    seen = set()
    for logical in np.ndindex(*extents):
        physical = tuple(layout.index(list(logical)))
        assert all(0 <= i < n for i, n in zip(physical, layout.shape)) and layout.logical(physical) == list(logical)
        seen.add(physical)
    assert len(seen) == math.prod(extents)
    assert layout.overhangs == (math.prod(layout.shape) != math.prod(extents))
    assert len(layout.tags("abcd")) == len(layout.shape)


def test_weights_are_packed_by_vectors_of_output_channels():
    plan = planned("conv2d:n1,c6,o20,h9,w9,k3x3;padding=1:f32.f32.f32:nhwc", **{"sum.vec": "o", "sum.lanes": 8, "sum.vectors": 1})
    weight = operand(plan, "weight")
    assert weight.kind == "packed" and weight.layout.shape[-1] == 8 and math.prod(weight.layout.shape) == 24 * 6 * 9
    assert weight.name in [p.name for p in plan.packed]
    assert plan.stage("sum").layout.shape == [1, 3, 9, 9, 8]


@pytest.mark.parametrize("channels, across", [(16, ("c", 8)), (17, None)])
def test_sums_over_vectors_of_channels_take_them_whole(channels, across):
    plan = planned(f"convnext_block2d:n1,c{channels},hidden24,h3,w5,k3x3:f32.f32.f32:nhwc")
    assert [p.stage.name for p in plan.stages if p.across] == (["total", "squares"] if across else [])
    assert plan.stage("total").across == plan.stage("squares").across == across
    assert plan.stage("depthwise").layout.shape[-1] == 8


@pytest.mark.parametrize("groups, lanes", [(16, 8), (24, 8), (12, 8)])
def test_a_cyclic_channel_map_is_read_in_whole_vectors_where_it_has_them(groups, lanes):
    plan = planned(f"ska2d:n1,c{4 * groups},g{groups},h6,w5,k3x3;padding=1:f32.f32.f32:nhwc", **{"sum.vec": "c", "sum.lanes": lanes, "sum.vectors": 1})
    weight = operand(plan, "weight")
    assert weight.kind == "staged" and weight.layout.shape[-1] == lanes
    copies = 1 if groups % lanes == 0 else 4  # one kernel per group, or one per channel
    assert math.prod(weight.layout.shape) == copies * groups * 9 * math.prod(plan.stage("sum").extents[a] for a in "pq")


def test_padding_is_staged_or_inlined():
    id = "conv2d:n1,c6,o16,h9,w7,k3x3;padding=1:f32.f32.f32:nhwc"
    staged = operand(planned(id, **{"sum.padding": "stage", "sum.vec": "o", "sum.tile1": 1, "sum.tile2": 1}), "x")
    assert staged.kind == "staged" and math.prod(staged.layout.shape) == 6 * 11 * 9
    assert operand(planned(id, **{"sum.padding": "inline", "sum.vec": "o", "sum.pack": "plain"}), "x").kind == "raw"


def test_unpadded_contiguous_input_is_read_where_it_is():
    plan = planned("conv2d:n1,c8,o16,h8,w8,k1x1:f32.f32.f32:nhwc", **{"sum.vec": "o", "sum.pack": "plain"})
    assert operand(plan, "x").kind == "raw"


# id → knobs: whole vectors, but no whole tiles of two or four
WHOLE = {"conv2d:n2,c5,o7,h4,w6,k1x1:f32.f32.f32:nchw:bias,residual": dict(vec="p_q", tile1=4, vectors=2, pack="plain"),
         "conv2d:n1,c12,o10,h4,w14,k1x1;groups=2:f32.f32.f32:nchw": dict(vec="p_q", tile1=1, vectors=4),
         "conv1d:n1,c6,o9,l24,k1:bf16.f32.f32:ncl": dict(vec="lo", tile1=3, vectors=2),
         "depthwise_conv2d:n2,c24,h6,w5,k3x3:f32.f32.f32:nhwc:act=relu": dict(vec="o", tile1=3, tile2=1, vectors=2),
         "depthwise_conv2d:n1,c24,h6,w5,k3x3;padding=1:f32.f32.f32:nhwc": dict(vec="o", tile1=5, tile2=1, vectors=2, padding="inline")}


def test_tiles_that_reach_whole_vectors_beyond_the_end_need_no_copy(kernels):
    asked = []
    for id, knobs in WHOLE.items():
        w = parse(id)
        leaf = schedules.space(w.description, AVX2).leaves["direct"]
        choice = leaf.default() | {f"sum.{k}": v for k, v in {"lanes": 8, **knobs}.items()}
        plan = P.make(leaf.program, choice, 8)
        p = plan.stage("sum")
        assert operand(plan, "x").kind == "raw" and p.layout.blocks * 8 > p.extents[p.vec]
        asked.append((w, job(w, AVX2, choice)))
    wrong = [line for (w, _), answer in zip(asked, kernels.ask([j for _, j in asked])) for line in complaints(w, answer)]
    assert not wrong, "\n".join(wrong)
    assert operand(planned("conv1d:n1,c6,o9,l25,k1:f32.f32.f32:ncl", **{"sum.vec": "lo", "sum.lanes": 8}), "x").kind == "staged"  # a fourth vector of one number


def test_staged_bytes_are_the_sizes_of_the_copies():
    plan = planned("depthwise_conv2d:n2,c16,h9,w7,k3x3;padding=1:f32.f32.f32:nhwc", **{"sum.vec": "o", "sum.lanes": 8, "sum.padding": "stage", "sum.vectors": 1, "sum.tile1": 1, "sum.tile2": 1})
    assert P.staged_bytes(plan) == 4 * 2 * 16 * 11 * 9


def test_how_an_index_moves_with_the_vector():
    program = access.specialised(parse("depthwise_conv2d:n1,c16,m2,h9,w9,k3x3;stride=1x2:f32.f32.f32:nchw").program)
    stage = program.stage("sum")
    ext = access.extents(stage)
    x = next(e for e in stage.body.loads() if e.data[0] == "x")
    assert tiling.vector_kinds(x, "o", ext, 8) == ["free", "other", "free", "free"]
    assert tiling.vector_kinds(x, "p", ext, 8) == ["free", "free", "window", "free"]
    assert tiling.vector_kinds(x, "q", ext, 4) == ["free", "free", "free", "other"]
    grouped = access.specialised(parse("conv2d:n1,c8,o64,h9,w9,k3x3;groups=4:f32.f32.f32:nchw").program).stage("sum")
    x = next(e for e in grouped.body.loads() if e.data[0] == "x")
    assert tiling.vector_kinds(x, "o", access.extents(grouped), 8)[1] == "constant"


@pytest.mark.parametrize("name", HARD)
def test_anchors_hold_the_work_and_store_the_output(name):
    for text in HARD[name]:
        program = access.specialised(workload(name, text).program)
        anchors = P.anchors(program)
        last, store = P.epilogue_of(program)
        assert anchors and all(s.combiner for s in anchors)
        assert last is None or (last.combiner and (store is None or store is program.run_stages[-1]))


def test_transforms_without_knobs_keep_the_vectors_and_take_all_constants_at_once():
    w = parse("conv2d:n1,c32,o64,h14,w14,k3x3;padding=1:f32.f32.f32:nchw")
    program = access.specialised(algorithms.variants(w.program)["winograd4"])
    plan = P.make(program, {"sum_points.vec": "o", "sum_points.lanes": 8}, 8)
    for name, along in (("sum_points", "o"), ("sum_result_p", "o"), ("sum_result_q", "o"), ("sum_data_q", "c"), ("sum_data_p", "c")):
        assert plan.stage(name).vec == along
    assert plan.stage("sum_result_q").tile == (4, 1) and plan.stage("sum_data_q").tile == (6, 1) and plan.stage("sum_points").tile == (1, 1)
    assert plan.stage("sum_result_q").extents["q"] == 16  # whole tiles
    assert plan.stage("sum_result_q").is_output
