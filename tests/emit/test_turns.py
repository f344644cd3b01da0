"""Copies of whole rows, straight or turned in registers, and in bands of rows: where they apply, and that they are right at every width and border."""

import random

import pytest

from convgen import schedules
from convgen.emit import banded
from convgen.lang import parse
from convgen.runtime.cpu import missing
from tests.emit.kernels import complaints, job, target

MACHINES = {name: target(name) for name in ("x86:avx2", "x86:avx512")}
WIDTHS = (3, 4, 5, 7, 13, 45)
IDS = [*(f"depthwise_conv2d:n1,c16,h5,w{w},k3x3;padding=1:f32.f32.f32:nchw:bias" for w in WIDTHS),
       "depthwise_conv2d:n2,c32,h6,w11,k3x5;stride=2x1,padding=1_2x0_4:f32.f32.f32:nchw:act=relu",
       "depthwise_conv2d:n1,c16,h5,w9,k3x3;padding=20:f32.f32.f32:nchw", "depthwise_conv2d:n1,c16,h7,w6,k5x3;stride=2,padding=2x0,dilation=1x2:f32.f32.f32:nchw",
       "conv2d:n1,c16,o48,h6,w9,k3x3;padding=1:f32.f32.f32:nchw:act=relu,bias", "conv2d:n2,c32,o16,h4,w5,k1x1:f32.f32.f32:nchw", "conv2d:n1,c32,o32,h5,w6,k2x2;stride=2,groups=2:f32.f32.f32:nchw:residual",
       "conv1d:n2,c16,o32,l23,k5;padding=4_1:f32.f32.f32:ncl:bias", "conv3d:n1,c16,o16,d3,h4,w6,k3x1x3;padding=1x0x1:f32.f32.f32:ncdhw:bias",
       "conv_transpose2d:n1,c16,o16,h4,w5,k3x3;stride=2,padding=1:f32.f32.f32:nchw:bias", "conv_transpose2d:n2,c8,o16,h3,w5,k4x4;stride=2,padding=1:f32.f32.f32:nchw:bias",
       "conv_transpose2d:n1,c16,o16,h3,w13,k4x4;stride=2,padding=1,groups=16:f32.f32.f32:nchw", "conv_transpose1d:n1,c8,o16,l21,k6;stride=3:f32.f32.f32:ncl",
       "conv2d_pixel_shuffle:n1,c8,o16,h4,w5,k3x3;padding=1:f32.f32.f32:nchw:bias_conv", "condconv2d:n3,c16,o16,e2,h6,w7,k3x3;padding=1,groups=16:f32.f32.f32:nchw:bias",
       "involution2d:n1,c32,g2,h5,w7,k3x3;padding=1:f32.f32.f32:nchw:bias", "separable_block2d:n1,c16,o32,h6,w7,k3x3;padding=1:f32.f32.f32:nchw:act=relu6,bias"]


def scheduled(kernels, id, machine, **knobs):
    """({block: whether it turns}, text of the scheduled function) with the vectors along output channels."""
    w = parse(id)
    choice = schedules.space(w.description, machine).leaves["direct"].default() | {"sum.vec": "o", "sum.lanes": 8} | knobs
    (answer,) = kernels.ask([{"cmd": "scheduled", "description": w.description, "target": machine, "choice": choice}])
    return dict(answer["turned"]), answer["text"]


@pytest.mark.parametrize("store", ["tile", "row", "pass"])
@pytest.mark.parametrize("copies", ["root", "outer", 1, 2])
def test_rows_are_turned_wherever_copies_and_stores_are_placed(kernels, store, copies):
    knobs = {"sum.store": store, "sum.copies": copies, "sum.tile1": 8, "sum.tile2": 1, "sum.vectors": 1, "sum.padding": "stage"}
    turned, text = scheduled(kernels, "depthwise_conv2d:n1,c16,h6,w8,k3x3;padding=1:f32.f32.f32:nchw:bias", MACHINES["x86:avx2"], **knobs)
    assert turned == {"sum_x1": True, "sum": False, "finish": False, "out": True}
    # per four columns of eight lanes: four joined vectors and two rounds of four in the copy, two rounds of four and eight halves in the store; two groups
    assert text.count("T.Shuffle") in (12 + 16, 2 * (12 + 16))


