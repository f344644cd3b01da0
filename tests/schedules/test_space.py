"""The space of every workload: what it proposes is valid, differs, and can be ranked."""

import json
import random

import pytest

from convgen import schedules, shapes
from convgen.bench import suites
from convgen.emit import plan
from convgen.errors import TargetError
from convgen.lang import parse
from convgen.ops.table import TABLE
from convgen.schedules.cpu import cutting, tile
from tests.emit.kernels import target
from tests.emit.workloads import HARD, workload

TARGETS = {name: target(name) for name in ("x86:avx2", "x86:avx512")}
every_target = pytest.mark.parametrize("machine", TARGETS.values(), ids=TARGETS)
every_operator = pytest.mark.parametrize("name", HARD)


def workloads(name):
    """Published shapes, hard ones, and random tiny ones."""
    op = next(o for o in TABLE if o.name == name)
    return [*op.workloads(), *(workload(name, text) for text in HARD[name]), *(shapes.small(op, seed) for seed in range(3))]


def test_the_hard_workloads_cover_the_catalogue():
    assert set(HARD) == {op.name for op in TABLE}


@every_target
@every_operator
def test_proposals_are_valid(name, machine):
    lengths = set()
    for w in workloads(name):
        space = schedules.space(w.description, machine)
        default = space.default()
        assert space.valid(default) is None, (w.id, space.valid(default))
        assert default in space.defaults() and all(space.valid(d) is None for d in space.defaults())
        found = space.candidates(random.Random(0), 6)
        assert len({json.dumps(c, sort_keys=True) for c in found}) == len(found) <= space.size
        for choice in found:
            assert space.valid(choice) is None, (w.id, space.valid(choice))
            row = space.features(choice)
            assert all(isinstance(v, float) and v == v for v in row) and len(row) == len(space.feature_names)
            lengths.add(len(row))
    assert len(lengths) == 1


def test_defaults_of_published_networks():
    ids = {line.split()[0] for suite in suites.names() for line in suites.path(suite).read_text().splitlines() if line.strip() and not line.startswith("#")}
    assert len(ids) > 100
    for id in sorted(ids):
        space = schedules.space(parse(id).description, TARGETS["x86:avx2"])
        assert not [space.valid(c) for c in space.defaults() if space.valid(c)], id


@every_operator
def test_neighbours_differ_in_one_knob_and_are_valid(name):
    w = workload(name, HARD[name][0])
    space = schedules.space(w.description, TARGETS["x86:avx512"])
    for choice in space.candidates(random.Random(1), 2):
        for other in space.neighbours(choice):
            assert sum(choice[k] != other[k] for k in choice) == 1 and space.valid(other) is None


@every_operator
def test_kernels_of_one_element(name):
    """The smallest workload an operator has can be planned; where nothing can be chosen, the default is the space."""
    op = next(o for o in TABLE if o.name == name)
    least = {"inception_depthwise_conv2d": {"C": 3}, "dilated_reparam_conv2d": {"KH": 5, "KW": 5}}
    w = op(**{d: 1 for d in op.dims} | least.get(name, {}))
    space = schedules.space(w.description, TARGETS["x86:avx2"])
    assert all(space.valid(c) is None for c in [*space.defaults(), *space.candidates(random.Random(0), 3)])


def test_candidates_follow_the_seed_and_avoid_what_was_seen():
    w = parse("conv2d:n1,c32,o32,h14,w14,k3x3;padding=1:f32.f32.f32:nchw")
    space = schedules.space(w.description, TARGETS["x86:avx2"])
    first = space.candidates(random.Random(3), 10)
    assert first == space.candidates(random.Random(3), 10) and len(first) == 10
    assert not [c for c in space.candidates(random.Random(3), 10, seen=first) if c in first]


def test_choices_are_plain_json():
    w = parse("deform_conv2d:n1,c8,o8,h9,w9,k3x3;padding=1:f32.f32.f32:nchw:mask")
    space = schedules.space(w.description, TARGETS["x86:avx512"])
    for choice in [space.default(), *space.candidates(random.Random(0), 5)]:
        assert json.loads(json.dumps(choice)) == choice


