"""Which threads write into which lines of memory, found by running every thread's share alone."""

import pytest

from convgen.errors import WorkerError
from convgen.lang import parse
from convgen.runtime.cpu import missing
from tests.emit.kernels import target

NARROW = ["quantized_depthwise_conv2d:n1,c32,h16,w14,k3x3;padding=1,relu=true:u8.i32.u8:nhwc:bias", "quantized_depthwise_conv2d:n1,c48,h33,w28,k3x3;stride=2,padding=1:u8.i32.u8:nhwc",
          "quantized_conv2d:n1,c16,o64,h16,w14,k1x1:u8.i32.u8:nhwc", "depthwise_conv2d:n1,c72,h40,w40,k5x5;padding=2:f32.f32.f32:nhwc"]


@pytest.mark.parametrize("level", ["x86:avx2", "x86:avx512"])
def test_threads_write_lines_of_their_own(kernels, level):
    """By default two threads meet in one line at most, between their halves; with vector blocks outside they meet in many."""
    machine = target(level) | {"threads": 2}
    if missing(machine["features"]):
        pytest.skip(f"this machine is no {level}")
    jobs = [{"cmd": "lines", "description": parse(id).description, "target": machine, "choice": None} for id in NARROW]
    for id, answer in zip(NARROW, kernels.ask(jobs)):
        assert not isinstance(answer, WorkerError), f"{id}: {answer}"
        assert answer[0] <= 1, f"{id}: of {answer[1]} lines {answer[0]} are shared"


def test_vector_blocks_outside_share_lines(kernels):
    """What the default avoids is seen."""
    from convgen import schedules

    machine, w = target("x86:avx2") | {"threads": 2}, parse(NARROW[0])
    default = schedules.space(w.description, machine).default()
    assert default["sum.order"] == "position"
    ((shared, lines),) = kernels.ask([{"cmd": "lines", "description": w.description, "target": machine, "choice": default | {"sum.order": "vector"}}])
    assert shared > lines / 2