@pytest.mark.parametrize("copies", ["root", 1])
def test_rows_that_are_no_whole_vectors_are_copied_straight(kernels, copies):
    knobs = {"sum.vec": "q", "sum.store": "row", "sum.copies": copies, "sum.tile1": 2, "sum.tile2": 1, "sum.vectors": 1, "sum.padding": "stage"}
    turned, text = scheduled(kernels, "depthwise_conv2d:n1,c3,h6,w13,k3x3;padding=1:f32.f32.f32:nchw:bias", MACHINES["x86:avx2"], **knobs)
    assert [name for name, turns in turned.items() if turns] == ["sum_x1", "out"] and "T.Shuffle" not in text
    # thirteen numbers: a vector of eight and another that overlaps it; blocks of lanes cannot overlap, so that five numbers become twice four
    assert text.count("= x[") == 2 and text.count("= finish[") == 3


@pytest.mark.parametrize("copies", ["root", 2])
def test_vectors_of_every_second_number_are_picked_from_whole_ones(kernels, copies):
    knobs = {"sum.vec": "q", "sum.store": "tile", "sum.copies": copies, "sum.tile1": 2, "sum.tile2": 4, "sum.vectors": 1, "sum.padding": "stage", "sum.unroll": 0}
    turned, text = scheduled(kernels, "conv2d:n1,c3,o8,h16,w32,k3x3;stride=2,padding=1:f32.f32.f32:nchw", MACHINES["x86:avx2"], **knobs)
    assert turned == {"sum_x1": True, "sum": False, "out": False}
    # 32 numbers of a row are four vectors; three taps of two vectors are picked from two each, one of them also from the vector before and one beside a zero
    assert text.count("= x[") == 4 and text.count("T.Shuffle") >= 12


# id → knobs; windows that move by 2 to 4, with and without a border, taps apart, rows that are no whole vectors, several samples and groups
SPACED = {
    "conv2d:n1,c3,o16,h16,w64,k3x3;stride=2,padding=1:f32.f32.f32:nchw:bias": dict(copies=2, tile1=2, tile2=4, vectors=1),
    "conv2d:n2,c2,o8,h16,w60,k5x5;stride=2,padding=2:f32.f32.f32:nchw:act=relu": dict(copies=4, tile1=1, tile2=4, vectors=2),
    "conv2d:n1,c3,o8,h21,w96,k4x5;stride=3,padding=1x3_1:f32.f32.f32:nchw": dict(copies="root", tile1=1, tile2=8, vectors=1),
    "conv2d:n1,c4,o8,h20,w130,k2x7;stride=4:f32.f32.f32:nchw": dict(copies="outer", tile1=1, tile2=8, vectors=1),
    "conv2d:n1,c6,o12,h10,w64,k3x3;stride=2,dilation=2,padding=2,groups=2:f32.f32.f32:nchw": dict(copies="root", tile1=1, tile2=4, vectors=1, inner="window"),
    "conv2d:n1,c8,o8,h8,w64,k1x1;stride=2:f32.f32.f32:nchw": dict(copies="root", tile1=1, tile2=8, vectors=1, vec="q"),
    "conv1d:n2,c4,o8,l62,k3;stride=2,padding=2_1:f32.f32.f32:ncl:bias": dict(copies="root", tile1=8, tile2=1, vectors=1)}


@pytest.mark.parametrize("machine", MACHINES)
def test_sums_over_picked_vectors_are_right(kernels, machine):
    if missing(MACHINES[machine]["features"]):
        pytest.skip("this processor cannot run such kernels")
    asked, workloads = [], [parse(id) for id in SPACED]
    for w, knobs in zip(workloads, SPACED.values()):
        leaf = schedules.space(w.description, MACHINES[machine]).leaves["direct"]
        choice = leaf.default() | {"sum.vec": leaf.domains["sum.vec"][-1], "sum.padding": "stage", "sum.store": "tile", "sum.unroll": 0, "sum.order": "vector"} | {f"sum.{k}": v for k, v in knobs.items()}
        asked.append(job(w, MACHINES[machine], choice))
    assert not [line for w, a in zip(workloads, kernels.ask(asked)) for line in complaints(w, a)]


def test_bands_of_rows_share_out_the_rows_and_their_copies(kernels):
    knobs = {"sum.store": "tile", "sum.tile1": 8, "sum.tile2": 1, "sum.vectors": 1, "sum.padding": "stage"}
    id = "depthwise_conv2d:n1,c16,h8,w8,k3x3;padding=1:f32.f32.f32:nchw"
    for bands in (1, 2, 4):
        text = scheduled(kernels, id, MACHINES["x86:avx2"], **knobs, **{"sum.copies": bands})[1]
        assert text.count("T.parallel") == 1 and f"T.parallel({2 * bands})" in text  # the copy is inside, two rows more than its band
        assert f"ax0, ax1, ax2, ax3, ax4 in T.grid(1, 1, {8 // bands + 2}, 1, 1)" in text