def test_invalid_choices_are_named():
    w = parse("conv2d:n1,c32,o32,h14,w14,k3x3;padding=1:f32.f32.f32:nchw")
    space = schedules.space(w.description, TARGETS["x86:avx2"])
    default = space.leaves["direct"].default()
    assert "algorithm must be one of" in space.valid({"algorithm": "magic"})
    assert "knobs are not those" in space.valid({"algorithm": "direct"})
    assert "sum.lanes must be one of" in space.valid(default | {"sum.lanes": 3})
    wide = default | {"sum.vectors": 4} | {f"sum.tile{i}": max(space.leaves["direct"].domains[f"sum.tile{i}"]) for i in (1, 2)}
    assert "accumulators do not fit 16 registers" in space.valid(wide)


def test_a_target_without_a_space_is_refused():
    w = parse("conv2d:n1,c3,o4,h6,w6,k3x3:f32.f32.f32:nchw")
    with pytest.raises(TargetError, match="no schedule space for target abacus"):
        schedules.space(w.description, {"name": "abacus", "family": "wood"})


def test_tiles_of_several_vectors_leave_registers_for_the_other_operand():
    leaf = schedules.space(parse("conv2d:n1,c32,o64,h14,w14,k1x1:f32.f32.f32:nhwc").description, TARGETS["x86:avx512"]).leaves["direct"]
    tile = lambda t, v: leaf.valid(leaf.default() | {"sum.tile1": t, "sum.tile2": 1, "sum.vectors": v})
    assert tile(28, 1) is None and tile(10, 2) is None and tile(6, 4) is None
    assert all("registers" in tile(t, v) for t, v in ((14, 2), (12, 2), (7, 4)))


@every_target
@pytest.mark.parametrize("id, leaves_out", [
    ("depthwise_conv2d:n1,c512,h14,w14,k27x27;padding=13:f32.f32.f32:nhwc", True), ("depthwise_conv2d:n1,c1024,h7,w7,k13x13;padding=6:f32.f32.f32:nchw", True),
    ("dilated_reparam_conv2d:n1,c320,h14,w14,k13x13:f32.f32.f32:nhwc", True), ("depthwise_conv2d:n1,c64,h56,w56,k31x31;padding=15:f32.f32.f32:nhwc", True),
    ("depthwise_conv2d:n1,c64,h56,w56,k3x3;padding=1:f32.f32.f32:nhwc", False), ("depthwise_conv2d:n1,c64,h14,w14,k5x5:f32.f32.f32:nhwc", False),
])
def test_terms_in_the_padding_are_left_out_where_they_are_many(machine, id, leaves_out):
    space = schedules.space(parse(id).description, machine)
    leaf = space.leaves["direct"]
    default = leaf.default()
    assert (default["sum.padding"] == "skip") == leaves_out
    assert leaves_out == ("skip" in leaf.domains["sum.padding"])
    assert (leaf.work(default) < leaf.program.flops) == leaves_out


def test_a_window_larger_than_the_plane_makes_the_direct_sum_the_default():
    for id in ("depthwise_conv2d:n1,c512,h14,w14,k27x27;padding=13:f32.f32.f32:nhwc", "depthwise_conv2d:n1,c1024,h7,w7,k13x13;padding=6:f32.f32.f32:nhwc"):
        space = schedules.space(parse(id).description, TARGETS["x86:avx512"])
        assert len(space.leaves) > 1 and space.default()["algorithm"] == "direct"


def test_larger_kernels_cost_only_what_computing_does_not_hide():
    chosen = lambda c, h: schedules.space(parse(f"conv2d:n1,c{c},o{c},h{h},w{h},k3x3;padding=1:f32.f32.f32:nchw").description, TARGETS["x86:avx512"]).default()["algorithm"]
    assert (chosen(64, 56), chosen(256, 14)) == ("winograd7x4", "winograd7x2")  # 9.4 MB of transformed kernels pass while computing
    assert chosen(512, 7) == "winograd2"  # 37.7 MB would not


