"""Sums that threads of a block share: right for every layout and combination, without races, and chosen where a card would lie idle."""

import random
import shutil

import pytest

from convgen import emulate, schedules
from convgen.emit import nvcc
from convgen.lang import operator, parse
from convgen.tune.cases import CaseBook
from convgen.tune.verify import verify
from tests.emit.kernels import complaints, job, target

needs_emulation = pytest.mark.skipif(shutil.which("g++") is None, reason="emulating CUDA kernels needs g++")
MACHINE = target("cuda:sm_90")
SOURCE = MACHINE | {"output": "source"}
CASES = [
    "conv2d:n1,c64,o33,h7,w5,k3x3;padding=1:f32.f32.f32:nchw:bias,residual",
    "conv2d:n2,c24,o17,h5,w7,k3x3;padding=1:f16.f32.f16:nhwc",
    "depthwise_conv2d:n3,c10,h8,w8,k8x8:f32.f32.f32:nchw",
    "depthwise_conv2d:n1,c10,h5,w9,k7x7;padding=3:f32.f32.f32:nhwc",
    "convnext_block2d:n2,c34,hidden68,h9,w7,k3x3:f32.f32.f32:nchw",
    "convnext_block2d:n1,c48,hidden20,h5,w4,k7x7:f32.f32.f32:nhwc",
    "quantized_conv2d:n1,c64,o17,h5,w9,k3x3;padding=1:u8.i32.u8:nchw:bias",
]


@operator(dims="N C O H W", epilogue=False)
def farthest(o):
    """y[n,o,h,w] = max over channels of x + w[o,c]."""
    n, k, h, w = o.axes("N O H W")
    c = o.axis("c", o.C)
    return o.max(o.input("x", "N C H W")[n, c, h, w] + o.param("weight", "O", "C")[k, c], (c,))


@operator(dims="N C O H W", epilogue=False)
def nearest(o):
    """y[n,o,h,w] = min over channels of x - w[o,c]."""
    n, k, h, w = o.axes("N O H W")
    c = o.axis("c", o.C)
    return o.min(o.input("x", "N C H W")[n, c, h, w] - o.param("weight", "O", "C")[k, c], (c,))


def shared(w, seed, split=2):
    """A random choice of the plain algorithm in which `split` threads or more share every sum that may be shared."""
    leaf, rng = schedules.space(w.description, MACHINE).leaves["direct"], random.Random(seed)
    names = [n for n in leaf.domains if n.endswith(".split") and max(leaf.domains[n]) >= split]
    leaf.domains |= {n: [v for v in leaf.domains[n] if v >= split] for n in names} | {n: [False] for n in leaf.domains if n.endswith(".tensor")}
    assert names, f"{w} has no sum to share"
    return next(c for _ in range(200) if leaf.constraint(c := leaf.draw(rng)) is None and all(c[n] >= split for n in names))


def complaints_of(kernels, asked):
    """What is wrong with kernels of (workload, choice)."""
    answers = kernels.ask([job(w, SOURCE, choice) for w, choice in asked])
    return [f"{line} {choice}" for (w, choice), answer in zip(asked, answers) for line in complaints(w, answer)]


@needs_emulation
def test_shared_sums_are_right(kernels):
    wrong = complaints_of(kernels, [(w, shared(w, i)) for i, w in enumerate(map(parse, CASES[::2]))])
    assert not wrong, "\n".join(wrong)


@needs_emulation
def test_other_combinations_are_exact(kernels):
    asked = [(w, shared(w, i)) for i, w in enumerate([farthest(N=2, C=40, O=17, H=5, W=7), nearest(N=1, C=33, O=12, H=3, W=5, layout="NHWC")])]
    wrong = complaints_of(kernels, asked)
    assert not wrong, "\n".join(wrong)


@needs_emulation
def test_one_kernel_of_every_batch(kernels):
    text = "convnext_block2d:n2{},c34,hidden68,h5,w7,k3x3:f32.f32.f32:nchw"
    w = parse(text.format("+"))
    others = [parse(text.replace("n2{}", f"n{n}")).description for n in (1, 3)]
    (answer,) = kernels.ask([{"cmd": "check", "description": w.description, "target": SOURCE, "choice": shared(w, 1), "others": others}])
    assert not complaints(w, answer) and len(answer["verdicts"]) == 3


