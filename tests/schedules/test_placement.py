"""Tiles of the output: what they need of every stage, what they repeat, and which sizes are offered."""

import math

import numpy as np
from convgen import algorithms
from convgen.lang import access, cuts, operator, parse
from convgen.lang.unfold import unfolded
from convgen.ops import table
from convgen.schedules import placement


@operator(dims="N C H W")
def two_windows(o):
    """A 3x3 depthwise window after another."""
    n, c, h, w = o.axis("n", o.N), o.axis("c", o.C), o.axis("h", o.H), o.axis("w", o.W)
    a, b, r, s = o.axis("a", 3), o.axis("b", 3), o.axis("r", 3), o.axis("s", 3)
    first, second = o.param("first", "C", 3, 3), o.param("second", "C", 3, 3)
    x = o.input("x", "N C H W", pad=[(1, 1), (1, 1)])
    middle = o.stage(o.sum(first[c, a, b] * x[n, c, h + a, w + b], (a, b), name="inner"), (n, c, h, w)).padded([(1, 1), (1, 1)])
    o.out("P", o.H), o.out("Q", o.W)
    n, c, p, q = o.axes("N C P Q")
    return o.sum(second[c, r, s] * middle[n, c, p + r, q + s], (r, s), name="outer")


def winograd(id, algorithm):
    return access.specialised(algorithms.variants(parse(id).program)[algorithm])


def test_a_tile_needs_its_halo_of_the_stage_before():
    program = access.specialised(two_windows(N=1, C=16, H=24, W=24).program)
    tiles = placement.Cuts(program, 16)
    assert tiles.sizes["p"] and tiles.needs({"p": 8})["inner"]["h"] == 10
    assert tiles.repeated({"p": 8}) > 1.05 and tiles.repeated({"p": 24}) == 1
    corner = placement.regions(program, access.moved(program), {"p": 8}, {"p": 0})["inner"]["h"]
    assert corner == (0, 8), "above the first row there is nothing to compute"


def test_work_that_is_repeated_is_counted_exactly():
    """Summed over all tiles away from the border, regions cover each row as often as `repeated` says."""
    program = access.specialised(two_windows(N=1, C=1, H=24, W=24).program)
    counts = np.zeros(24)
    for t in range(3):
        lo, hi = placement.regions(program, access.moved(program), {"p": 8}, {"p": t})["inner"]["h"]
        counts[lo:hi + 1] += 1
    assert counts.tolist() == [1] * 7 + [2, 2] + [1] * 6 + [2, 2] + [1] * 7


def test_work_that_tiles_execute_is_what_every_row_is_computed():
    """The inner stage of 24 rows three times, those between tiles twice; of 20 rows in two tiles of 12, the second one has only 8."""
    program = access.specialised(two_windows(N=1, C=1, H=24, W=24).program)
    assert math.isclose(placement.Cuts(program, 16).executed({"p": 8}), (28 / 24 + 1) / 2)
    program = access.specialised(two_windows(N=1, C=1, H=20, W=24).program)
    assert math.isclose(placement.Cuts(program, 16).executed({"p": 12}), (22 / 20 + 24 / 20) / 2)


def test_tiles_ask_where_a_stage_ends_if_those_at_the_borders_need_less():
    tiles = placement.Cuts(access.specialised(two_windows(N=1, C=1, H=24, W=20).program), 16)
    assert tiles.tested({"p": 8}) == {"inner": {"h"}, "outer": set()}, "rows above the first; 24 rows are three tiles"
    assert tiles.tested({"p": 8, "q": 12}) == {"inner": {"h", "w"}, "outer": {"q"}}
    transformed = placement.Cuts(winograd("conv2d:n1,c32,o32,h32,w30,k3x3;padding=1:f32.f32.f32:nhwc", "winograd4"), 16)
    assert not any(transformed.tested({"p": 12}).values()), "stages with transforms go on to the end of the last tile"


def test_winograd_is_cut_at_whole_tiles_only():
    tiles = placement.Cuts(winograd("conv2d:n1,c32,o32,h48,w48,k3x3;padding=1:f32.f32.f32:nhwc", "winograd6"), 16)
    assert tiles.sizes["p"] and all(size % 6 == 0 for size in tiles.sizes["p"])
    assert "o" not in tiles.sizes, "the data transform does not depend on the output channel: every tile would repeat it"
    assert tiles.repeated({"p": 12}) == 1 and math.isclose(tiles.bytes({"p": 12}) * 4, tiles.bytes({}), rel_tol=0.05)


def test_tiles_of_transforms_are_whole_to_the_last():
    """32 rows in tiles of 12: the last tile makes 36, of 9 blocks of four; what other sums need ends with the output."""
    program = winograd("conv2d:n1,c32,o32,h32,w30,k3x3;padding=1:f32.f32.f32:nhwc", "winograd4")
    longer = cuts.lengths(program, {"p": 12})
    assert longer["sum_result_q"] == longer["sum_result_p"] == {"p": 36} and longer["sum_points"] == longer["sum_data_q"] == {"p_tile": 9}
    assert placement.Cuts(program, 16).needs({"p": 12})["sum_points"]["p_tile"] == 3
    assert not cuts.lengths(program, {"p": 16}) and not cuts.lengths(access.specialised(two_windows(N=1, C=16, H=24, W=24).program), {"p": 7})


def test_depthwise_blocks_are_cut_by_channels():
    tiles = placement.Cuts(winograd("depthwise_conv2d:n1,c64,h28,w28,k13x13;padding=6:f32.f32.f32:nhwc", "winograd4_blocks"), 16)
    assert tiles.sizes["o"] == [16, 32] and tiles.bytes({"o": 16}) * 4 == tiles.bytes({})


def test_one_reduction_has_nothing_to_keep():
    assert not placement.Cuts(access.specialised(parse("conv2d:n1,c32,o32,h14,w14,k3x3;padding=1:f32.f32.f32:nchw").program), 16).sizes


def test_kernels_of_a_phase_are_read_by_its_tiles_only():
    program = unfolded(winograd("conv_transpose2d:n1,c64,o32,h16,w16,k4x4;stride=2,padding=1:f32.f32.f32:nchw", "winograd4_phases"))
    tiles = placement.Cuts(program, 16)
    kernels = tiles.fixed_bytes({})
    assert kernels == 4 * (5 * 2) ** 2 * 64 * 32 and tiles.fixed_bytes({"p": 4}) == kernels and tiles.fixed_bytes({"p": 4, "p_phase": 1}) == 0
    assert tiles.streamed({}) == tiles.streamed({"p_phase": 1}) == kernels and tiles.streamed({"p": 4}) == tiles.streamed({"p": 4, "p_phase": 1}) == 4 * kernels


def test_channels_of_different_branches_are_not_cut():
    """A tile of channels would need parts of some branches and nothing of others."""
    assert "c" not in placement.Cuts(access.specialised(parse("inception_depthwise_conv2d:n1,c96,gc12,h56,w56:f32.f32.f32:nchw").program), 16).sizes


def test_samples_are_never_cut_by_a_knob():
    tiles = placement.Cuts(winograd("conv2d:n4,c32,o32,h24,w24,k3x3;padding=1:f32.f32.f32:nhwc", "winograd4"), 16)
    assert "n" not in tiles.sizes and tiles.trips({"p": 8}) == 12 and table.names()
