"""Reductions that the blocks of another compute for themselves: one launch instead of two, nothing between in memory, the same results."""

import random
import shutil

import pytest

from convgen import emulate, schedules
from convgen.emit import nvcc
from convgen.lang import ints, operator, parse
from convgen.ops.conv import conv2d
from convgen.tune.cases import CaseBook
from convgen.tune.verify import verify
from tests.emit.kernels import complaints, job, target

GPU = target("cuda:sm_90") | {"output": "source"}
pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="emulating CUDA kernels needs g++")


@operator(dims="N C H W O", epilogue=False)
def largest_of_windows2d(o, *, stride=ints(2)):
    """The largest of 3x2 neighbours, squared and moved; then a convolution of 2x3 with padding."""
    n, c, p, q = o.axis("n", o.N), o.axis("c", o.C), o.axis("p", o.H), o.axis("q", o.W)
    r, s = o.axis("r", 3), o.axis("s", 2)
    largest = o.max(o.input("x", "N C H W", pad=[(1, 1), (0, 1)], mode="replicate")[n, c, p + r, q + s], (r, s))
    moved = o.stage(largest * largest + o.param("offset", "C")[c], (n, c, p, q), name="moved")
    return conv2d(o, x=moved, weight=o.param("weight", "O", "C", 2, 3), KH=2, KW=3, stride=stride, padding=((1, 0), (2, 1)))


WORKLOADS = [
    parse("separable_block2d:n2,c12,o13,h7,w9,k3x5;stride=2x1,padding=1x2:f32.f32.f32:nchw:act=relu,bias"), parse("separable_block2d:n1,c17,o19,h6,w7,k3x3;padding=1_0x2_1:f32.f32.f32:nhwc:bias,residual"),
    parse("inverted_residual2d:n1,c7,hidden19,o7,h6,w7,k3x5:f32.f32.f32:nchw"), parse("inverted_residual2d:n2,c8,hidden20,o11,h7,w9,k5x3;stride=2,inner=silu:f16.f32.f16:nhwc"),
    largest_of_windows2d(N=1, C=7, H=9, W=11, O=17), largest_of_windows2d(N=2, C=8, H=7, W=6, O=9, stride=(2, 1), layout="NHWC"),
]


def fused(leaf, i, rng=None):
    """A valid choice of a space with one fusion: the estimate's tile, or a random one."""
    f = leaf.fusions[i]
    base = leaf.default() | {g.knob: False for g in leaf.fusions}
    choice = next(filter(None, (leaf._drawn_inside(f, base, rng) for _ in range(20))), None) if rng else leaf._joined(f, base, leaf._best(f.consumer, (f,)))
    assert choice is not None and leaf.valid(choice) is None, f"no tile of {f.consumer.name} allows {f.knob}"
    return choice


def unfused(leaf, choice):
    return choice | {f.knob: False for f in leaf.fusions}


@pytest.mark.parametrize("w", WORKLOADS, ids=str)
def test_one_launch_less_and_the_same_results(kernels, w):
    leaf = schedules.space(w.description, GPU).leaves["direct"]
    asked = []
    for i, f in enumerate(leaf.fusions):
        best = fused(leaf, i)
        asked += [(None, None, unfused(leaf, best)), (f, best, best), (f, best, fused(leaf, i, random.Random(i)))]
    answers = kernels.ask([job(w, GPU, choice) for _, _, choice in asked])
    assert asked and not (wrong := [line for a in answers for line in complaints(w, a)]), "\n".join(wrong)
    for at in range(0, len(asked), 3):
        f, (apart, *together) = asked[at + 1][0], [a["entry"] for a in answers[at:at + 3]]
        assert f.producer.name in {t["name"] for t in apart["temporaries"]}
        for entry in together:
            assert len(entry["launches"]) == len(apart["launches"]) - 1
            assert not {f.producer.name, *f.maps} & {t["name"] for t in entry["temporaries"]}


def test_any_batch(kernels):
    """A depthwise layer and its pointwise one are a single launch, for every batch."""
    head, tail = WORKLOADS[0].id.split(",", 1)
    w, others = parse(f"{head}+,{tail}"), [parse(f"{head[:-1]}{n},{tail}") for n in (1, 3)]
    leaf = schedules.space(w.description, GPU).leaves["direct"]
    (answer,) = kernels.ask([job(w, GPU, fused(leaf, 0), others)])
    assert not complaints(w, answer) and len(answer["verdicts"]) == 3
    (launch,) = answer["entry"]["launches"]
    assert answer["entry"]["temporaries"] == [] and answer["entry"]["workspace"] == 0 and "N" in launch["grid"]


def test_sums_stay_in_registers(kernels):
    if nvcc.find() is None:
        pytest.skip("needs nvcc of the CUDA toolkit")
    w = parse("separable_block2d:n8,c64,o128,h28,w28,k3x3;padding=1:f32.f32.f32:nhwc:act=relu,bias")
    leaf = schedules.space(w.description, GPU).leaves["direct"]
    machine = target("cuda:sm_90")
    (answer,) = kernels.ask([{"cmd": "source", "description": w.description, "target": machine, "choice": fused(leaf, 0)}])
    (launch,) = answer["entry"]["launches"]
    assert launch["spills"] == 0 and launch["registers"] <= 168 and launch["shared_static"] <= machine["limits"]["shared_static"]


def test_threads_do_not_race(kernels, tmp_path):
    """Every element is computed by one thread and read behind a barrier."""
    w = parse("separable_block2d:n1,c8,o9,h4,w5,k3x3;padding=1:f32.f32.f32:nhwc")
    leaf = schedules.space(w.description, GPU).leaves["direct"]
    (answer,) = kernels.ask([{"cmd": "source", "description": w.description, "target": GPU, "choice": fused(leaf, 0)}])
    (tmp_path / answer["entry"]["source"]).write_text(answer["source"])
    kernel = emulate.opener(answer["entry"], tmp_path, GPU, sanitizer="thread")(w.description["dims"])
    verdict = verify(kernel, CaseBook(w.program), thorough=False)
    assert verdict.ok, verdict.reason