def test_tiles_do_not_read_kernels_again_that_come_from_memory():
    """26.2 MB of kernels of four phases: from a last cache of 64 MB for every tile of four rows, from memory once."""
    space = lambda l3: schedules.space(parse("conv_transpose2d:n1,c512,o128,h32,w32,k4x4;stride=2,padding=1:f32.f32.f32:nchw").description, TARGETS["x86:avx512"] | {"l3": l3})
    near, far = (space(n << 20).leaves["winograd4_phases"] for n in (64, 32))
    again = near.default()
    assert again["cut.p"] == 4 and far.default()["cut.p"] == 0
    assert near.spilled(again) == 0 and far.spilled(again) == 7 * far.cuts.fixed_bytes({})


@pytest.mark.parametrize("tail, store", [("32,h8,w8,k1x1:f32.f32.f32:nchw", "tile"), ("32,h7,w7,k1x1:f32.f32.f32:nchw:residual", "row"), ("36,h7,w7,k1x1:f32.f32.f32:nchw", "row"), ("32,h8,w8,k1x1:f32.f32.f32:nhwc", "tile")])
def test_tiles_that_cannot_be_turned_wait_for_their_row(tail, store):
    leaf = schedules.space(parse("conv2d:n1,c16,o" + tail).description, TARGETS["x86:avx512"]).leaves["direct"]
    leaf.domains["sum.vec"] = ["o"]
    assert leaf.default()["sum.store"] == store


def test_pairs_of_products_count_as_one():
    """VDPBF16PS halves the direct sum, so that a Winograd with large kernels is no longer the better default."""
    machine = TARGETS["x86:avx512"] | {"features": sorted({*TARGETS["x86:avx512"]["features"], "avx512_bf16"})}
    order = lambda dtypes: [c["algorithm"] for c in schedules.space(parse(f"conv2d:n1,c512,o512,h7,w7,k3x3;padding=1:{dtypes}:nhwc").description, machine).defaults()]
    assert order("bf16.f32.bf16")[0] == "direct" and order("f32.f32.f32")[0] == "winograd2"
    leaf = schedules.space(parse("conv2d:n1,c64,o64,h8,w8,k1x1:bf16.f32.bf16:nhwc").description, machine).leaves["direct"]
    assert leaf.default()["sum.dot"] and leaf.work(leaf.default()) * 2 == leaf.work(leaf.default() | {"sum.dot": False})


@pytest.mark.parametrize("id", ["depthwise_conv2d:n1,c128,h56,w56,k31x31;padding=15:f32.f32.f32:nchw", "conv2d:n1,c64,o64,h56,w56,k3x3;padding=1:f32.f32.f32:nchw"])
def test_a_cut_takes_vectors_that_fit_its_tiles(id):
    """Vectors along rows, which suit the layout, would reach beyond a tile; that is no reason to give up the tile."""
    leaf = next(iter(l for name, l in schedules.space(parse(id).description, TARGETS["x86:avx512"]).leaves.items() if name.startswith("winograd4")))
    default = leaf.default()
    tiles = cutting.default(leaf)
    assert tiles and all(default[f"cut.{a}"] == size for a, size in tiles.items())
    assert leaf.domains["sum_data_p.vec"][0] != default["sum_data_p.vec"] and leaf.constraint(default) is None


def test_tiles_without_channels_wait_for_their_row_too():
    """Three positions across the output's rows cannot be turned in a transpose of four."""
    for id in ("condconv2d:n4,c128,o128,e4,h20,w20,k3x3;padding=1,groups=128:f32.f32.f32:nchw", "involution2d:n1,c96,g6,h40,w40,k5x5;padding=2:f32.f32.f32:nchw"):
        leaf = schedules.space(parse(id).description, TARGETS["x86:avx512"]).leaves["direct"]
        default, anchors = leaf.default(), leaf.anchors.values()
        across = [a for a in anchors if tile.scattered(leaf, a, default | {f"{a.name}.tile1": 3})]
        assert across and all(default[f"{a.name}.store"] == "row" or not tile.scattered(leaf, a, default) for a in across)