@pytest.mark.parametrize("text, before", [  # threads with one for each sum
    ("conv2d:n1,c512,o512,h7,w7,k3x3;padding=1:f32.f32.f32:nchw", 14336), ("conv2d:n1,c512,o512,h7,w7,k3x3;padding=1:f32.f32.f32:nhwc", 14336),
    ("depthwise_conv2d:n1,c512,h32,w32,k32x32:f32.f32.f32:nchw", 512),
])
def test_small_planes_fill_the_card(text, before):
    leaf = schedules.space(parse(text).description, MACHINE).leaves["direct"]
    choice = leaf.default()
    shape = leaf.works[0].shape(choice)
    assert shape.split > 1 and shape.blocks * shape.threads > 1.5 * before and shape.threads >= 128


def test_large_layers_have_sums_of_their_own():
    for text in ("conv2d:n32,c64,o64,h56,w56,k3x3;padding=1:f32.f32.f32:nchw", "depthwise_conv2d:n32,c96,h56,w56,k7x7;padding=3:f32.f32.f32:nhwc"):
        leaf = schedules.space(parse(text).description, MACHINE).leaves["direct"]
        assert leaf.default().get("sum.split", 1) == 1


def test_statistics_of_one_sample_are_shared():
    leaf = schedules.space(parse("convnext_block2d:n1,c768,hidden3072,h7,w7,k7x7:f32.f32.f32:nchw").description, MACHINE).leaves["direct"]
    choice = leaf.default()
    assert min(choice["total.split"], choice["squares.split"]) >= 16


def test_parts_are_equal():
    w = parse("conv2d:n1,c48,o64,h7,w7,k3x3;padding=1:f32.f32.f32:nchw")
    found = schedules.space(w.description, MACHINE)
    choice = shared(w, 0) | {"sum.chunk": 8, "sum.split": 16, "sum.data": "shared", "sum.weights": "shared"}
    assert "8 terms do not fall into 16 equal parts" in found.leaves["direct"].constraint(choice)


@pytest.mark.slow
@needs_emulation
@pytest.mark.parametrize("text", CASES)
def test_more_points_are_right(kernels, text):
    w = parse(text)
    wrong = complaints_of(kernels, [(w, shared(w, seed, split)) for seed in (10, 11) for split in (2, 4)])
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
@needs_emulation
@pytest.mark.parametrize("sanitizer", ["address", "thread"])
@pytest.mark.parametrize("text", [CASES[0], CASES[4]])
def test_sanitizers_find_nothing(kernels, text, sanitizer, tmp_path):
    w = parse(text)
    (answer,) = kernels.ask([{"cmd": "source", "description": w.description, "target": SOURCE, "choice": shared(w, 3)}])
    (tmp_path / answer["entry"]["source"]).write_text(answer["source"])
    verdict = verify(emulate.opener(answer["entry"], tmp_path, SOURCE, sanitizer=sanitizer)(w.description["dims"]), CaseBook(w.program), thorough=False)
    assert verdict.ok, verdict.reason


@pytest.mark.slow
@pytest.mark.skipif(nvcc.find() is None, reason="needs nvcc of the CUDA toolkit")
@pytest.mark.parametrize("text", ["conv2d:n1,c512,o512,h7,w7,k3x3;padding=1:f32.f32.f32:nchw", "conv2d:n1,c2048,o512,h7,w7,k1x1:f32.f32.f32:nchw",
                                  "convnext_block2d:n1,c768,hidden3072,h7,w7,k7x7:f32.f32.f32:nhwc"])
def test_nvcc_keeps_parts_in_registers(kernels, text, tmp_path):
    w = parse(text)
    choice = schedules.space(w.description, MACHINE).leaves["direct"].default()
    assert any(v > 1 for n, v in choice.items() if n.endswith(".split"))
    (answer,) = kernels.ask([{"cmd": "source", "description": w.description, "target": MACHINE, "choice": choice}])
    assert all(launch["spills"] == 0 for launch in answer["entry"]["launches"]), answer["entry"]["launches"]
