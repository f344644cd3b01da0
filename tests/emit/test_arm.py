"""Every operator's kernels for ARM against the oracles, in an emulator: the default and a random point on shapes where they would break."""

import importlib.util

import pytest

from convgen.lang import parse
from tests.emit.kernels import complaints, job, target
from tests.emit.test_dot import WORKLOADS, drawn, leaf
from tests.emit.test_operators import point
from tests.emit.workloads import HARD, workload

pytestmark = pytest.mark.skipif(importlib.util.find_spec("unicorn") is None, reason="needs unicorn: pip install unicorn")

N1, A72 = "arm:neoverse-n1", "arm:cortex-a72"
SERVER, BOARD = target(N1), target(A72)


@pytest.mark.parametrize("name", HARD)
def test_default_and_random_kernels(kernels, name):
    """Without and with the instructions of Armv8.2; the emulated processor has no more than the target."""
    first, second = [workload(name, text) for text in HARD[name][:2]]
    asked = [(first, job(first, BOARD)), (second, job(second, SERVER, point(second, SERVER, 1)))]
    wrong = [line for (w, _), answer in zip(asked, kernels.ask([j for _, j in asked])) for line in complaints(w, answer)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("text", WORKLOADS[:4])
def test_bytes_with_and_without_the_dot_product_instruction(kernels, text):
    """Exact with both, so the same as on x86."""
    w = parse(text)
    choices = [(BOARD, None), (SERVER, leaf(text, SERVER).default()), (SERVER, drawn(text, SERVER, True, 1)), (SERVER, drawn(text, SERVER, False, 2))]
    assert choices[1][1]["sum.dot"] and "sum.dot" not in leaf(text, BOARD).domains
    wrong = [line for answer in kernels.ask([job(w, *c) for c in choices]) for line in complaints(w, answer)]
    assert not wrong, "\n".join(wrong)


def test_two_bytes_in_memory(kernels):
    wrong, _ = kernels.check([workload(name, HARD[name][0], kind) for name, kind in (("conv2d", "f16.f32.f16"), ("depthwise_conv2d", "f16.f32.f32"), ("conv1d", "bf16.f32.bf16"))], SERVER)
    assert not wrong, "\n".join(wrong)