@pytest.mark.parametrize("channels, unroll", [(3, 0), (4, 0), (8, 1)])
def test_few_channels_leave_the_taps_a_loop(channels, unroll):
    """The compiler unrolls a loop of a few channels: with the taps of a row beside them it would keep more numbers than there are registers."""
    leaf = schedules.space(parse(f"conv2d:n1,c{channels},o48,h40,w40,k5x5;stride=2,padding=2:f32.f32.f32:nchw").description, TARGETS["x86:avx512"]).leaves["direct"]
    assert leaf.default()["sum.unroll"] == unroll


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("shape", ["n1,c16,hidden96,o24,h112,w112,k3x3;stride=2", "n1,c24,hidden144,o24,h56,w56,k3x3"])
def test_layers_of_a_block_hand_on_their_vectors_by_default(shape, layout):
    """Where one layer's vectors ran along positions and the next one's along channels, every read would gather."""
    space = schedules.space(parse(f"inverted_residual2d:{shape}:f32.f32.f32:{layout}").description, TARGETS["x86:avx512"])
    assert {k: v for k, v in space.default().items() if k.endswith(".vec")} == {"sum.vec": "o", "sum2.vec": "o2", "sum3.vec": "o3"}


def test_what_lies_between_stages_costs_traffic_where_no_cache_holds_it():
    """A transform of six does not divide this plane; run tile by tile of the output, what it makes stays in cache all the same."""
    space = schedules.space(parse("conv2d:n1,c64,o64,h224,w224,k3x3;padding=1:f32.f32.f32:nchw").description, TARGETS["x86:avx512"])
    leaf, cut = space.leaves["winograd6"], lambda c: any(v for k, v in c.items() if k.startswith("cut."))
    assert cut(space.default()) and cut(leaf.default())
    assert leaf.spilled(leaf.default() | {"cut.p": 0, "cut.q": 0}) > 100e6 and leaf.spilled(leaf.default()) == 0
    small = schedules.space(parse("conv2d:n1,c64,o64,h28,w28,k3x3;padding=1:f32.f32.f32:nchw").description, TARGETS["x86:avx512"])
    assert all(small.leaves[c["algorithm"]].spilled(c) == 0 for c in small.defaults())


def test_threads_read_what_they_wrote_themselves_by_default():
    """The stages of a block that is not cut into tiles share out positions alike, and nothing is copied to get a border."""
    w = parse("inverted_residual2d:n1,c16,hidden96,o24,h112,w112,k3x3;stride=2:f32.f32.f32:nhwc")
    space = schedules.space(w.description, TARGETS["x86:avx512"] | {"threads": 2})
    default = space.default()
    assert [default[f"{name}.order"] for name in space.leaves["direct"].anchors] == ["position"] * 3
    assert not [o.name for p in plan.make(space.program(default), default, 16).stages for o in p.operands.values() if o.kind == "staged"]
    alone = schedules.space(w.description, TARGETS["x86:avx512"] | {"threads": 1}).default()
    assert alone["sum.order"] == "vector"


def test_short_sums_do_not_store_vectors_number_by_number_whole_pages_apart():
    """Planes of 224x224 numbers lie 49 pages apart: the 16 numbers of a vector of channels would meet in one set of a cache."""
    default = lambda id: schedules.space(parse(id).description, TARGETS["x86:avx512"]).default()
    crowded, apart = (default(f"conv2d:n1,c3,o64,h224,w224,k3x3{padding}:f32.f32.f32:nchw") for padding in (";padding=1", ""))
    assert (crowded["sum.vec"], apart["sum.vec"]) == ("q", "o")
    assert crowded["sum.tile2"] > crowded["sum.tile1"]  # a vector of data serves several channels, as a tile of one channel's rows would read anew for each
    assert default("depthwise_conv2d:n1,c128,h32,w32,k3x3;padding=1:f32.f32.f32:nhwc")["sum.vec"] == "o"


