"""Points of the CUDA space: every operator at random tiles, run from the source that nvcc gets; and what nvcc makes of the defaults of each group."""

import random
import re
import shutil

import pytest

from convgen import schedules
from convgen.emit import nvcc
from convgen.emit.service import CompileService
from convgen.lang import parse
from tests.emit.kernels import complaints, job, target
from tests.emit.workloads import HARD, workload

ARCHITECTURES = ("sm_80", "sm_86", "sm_89", "sm_90")
GROUPS = {  # layer → most registers of a thread
    "depthwise_conv2d:n32,c64,h56,w56,k3x3;padding=1:f32.f32.f32:nchw": 64,
    "depthwise_conv2d:n32,c96,h56,w56,k7x7;padding=3:f32.f32.f32:nhwc": 128,
    "depthwise_conv2d:n64,c128,h56,w56,k31x31;padding=15:f32.f32.f32:nchw": 128,
    "conv2d:n32,c64,o64,h56,w56,k3x3;padding=1:f32.f32.f32:nchw": 168,
    "conv2d:n32,c64,o256,h56,w56,k1x1:f32.f32.f32:nhwc": 168,
    "involution2d:n32,c64,g4,h56,w56,k7x7;padding=3:f32.f32.f32:nchw": 168,
    "deform_conv2d:n32,c64,o64,h56,w56,k3x3;padding=1:f32.f32.f32:nhwc": 168,
}


def gpu(arch, **more):
    return target(f"cuda:{arch}") | more


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="emulating CUDA kernels needs g++")
@pytest.mark.parametrize("name", HARD)
def test_random_points_are_right(kernels, name):
    asked = []
    for i, text in enumerate(HARD[name]):
        w, machine = workload(name, text), gpu(ARCHITECTURES[i % 4], output="source")
        space = schedules.space(w.description, machine)
        asked += [(w, c, job(w, machine, c)) for c in [*space.defaults()[1:], *space.candidates(random.Random(i), 2, space.defaults())]]
    answers = kernels.ask([j for _, _, j in asked], timeout=600.0)
    wrong = [f"{line} {choice}" for (w, choice, _), answer in zip(asked, answers) for line in complaints(w, answer)]
    assert not wrong, "\n".join(wrong)


@pytest.fixture(scope="module")
def service():
    found = CompileService(1)
    yield found
    found.close()


@pytest.mark.slow
@pytest.mark.skipif(nvcc.find() is None, reason="needs nvcc of the CUDA toolkit")
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
@pytest.mark.parametrize("text", GROUPS)
def test_defaults_keep_their_sums_in_registers(service, tmp_path, text, arch):
    w = parse(text)
    machine = gpu(arch)
    choice = next(c for c in schedules.space(w.description, machine).defaults() if c["algorithm"] == "direct")
    entry = service.build(w.description, machine, choice, str(tmp_path), "cg_group", timeout=300.0)
    assert all(launch["spills"] == 0 and launch["registers"] <= GROUPS[text] for launch in entry["launches"]), entry["launches"]
    assert not re.search(r"\blocal\b.*\[\d{4,}\]", (tmp_path / entry["source"]).read_text())
