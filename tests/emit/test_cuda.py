"""Every operator's CUDA kernels: accepted by nvcc, and run from the same source on the processor, right by the float64 oracle."""

import random
import shutil

import pytest

from convgen import schedules
from convgen.emit import nvcc
from convgen.ops import table
from tests.emit.kernels import complaints, job, target
from tests.emit.workloads import HARD, workload

ARCHITECTURES = ("sm_80", "sm_86", "sm_89", "sm_90")
pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="emulating CUDA kernels needs g++")
needs_nvcc = pytest.mark.skipif(nvcc.find() is None, reason="needs nvcc of the CUDA toolkit")


def gpu(arch="sm_90", compiled=False):
    """Target JSON; `compiled`: with nvcc, where there is one."""
    return target(f"cuda:{arch}") | ({} if compiled and nvcc.find() else {"output": "source"})


def points(w, machine, seed, n=1):
    """Random valid choices, or the defaults where there is nothing to choose."""
    space = schedules.space(w.description, machine)
    return space.candidates(random.Random(seed), n, space.defaults()) or space.defaults()[-1:]


@pytest.mark.parametrize("name", HARD)
def test_default_and_random_kernels(kernels, name):
    asked = []
    for i, text in enumerate(HARD[name][:2]):
        w, machine = workload(name, text), gpu(ARCHITECTURES[(i + len(name)) % 4])
        asked.append((w, job(w, gpu(compiled=i == 0))))
        asked += [(w, job(w, machine, choice)) for choice in points(w, machine, i)]
    wrong = [line for (w, _), answer in zip(asked, kernels.ask([j for _, j in asked])) for line in complaints(w, answer)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", HARD)
def test_other_storage(kernels, name):
    """Two bytes in memory, float32 in between; or all the dtypes an operator has of its own."""
    types = table.get(name).types or ["f16.f32.f16", "bf16.f32.bf16"]
    wrong, _ = kernels.check([workload(name, HARD[name][(i + 1) % 2], kind) for i, kind in enumerate(types)], gpu())
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", HARD)
def test_any_batch(kernels, name):
    """One kernel serves batches of 1, 3 and 8; its grid says how."""
    text = HARD[name][0]
    w = workload(name, text, any_batch=True)
    others = [workload(name, f"n{n},{text.split(',', 1)[1]}") for n in (1, 3, 8)]
    (answer,) = kernels.ask([job(w, gpu(), others=others)])
    assert not complaints(w, answer) and len(answer["verdicts"]) == 4
    assert any("N" in launch["grid"] for launch in answer["entry"]["launches"])