@pytest.mark.parametrize("machine", ["x86:avx512", "x86:avx2"])
def test_pixels_that_share_few_sets_of_a_cache_have_vectors_side_by_side(machine):
    """Pixels of 1 KB meet in 4 of 64 sets, pixels of 1,152 bytes in 32."""
    vectors = lambda channels: schedules.space(parse(f"depthwise_conv2d:n1,c{channels},h28,w28,k7x7;padding=3:f32.f32.f32:nhwc").description, TARGETS[machine]).default()["sum.vectors"]
    assert vectors(288) == 1 < vectors(256)


def test_cuts_between_vectors_of_channels_cost_no_parts_of_rows():
    default = schedules.space(parse("depthwise_conv2d:n1,c128,h56,w56,k31x31;padding=15:f32.f32.f32:nhwc").description, TARGETS["x86:avx512"]).default()
    assert default["algorithm"] == "winograd4_blocks" and default["cut.o"] == 16


def test_threads_do_not_share_lines_of_narrow_results_by_default():
    order = lambda dtypes: schedules.space(parse(f"{dtypes}:nhwc").description, TARGETS["x86:avx512"] | {"threads": 2}).default()["sum.order"]
    assert order("quantized_conv2d:n1,c64,o64,h56,w56,k1x1:u8.i32.u8") == "position"  # 32 bytes of a position's 64
    assert order("quantized_depthwise_conv2d:n1,c32,h112,w112,k3x3;padding=1:u8.i32.u8") == order("depthwise_conv2d:n1,c72,h40,w40,k5x5;padding=2:f32.f32.f32") == "position"
    assert order("depthwise_conv2d:n1,c64,h56,w56,k3x3;padding=1:f32.f32.f32") == order("depthwise_conv2d:n1,c328,h28,w28,k3x3;padding=1:f32.f32.f32") == "vector"
    assert order("quantized_conv2d:n1,c64,o128,h56,w56,k1x1:u8.i32.u8") == order("conv2d:n1,c64,o64,h56,w56,k1x1:f32.f32.f32") == "vector"


def test_threads_get_half_a_block_each_where_blocks_are_odd_by_default():
    order = lambda plane, threads: schedules.space(parse(f"conv2d:n1,c64,o128,{plane},k1x1:f32.f32.f32:nchw").description, TARGETS["x86:avx512"] | {"threads": threads}).default()["sum.order"]
    assert order("h28,w28", 2) == 2  # 25 blocks: one thread would be at work on the thirteenth alone
    assert order("h28,w28", 1) == order("h56,w56", 2) == "vector"


def test_tiles_of_few_sums_count_as_slow_when_algorithms_are_ranked():
    """Rows of 110 are 19 tiles of six, a prime number: register tiles of one position. Tiles of four do more multiplications, but none waits for another."""
    space = schedules.space(parse("conv2d:n1,c64,o128,h112,w112,k3x3:f32.f32.f32:nchw").description, TARGETS["x86:avx512"])
    six, four = space.leaves["winograd6"], space.leaves["winograd4"]
    assert six.work(six.default()) < four.work(four.default())
    assert six.waits(six.default()) > 0 == four.waits(four.default()) and space.default()["algorithm"] == "winograd4"


def test_tiles_per_position_keep_to_a_group_whose_channels_share_weights():
    machine = target("x86:avx512")
    c = schedules.space(parse("involution2d:n1,c32,g2,h112,w112,k3x3;padding=1:f32.f32.f32:nchw").description, machine).default()
    assert c["sum.vec"] == "q" and c["sum.tile2"] > 1 and 16 % c["sum.tile2"] == 0
    c = schedules.space(parse("ska2d:n1,c128,g16,h28,w28,k3x3;padding=1:f32.f32.f32:nhwc").description, machine).default()
    assert c["sum.vec"] == "c" and c["sum.vectors"] > 1, "vectors of all groups have the same weights"


@pytest.mark.parametrize("id, vec", [("c32,g2,h112,w112,k3x3;padding=1", "q"), ("c64,g4,h56,w56,k7x7;padding=3", "c")], ids=["few", "many"])
def test_many_terms_per_position_turn_their_data(id, vec):
    assert schedules.space(parse(f"involution2d:n1,{id}:f32.f32.f32:nchw").description, target("x86:avx2")).default()["sum.vec"] == vec