DENSE = {  # id → knobs beside those of the default
    "conv2d:n1,c3,o32,h16,w9,k3x3;padding=1:f32.f32.f32:nchw:bias": dict(copies=4, tile1=9, tile2=1, vectors=1),
    "conv2d:n1,c16,o32,h8,w12,k3x3;padding=1:f32.f32.f32:nchw": dict(copies=2, vec="q", lanes=4, tile1=1, tile2=4, vectors=1, unroll=0),
    "conv2d:n2,c8,o48,h16,w8,k5x5;stride=2,padding=2:f32.f32.f32:nchw:act=relu": dict(copies=4, tile1=4, tile2=1, vectors=2, store="row"),
    "conv2d:n1,c16,o40,h8,w12,k3x3;padding=1:f32.f32.f32:nhwc": dict(copies=2, tile1=4, tile2=1, vectors=1),
    "conv2d:n2,c24,o48,h8,w7,k3x3;padding=1,groups=3:f32.f32.f32:nchw": dict(copies=4, tile1=7, tile2=1, vectors=1, store="pass"),
    "condconv2d:n2,c8,o16,e2,h8,w7,k3x3;padding=1:f32.f32.f32:nchw": dict(copies=2, tile1=7, tile2=1, vectors=1),
    "quantized_conv2d:n1,c16,o32,h8,w9,k3x3;padding=1:u8.i32.u8:nhwc:bias": dict(copies=4, tile1=9, tile2=1, vectors=1)}


def test_bands_of_dense_sums_copy_for_all_outputs(kernels):
    knobs = {"sum.store": "tile", "sum.tile1": 8, "sum.tile2": 1, "sum.vectors": 1, "sum.padding": "stage", "sum.pack": "blocked", "sum.unroll": 0, "sum.block": 0}
    for bands in (2, 4):
        text = scheduled(kernels, "conv2d:n1,c3,o32,h8,w8,k3x3;padding=1:f32.f32.f32:nchw", MACHINES["x86:avx2"], **knobs, **{"sum.copies": bands})[1]
        assert text.count("T.parallel") == 1 and f"T.parallel({bands})" in text  # the four blocks of outputs are inside, beside the one copy


def test_kernels_with_dense_bands_are_right(kernels):
    asked = []
    for id, knobs in DENSE.items():
        w, machine = parse(id), MACHINES["x86:avx2"]
        choice = schedules.space(w.description, machine).leaves["direct"].default() | {"sum.order": "vector", "sum.padding": "stage"} | {f"sum.{k}": v for k, v in knobs.items()}
        asked.append((w, job(w, machine, choice)))
    wrong = [line for (w, _), answer in zip(asked, kernels.ask([j for _, j in asked])) for line in complaints(w, answer)]
    assert not wrong, "\n".join(wrong)


TILES = {  # id → knobs beside those of the default
    "conv2d:n1,c16,o48,h8,w9,k1x1:f32.f32.f32:nhwc:bias": dict(order=8, tile1=3, vectors=2),
    "conv2d:n1,c16,o40,h8,w8,k1x1:f32.f32.f32:nchw:act=relu": dict(order=8, tile1=2, vectors=5, store="pass"),
    "conv2d:n2,c32,o8,h6,w8,k1x1:f32.f32.f32:nhwc": dict(order=2, tile1=6, vectors=1, pack="blocked"),
    "conv1d:n1,c8,o24,l37,k3;padding=1:f32.f32.f32:nlc:bias": dict(order=4, tile1=5, vectors=1),
    "quantized_conv2d:n1,c16,o32,h8,w8,k1x1:u8.i32.u8:nhwc:bias": dict(order=2, tile1=4, vectors=1)}


