"""More shared memory than every launch has: taken as dynamic memory, within what the target allows, with the same results."""

import shutil

import pytest

from convgen import emulate, schedules
from convgen.emit import nvcc
from convgen.lang import parse
from convgen.tune.cases import CaseBook
from convgen.tune.verify import verify
from tests.emit.kernels import complaints, job, target
from tests.emit.together import refusals

needs_emulation = pytest.mark.skipif(shutil.which("g++") is None, reason="emulating CUDA kernels needs g++")
MACHINE = target("cuda:sm_90") | {"output": "source"}
LIMITS = MACHINE["limits"]
CASES = {  # workload → a tile whose copies take more than that
    "conv2d:n1,c64,o10,h13,w15,k3x3;padding=1:f32.f32.f32:nchw:bias": {"f.threads": 1, "f.each": 10, "y.threads": 7, "y.each": 2, "x.threads": 16, "x.each": 1},
    "depthwise_conv2d:n1,c40,h17,w16,k7x7;padding=3:f32.f32.f32:nhwc": {"f.threads": 20, "f.each": 2, "y.threads": 3, "y.each": 6, "x.threads": 4, "x.each": 4},
    "conv2d:n1,c64,o12,h14,w14,k3x3;padding=1:f32.f32.f32:nhwc": {"f.threads": 12, "f.each": 1, "y.threads": 1, "y.each": 14, "x.threads": 7, "x.each": 2, "split": 4},
}


def tiled(text, **knobs):
    """(workload, its plain algorithm with these knobs of its sum, data in shared memory)."""
    w = parse(text)
    leaf = schedules.space(w.description, MACHINE).leaves["direct"]
    plain = {"data": "shared", "weights": "direct", "chunk": 0, "unroll": 1, "split": 1, "tensor": False}
    choice = leaf.default() | {n: v for n, v in ((f"sum.{n}", v) for n, v in (plain | knobs).items()) if n in leaf.domains}
    assert leaf.valid(choice) is None, leaf.valid(choice)
    return w, choice


@needs_emulation
def test_large_tiles_are_right(kernels, tmp_path):
    asked = [tiled(text, **tile) for text, tile in CASES.items()]
    answers = kernels.ask([job(w, MACHINE, choice) for w, choice in asked])
    wrong = [f"{line} {choice}" for (w, choice), answer in zip(asked, answers) for line in complaints(w, answer)]
    assert not wrong, "\n".join(wrong)
    for answer in answers:
        (launch,) = answer["entry"]["launches"]
        assert launch["shared_static"] == 0 and LIMITS["shared_static"] < launch["shared"] <= LIMITS["shared_per_block"]
    if nvcc.find():
        assert not refusals({str(w): a["source"] for (w, _), a in zip(asked, answers)}, tmp_path, "sm_90")


@needs_emulation
def test_copies_of_unknown_length_are_dynamic(kernels):
    """Tiles of 7 results across groups of 5: how many channels a copy holds depends on the block."""
    tile = {"f.threads": 7, "f.each": 1, "y.threads": 5, "y.each": 1, "x.threads": 2, "x.each": 3, "chunk": 1, "unroll": 2}
    w, choice = tiled("conv2d:n1,c12,o20,h7,w6,k3x3;padding=1,groups=4:f32.f32.f32:nchw:bias", **tile)
    (answer,) = kernels.ask([job(w, MACHINE, choice)])
    assert not complaints(w, answer)
    (launch,) = answer["entry"]["launches"]
    assert launch["shared_static"] == 0 and 0 < launch["shared"] < LIMITS["shared_static"]


def test_every_target_has_its_own_limit():
    for threads, taken in ((8, 102400), (16, 184320)):
        w, choice = tiled("conv2d:n1,c64,o64,h96,w96,k5x5;padding=2:f32.f32.f32:nchw", **{"f.threads": 4, "f.each": 4, "y.threads": threads, "y.each": 2, "x.threads": 4, "x.each": 4, "chunk": 0})
        for arch, most in (("sm_80", 166912), ("sm_86", 101376), ("sm_89", 101376), ("sm_90", 232448)):
            leaf = schedules.space(w.description, target(f"cuda:{arch}")).leaves["direct"]
            assert leaf.valid(choice) == (f"{taken} bytes of shared memory, a block has {most}" if taken > most else None)


@needs_emulation
def test_single_values_stay_static(kernels):
    """Beside copies of dynamic size: the one byte that stands for the padding."""
    w, choice = tiled("quantized_conv2d:n1,c64,o17,h5,w9,k3x3;padding=1:u8.i32.u8:nchw:bias", **{"f.threads": 24, "f.each": 1, "y.threads": 1, "y.each": 1, "x.threads": 4, "x.each": 1, "data": "direct", "weights": "shared"})
    (answer,) = kernels.ask([job(w, MACHINE, choice)])
    assert not complaints(w, answer) and answer["entry"]["launches"][0]["shared_static"] == 1


@pytest.mark.parametrize("text, more", [("conv2d:n32,c64,o256,h56,w56,k1x1:f32.f32.f32:nhwc", False), ("depthwise_conv2d:n32,c96,h56,w56,k7x7;padding=3:f32.f32.f32:nhwc", True)])
def test_defaults_take_more_where_it_is_worth_it(text, more):
    leaf = schedules.space(parse(text).description, MACHINE).leaves["direct"]
    assert (sum(n for _, n in leaf.works[0].shape(leaf.default()).shared) > LIMITS["shared_static"]) == more


@pytest.mark.slow
@needs_emulation
@pytest.mark.parametrize("sanitizer", ["address", "thread"])
@pytest.mark.parametrize("text", CASES)
def test_sanitizers_find_nothing(kernels, text, sanitizer, tmp_path):
    w, choice = tiled(text, **CASES[text])
    (answer,) = kernels.ask([{"cmd": "source", "description": w.description, "target": MACHINE, "choice": choice}])
    (tmp_path / answer["entry"]["source"]).write_text(answer["source"])
    verdict = verify(emulate.opener(answer["entry"], tmp_path, MACHINE, sanitizer=sanitizer)(w.description["dims"]), CaseBook(w.program), thorough=False)
    assert verdict.ok, verdict.reason
