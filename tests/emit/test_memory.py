"""What kernels say of the memory that a call holds."""

from convgen import schedules
from convgen.emit import memory, plan
from convgen.lang import parse
from tests.emit.kernels import target

THREADS = 2
BLOCK = "inverted_residual2d:n1,c16,hidden96,o16,h16,w16,k3x3:f32.f32.f32:nhwc"


def held(id, cut, scratch):
    space = schedules.space(parse(id).description, target("x86:avx512"))
    choice = space.default() | cut
    return memory.held(space.program(choice), memory.largest(plan.make(space.program(choice), choice, 16)), choice, THREADS, scratch)


def test_a_call_that_holds_little_needs_no_reason():
    found = held("conv2d:n2,c16,o32,h8,w8,k1x1:f16.f32.f16:nhwc", {}, 4096)
    assert found == {"border": 2 * 64 * (16 + 32) * 2, "scratch": 4096, "ratio": round(1 + 4096 / 12288, 2), "why": None}


def test_what_holds_much_says_why():
    border = 2 * 16 * 16 * 16 * 4
    (axis,) = [k for k in schedules.space(parse(BLOCK).description, target("x86:avx512")).default() if k.startswith("cut.p")]
    whole, tiles = held(BLOCK, {axis: 0, axis.replace("p", "q"): 0}, 3 * border), held(BLOCK, {axis: 4}, 3 * border)
    assert whole["ratio"] == 4 and tiles["ratio"] == 1 + 3 * THREADS  # every thread has its own
    assert "is not cut into tiles" in whole["why"] and "sum " in whole["why"] and "tile of the output" in tiles["why"]
    assert f"4 of {axis[4:]}" in tiles["why"]


def test_without_tiles_to_choose_from():
    found = held("conv2d:n1,c16,o16,h9,w9,k5x5;padding=2,stride=2:f32.f32.f32:nchw", {}, 10**6)
    assert "cannot be cut" in found["why"]