def test_kernels_with_bands_of_tiles_are_right(kernels):
    asked = []
    for id, knobs in TILES.items():
        w, machine = parse(id), MACHINES["x86:avx2"]
        leaf = schedules.space(w.description, machine).leaves["direct"]
        choice = leaf.default() | {"sum.vec": "o", "sum.lanes": 8, "sum.tile2": 1, "sum.store": "tile"} | {f"sum.{k}": v for k, v in knobs.items()}
        assert leaf.valid(choice) is None, (id, leaf.valid(choice))
        asked.append((w, job(w, machine, choice)))
    wrong = [line for (w, _), answer in zip(asked, kernels.ask([j for _, j in asked])) for line in complaints(w, answer)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("threads, outputs", [(2, 32), (2, 96), (2, 64), (1, 96), (4, 96)])
def test_few_blocks_of_outputs_are_shared_out_in_bands_of_tiles(threads, outputs):
    """One block would keep one thread at work, three blocks two threads for the time of four."""
    id, machine = f"conv2d:n1,c64,o{outputs},h56,w56,k1x1:f32.f32.f32:nhwc", MACHINES["x86:avx512"] | {"threads": threads}
    default = schedules.space(parse(id).description, machine).default()
    bands, blocks = banded.tiles("sum", default), -(-outputs // (16 * default["sum.vectors"]))
    assert (bands > 0) == (blocks % threads > 0) and bands * blocks % threads == 0


@pytest.mark.parametrize("shape, pack", [("n1,c512,o512,h7,w7", "blocked"), ("n1,c960,o160,h7,w7", "plain"), ("n1,c512,o2048,h14,w14", "plain")])
def test_small_planes_are_copied_for_many_outputs(shape, pack):
    machine = MACHINES["x86:avx512"]
    assert schedules.space(parse(f"conv2d:{shape},k1x1:f32.f32.f32:nchw").description, machine).default()["sum.pack"] == pack
    assert schedules.space(parse("conv2d:n1,c384,o768,h14,w14,k2x2;stride=2:f32.f32.f32:nchw").description, machine).default()["sum.pack"] == "plain"
    assert schedules.space(parse(f"conv2d:{shape},k1x1:f32.f32.f32:nhwc").description, machine).default()["sum.pack"] == "plain"


def test_default_bands_of_dense_sums_are_for_few_weights():
    default = lambda shape: schedules.space(parse(f"conv2d:{shape}:f32.f32.f32:nchw").description, MACHINES["x86:avx512"] | {"threads": 2}).leaves["direct"].default()
    assert banded.rows("sum", default("n1,c3,o64,h224,w224,k7x7;stride=4,padding=3")) and default("n1,c512,o512,h28,w28,k3x3;stride=2,padding=1")["sum.copies"] == "root"


@pytest.mark.parametrize("threads", [1, 2, 16])
def test_default_bands_fit_the_cache_and_feed_the_threads(threads):
    machine = MACHINES["x86:avx512"] | {"threads": threads}
    bands = {}
    for c, h in ((1024, 14), (32, 56), (8, 112)):
        space = schedules.space(parse(f"depthwise_conv2d:n1,c{c},h{h},w{h},k3x3;padding=1:f32.f32.f32:nchw").description, machine)
        choice = space.default()
        bands[h] = banded.rows("sum", choice)
        assert space.valid(choice) is None
        assert (c if choice["sum.vec"] == "q" else c // 16) * bands[h] >= threads, "planes or blocks of channels, and bands of each"
    assert bands[14] == 1 and bands[112] >= min(threads // 8, 2)


def unfolded(kernels, id, machine, **knobs):
    """({block: whether it turns}, text) of a transposed convolution's phases."""
    w = parse(id)
    choice = schedules.space(w.description, machine).leaves["phases"].default() | {f"sum_split.{k}": v for k, v in knobs.items()}
    assert schedules.space(w.description, machine).valid(choice) is None
    (answer,) = kernels.ask([{"cmd": "scheduled", "description": w.description, "target": machine, "choice": choice}])
    return dict(answer["turned"]), answer["text"]


@pytest.mark.parametrize("store, groups", [("tile", 1), ("row", 3), ("pass", 3)])
def test_phases_take_turns_in_turned_rows(kernels, store, groups):
    id = "conv_transpose2d:n1,c16,o16,h4,w6,k2x2;stride=2:f32.f32.f32:nchw"
    turned, text = unfolded(kernels, id, MACHINES["x86:avx2"], vec="o", lanes=8, tile1=2, tile2=2, vectors=1, order="vector", store=store)
    assert turned["out"]
    assert text.count("T.Shuffle") == groups * 16  # groups of four columns, two steps of two phases each


@pytest.mark.parametrize("steps, stores", [(8, 2), (13, 4)])
def test_phases_along_vectors_interleave(kernels, steps, stores):
    id = f"conv_transpose2d:n1,c8,o8,h4,w{steps},k4x4;stride=2,padding=1,groups=8:f32.f32.f32:nchw:bias"
    turned, text = unfolded(kernels, id, MACHINES["x86:avx2"], vec="q", lanes=8, tile1=2, tile2=2, vectors=1, order="vector", store="row")
    assert turned["out"]
    assert text.count("T.Shuffle") == stores  # a shuffle per stored vector; five steps of two phases are ten numbers: eight, and the last eight


def test_a_step_function_of_a_fused_loop_is_divided_right(kernels):
    """TVM 0.27 takes (i % m + k) // d for ((i + k) % m) // d; here the phase's shift (r + 1) // 3 is such an index, and the copy sits in the fused loop."""
    id = "conv_transpose2d:n1,c8,o32,h6,w20,k5x5;stride=3,padding=1:f32.f32.f32:nhwc:bias"
    w, machine = parse(id), MACHINES["x86:avx2"]
    choice = schedules.space(w.description, machine).leaves["phases"].default() | {
        f"sum_split.{k}": v for k, v in dict(tile1=1, tile2=6, vectors=1, block=0, unroll=1, copies="outer", pack="blocked", order="vector").items()}
    (answer,) = kernels.ask([job(w, machine, choice)])
    assert complaints(w, answer) == []


def test_what_is_not_turned(kernels):
    turns = lambda id, **knobs: [name for name, turned in scheduled(kernels, id, MACHINES["x86:avx2"], **knobs)[0].items() if turned]
    assert not turns("depthwise_conv2d:n1,c16,h6,w8,k3x3;padding=1:f32.f32.f32:nhwc")  # the lanes are innermost in memory
    assert not turns("depthwise_conv2d:n1,c20,h6,w8,k3x3;padding=1:f32.f32.f32:nchw")  # the last block of lanes is not full
    assert not turns("depthwise_conv2d:n1,c16,h6,w8,k3x3;padding=1:f16.f32.f16:nchw")
    assert turns("depthwise_conv2d:n1,c16,h6,w8,k3x3;padding=1,padding_mode=reflect:f32.f32.f32:nchw") == ["out"]
    assert turns("depthwise_conv2d:n1,c16,h6,w8,k3x3;padding=1:f32.f32.f32:nchw:residual") == ["sum_x1"]  # the residual lies in rows


@pytest.mark.parametrize("id", ["depthwise_conv2d:n1,c6,h12,w17,k1x1;padding=3_1x1_3:f32.f32.f32:nhwc", "involution2d:n1,c6,g1,h12,w17,k1x1;padding=3_1x1_3:f32.f32.f32:nhwc"])
def test_padding_within_a_vector(kernels, id):
    """A window of one leaves the position whole, padding and all, as the vectors' axis: a vector is not padding as a whole."""
    knobs = {"sum.vec": "p", "sum.store": "pass", "sum.copies": "root", "sum.padding": "stage"}
    assert not scheduled(kernels, id, MACHINES["x86:avx2"], **knobs)[0]["sum_x1"]
    w, machine = parse(id), MACHINES["x86:avx2"]
    space = schedules.space(w.description, machine)
    (answer,) = kernels.ask([job(w, machine, space.default() | knobs | {"sum.lanes": 8})])
    assert not complaints(w, answer)


def test_turned_kernels_are_right(kernels):
    machines = [m for m in MACHINES.values() if not missing(m["features"])]
    asked = []
    for seed, id in enumerate(IDS):
        w, machine = parse(id), machines[seed % len(machines)]
        leaves, rng = schedules.space(w.description, machine).leaves, random.Random(seed)
        leaf = leaves.get("phases", leaves["direct"])
        found = leaf.candidates(rng, 60)
        across = next((c for c in found if all(c[k] == "o" for k in c if k.endswith(".vec"))), leaf.default())
        along = next((c for c in found if "q" in c.values() and any(banded.rows(k.removesuffix(".copies"), c) for k in c if k.endswith(".copies"))), None)
        asked += [(w, job(w, machine, c)) for c in (across, along if seed % 3 == 0 else None) if c]
    wrong = [line for (w, _), answer in zip(asked, kernels.ask([j for _, j in asked])) for line in complaints(w, answer)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("id", ["depthwise_conv2d:n2+,c16,h6,w7,k3x3;padding=1:f32.f32.f32:nchw:bias", "conv2d:n2+,c3,o32,h8,w8,k3x3;stride=2,padding=1:f32.f32.f32:nchw:bias"])
def test_any_batch(kernels, id):
    wrong, verdicts = kernels.check_batches(parse(id))
    assert not wrong and verdicts == 4
