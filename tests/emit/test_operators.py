"""Every operator's kernels against the float64 oracle, on shapes where they would break, with canaries around every buffer."""

import math
import random

import pytest

from convgen import schedules
from convgen.ops import table
from convgen.runtime.cpu import missing
from convgen.runtime.sizes import evaluate
from tests.emit.kernels import complaints, job, target
from tests.emit.workloads import HARD, workload

AVX2 = "x86:avx2"


def point(w, machine, seed):
    """A random algorithm and choice of knobs, the last algorithm's default where there is nothing to choose."""
    space = schedules.space(w.description, machine)
    return next(iter(space.candidates(random.Random(seed), 1, space.defaults())), space.defaults()[-1])


@pytest.mark.parametrize("name", HARD)
def test_default_and_random_kernels(kernels, name):
    narrow = target(AVX2)
    asked = []
    for seed, text in enumerate(HARD[name]):
        w = workload(name, text)
        asked.append((w, job(w)))
        if seed % 2 == 0:
            asked.append((w, job(w, narrow, point(w, narrow, seed))))
    wrong = [line for (w, _), answer in zip(asked, kernels.ask([j for _, j in asked])) for line in complaints(w, answer)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", HARD)
def test_other_storage(kernels, name):
    """Two bytes in memory, float32 in between: results are those of the rounded inputs, rounded once. Or all the dtypes an operator has of its own."""
    wide = name in ("conv2d", "depthwise_conv2d", "dynamic_conv1d", "deform_conv2d")  # one of every kind writes float32 as well
    types = table.get(name).types or ["f16.f32.f16", "bf16.f32.bf16", *(["bf16.f32.f32", "f16.f32.f32"] if wide else [])]
    wrong, _ = kernels.check([workload(name, HARD[name][i % 2], kind) for i, kind in enumerate(types)])
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", HARD)
def test_any_batch(kernels, name):
    """One kernel serves batches of 1, 3 and 8."""
    text = HARD[name][0]
    w = workload(name, text, any_batch=True)
    others = [workload(name, f"n{n},{text.split(',', 1)[1]}") for n in (1, 3, 8)]
    (answer,) = kernels.ask([job(w, others=others)])
    assert not complaints(w, answer) and len(answer["verdicts"]) == 4
    most = answer["entry"]["dims"]["N"]["max"]  # what an index of 32 bits reaches
    assert answer["entry"]["dims"]["N"]["min"] == 1 and most > 1000
    assert all(math.prod(evaluate(n, {"N": most}) for n in a["shape"]) < 2**31 for a in answer["entry"]["args"])
    assert all(a["shape"][0] == "N" for a in answer["entry"]["args"] if a["kind"] in ("input", "output"))


def test_widest_preset(kernels):
    machine = target("x86:avx512")
    if missing(machine["features"]):
        pytest.skip("this machine has no AVX-512")
    wrong, _ = kernels.check([workload(n, HARD[n][0]) for n in ("conv2d", "depthwise_conv2d", "deform_conv2d")], machine)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("level", ["native", AVX2, "x86:avx512"])
def test_remainders_in_loops_that_llvm_vectorises(kernels, level):
    """The bias of every phase, prepared by loops of 20 steps and more over channels that repeat after 4: LLVM took them for channels that go on."""
    machine = target(level)
    if missing(machine["features"]):
        pytest.skip(f"this machine is no {level}")
    wrong, _ = kernels.check([workload("conv2d_pixel_shuffle", f"n1,c8,o4,h{h},w2,k5x2;stride=2x1,padding=0_1x3_0,groups=2,upscale=4:{layout}:bias_conv") for h, layout in ((12, "nchw"), (30, "nhwc"))], machine)
    assert not wrong, "\n".join(wrong)


def test_requantised_results_of_any_number_of_channels(kernels):
    """Every order of the loops gives the bits of the reference's rounding."""
    jobs = []
    for c, order in ((1, "vector"), (3, "vector"), (17, "position"), (24, "vector"), (33, "position")):
        w = workload("quantized_depthwise_conv2d", f"n1,c{c},h6,w8,k3x3;padding=1,relu=true:nhwc:bias")
        space = schedules.space(w.description, target())
        inner = space.default() | {"sum.vec": "o", "sum.order": order, "sum.store": "tile", "sum.padding": "inline", "sum.copies": "root"}
        assert space.valid(inner) is None or c < 17
        jobs.append((w, job(w, choice=inner if c > 16 else None)))
    wrong = [line for (w, _), answer in zip(jobs, kernels.ask([j for _, j in jobs])) for line in complaints(w, answer)]
    assert not wrong, "\n".join(wrong)
