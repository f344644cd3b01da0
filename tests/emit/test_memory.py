"""What kernels say of the memory that a call holds."""

import random
import threading
import time

import numpy as np
import pytest

import convgen
from convgen import schedules
from convgen.emit import memory, plan
from convgen.emit.service import shared_service
from convgen.lang import parse
from convgen.runtime.kernel import Kernel
from convgen.targets import resolve
from tests.emit.kernels import target

THREADS = 2
BLOCKS = 8  # temporaries that live together in one thread, each rounded up to a line behind a line of its own
BLOCK = "inverted_residual2d:n1,c16,hidden96,o16,h16,w16,k3x3:f32.f32.f32:nhwc"


def held(id, cut, peak):
    space = schedules.space(parse(id).description, target("x86:avx512"))
    choice = space.default() | cut
    return memory.held(plan.make(space.program(choice), choice, 16), choice, THREADS, peak)


def test_a_call_that_holds_little_needs_no_reason():
    found = held("conv2d:n2,c16,o32,h8,w8,k1x1:f16.f32.f16:nhwc", {}, {"sum_x": 4000, "sum": 96})
    assert found == {"border": 2 * 64 * (16 + 32) * 2, "scratch": 4096, "ratio": round(1 + 4096 / 12288, 2), "why": None}


def test_what_holds_much_says_why():
    border = 2 * 16 * 16 * 16 * 4
    (axis,) = [k for k in schedules.space(parse(BLOCK).description, target("x86:avx512")).default() if k.startswith("cut.p")]
    peak = {"sum": border, "sum2_expanded1": 2 * border, "sum2_global": 64}
    whole, tiles = held(BLOCK, {axis: 0, axis.replace("p", "q"): 0}, peak), held(BLOCK, {axis: 4}, peak)
    assert whole["ratio"] == tiles["ratio"] == 4
    assert whole["why"].startswith("a padded copy of expanded (65.5 kB) and sums of expanded (32.8 kB) lie between its stages, as a whole, for the output is not cut into tiles")
    assert f"for a tile of the output at a time (4 of {axis[4:]}), in each of 2 threads" in tiles["why"]


def test_without_tiles_to_choose_from():
    found = held("conv2d:n1,c16,o16,h9,w9,k5x5;padding=2,stride=2:f32.f32.f32:nchw", {}, {"sum_x1": 10**6})
    assert found["why"].startswith("a padded copy of x (1.0 MB) lie between its stages") and "cannot be cut" in found["why"]


def test_transforms_are_called_so():
    id = "conv2d:n1,c32,o32,h16,w16,k3x3;padding=1:f32.f32.f32:nchw"
    space = schedules.space(parse(id).description, target("x86:avx512"))
    choice = space.default() | {}
    while not choice["algorithm"].startswith("winograd"):
        choice = space.draw(random.Random(len(choice["algorithm"])))
    names = [p.stage.name for p in plan.make(space.program(choice), choice, 16).stages]
    found = memory.held(plan.make(space.program(choice), choice, 16), choice, 1, dict.fromkeys([n for n in names if n.endswith(("data_p", "points", "result_p"))], 10**6))
    assert found["why"].startswith("x transformed (1.0 MB), products of transforms (1.0 MB) and products in part transformed back (1.0 MB) lie")


# Something is held by the call as a whole, by every thread, by tiles, or by all of them; two are compiled every time.
PAIRED, COUNTED = "inverted_residual2d:n1,c16,hidden96,o16,h16,w16,k3x3:f32.f32.f32:nchw", [
    "conv2d:n1,c16,o32,h12,w12,k3x3;padding=1:f32.f32.f32:nchw", "depthwise_conv2d:n2,c16,h20,w20,k5x5;padding=2:f32.f32.f32:nchw",
    "conv2d:n1,c3,o32,h33,w33,k7x7;stride=2,padding=3:f32.f32.f32:nchw:bias", "conv2d:n1,c32,o64,h14,w14,k1x1:f32.f32.f32:nchw",
    "depthwise_conv2d:n1,c32,h28,w28,k13x13;padding=6:f32.f32.f32:nchw", "conv_transpose2d:n1,c16,o16,h9,w9,k4x4;stride=2,padding=1:f32.f32.f32:nchw",
    "deform_conv2d:n1,c16,o16,h10,w10,k3x3;padding=1:f32.f32.f32:nchw:mask", "inverted_residual2d:n1,c16,hidden96,o24,h28,w28,k3x3;stride=2:f32.f32.f32:nchw",
    "convnext_block2d:n1,c32,hidden128,h14,w14,k7x7:f32.f32.f32:nchw", "large_kernel_attention2d:n1,c32,h14,w14,k7x7:f32.f32.f32:nchw",
    "involution2d:n1,c32,g2,h14,w14,k7x7;padding=3:f32.f32.f32:nchw",
]


@pytest.mark.parametrize("id, threads", [(PAIRED, 1), (PAIRED, THREADS), *(pytest.param(id, n, marks=pytest.mark.slow) for id in COUNTED for n in (1, THREADS))])
def test_what_is_counted_is_what_a_thread_and_its_helpers_hold(tmp_path, id, threads):
    torch = pytest.importorskip("torch")
    (tmp_path / "records").mkdir()  # none: untuned code
    convgen.export(parse(id), tmp_path / "kernel.cvg", threads=threads, logs=[tmp_path / "records"])
    kernel, held, usual = Kernel.load(tmp_path / "kernel.cvg"), [], torch.get_num_threads()
    tensors = {name: torch.from_numpy(np.asarray(value, np.float32)) for name, value in parse(id).sample(0).items()}
    call = kernel.bind(**{t.name: tensors.pop(t.name) for t in parse(id).program.tensors if t.kind == "param" and t.name in tensors})
    bound = kernel.library.stats()["workspace_bytes"]  # by this thread, which prepared the parameters

    def calls():
        torch.set_num_threads(threads)
        for _ in range(3):
            call(**tensors)
            held.append(kernel.library.stats()["workspace_bytes"] - bound)
    thread = threading.Thread(target=calls)
    thread.start()
    thread.join()
    torch.set_num_threads(usual)
    while kernel.library.stats()["workspace_bytes"] > bound:  # the next test begins when these threads are gone
        time.sleep(0.01)
    counted = kernel.entry["workspace"]
    assert kernel.entry["memory"]["scratch"] == counted and held[1] == held[2]
    machine = resolve("native").with_threads(threads).to_json()
    assert shared_service().call("memory", description=parse(id).description, target=machine, choice=kernel.entry["choice"]) == kernel.entry["memory"]  # without its code
    assert counted <= held[1] <= counted + threads * (4096 + 2 * 64 * BLOCKS)
