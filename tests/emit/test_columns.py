"""What a sum gathers, produced in bands of positions, tap by tap: where that is possible, and that it is right for every kind of group, plane and layout."""

import itertools
import random

from convgen import schedules
from convgen.emit import banded, plan as P, tiling
from convgen.lang import parse
from convgen.runtime.cpu import missing
from tests.emit.kernels import complaints, job, target

MACHINE = target("x86:avx2")
MACHINES = [m for m in (MACHINE, target("x86:avx512")) if not missing(m["features"])]
IDS = ["deform_conv2d:n1,c16,o24,h9,w7,k3x3;padding=1:f32.f32.f32:nchw:act=relu,bias,mask", "deform_conv2d:n2,c12,o16,h7,w5,dg3,k3x2;stride=2x1,padding=1x2,dilation=1x2:f32.f32.f32:nchw:mask",
       "deform_conv2d:n1,c16,o32,h4,w6,dg2,k3x3;padding=1,groups=2:f32.f32.f32:nhwc:residual", "deform_conv2d:n3,c5,o16,h19,w5,k1x1:f32.f32.f32:nhwc", "deform_conv2d:n2+,c8,o16,h4,w5,k3x3;padding=1:f32.f32.f32:nchw:bias"]


def leaf(id, machine=MACHINE):
    return schedules.space(parse(id).description, machine).leaves["direct"]


def in_bands(space, draws, seed=0):
    """Random choices that produce columns in bands."""
    rng, found = random.Random(seed), []
    steps = banded.numbers(space.domains["sum.producer"])
    for _ in range(4000):
        c = space.draw(rng) | {"sum.producer": rng.choice(steps), "sum.order": "vector", "sum.copies": "root", "sum.store": rng.choice(["row", "pass"])}
        if space.constraint(c) is None:
            found.append(c)
        if len(found) == draws:
            return found
    raise AssertionError("hardly any choice has bands")


def test_columns_are_found_by_how_they_are_read():
    space = leaf(IDS[1])
    assert tiling.columns(space.program, space.anchors["sum"].stage, "o") == ("p", ["kh", "kw"])
    assert tiling.columns(space.program, space.anchors["sum"].stage, "q") is None  # vectors of positions: each would gather for itself
    assert not banded.numbers(leaf("conv2d:n1,c16,o16,h8,w8,k3x3;padding=1:f32.f32.f32:nchw").domains["sum.producer"])
    assert not banded.numbers(leaf("partial_conv2d:n1,c16,o16,h8,w8,k3x3;padding=1:f32.f32.f32:nchw").domains["sum.producer"])  # a window meets its producer's results many times


def test_parameters_that_outgrow_the_cache_pass_once_per_band():
    machine = MACHINE | {"l2": 1 << 20}
    few, many = (leaf(f"deform_conv2d:n1,c{c},o{c},h16,w16,k3x3;padding=1:f32.f32.f32:nchw:mask", machine).default() for c in (64, 256))
    assert few["sum.producer"] == "tile" and many["sum.producer"] in (1, 2, 4, 8) and many["sum.store"] == "row"


def test_one_band_is_sampled_tap_by_tap(kernels):
    w = parse(IDS[0])
    choice = leaf(IDS[0]).default() | {"sum.tile1": 7, "sum.tile2": 1, "sum.vectors": 1, "sum.producer": 3, "sum.order": "vector", "sum.store": "row"}
    (answer,) = kernels.ask([{"cmd": "scheduled", "description": w.description, "target": MACHINE, "choice": choice}])
    text = answer["text"]
    assert "T.parallel(3)" in text  # three bands of three rows
    assert "T.grid(1, 3, 7, 1, 1, 2)" in text  # rows, columns and vectors of channels sampled for one tap
    assert 0 < text.index("for kh, kw in T.grid(3, 3):") < text.index('T.sblock("sampled")') < text.index('T.sblock("sum_update")') < text.index('T.sblock("out")')


def test_the_last_band_may_reach_beyond_the_plane():
    space = leaf(IDS[3])
    assert banded.numbers(space.domains["sum.producer"]) == [1, 2, 4, 5, 10]  # of 19 rows: 20 are little more
    plan = P.make(space.program, in_bands(space, 1)[0] | {"sum.tile2": 1, "sum.producer": 5}, space.lanes)
    assert [plan.stage(n).extents["p"] for n in ("sampled", "sum")] == [20, 20]


def test_kernels_with_bands_are_right(kernels):
    asked = [(w := parse(id), job(w, machine, c)) for id, machine in zip(IDS, itertools.cycle(MACHINES)) for c in in_bands(leaf(id, machine), 1)]
    answers = kernels.ask([j for _, j in asked])
    wrong = [line for (w, _), a in zip(asked, answers) for line in complaints(w, a)]
    assert not wrong, "\n".join(wrong)
