"""The CUDA space: what its constraints refuse and why, defaults for everything on every architecture, and features."""

import json
import random

import pytest

from convgen import schedules
from convgen.bench import suites
from convgen.lang import parse
from convgen.ops.table import TABLE
from convgen.schedules.cuda import estimate
from tests.emit.kernels import target
from tests.emit.workloads import HARD, workload

PRESETS = [target(f"cuda:{arch}") for arch in ("sm_80", "sm_86", "sm_89", "sm_90")]
DENSE = "conv2d:n8,c64,o64,h56,w56,k3x3;padding=1:f32.f32.f32:nchw"
DEPTHWISE = "depthwise_conv2d:n1,c96,h56,w56,k7x7;padding=3:f32.f32.f32:nchw"


def space(text, machine=PRESETS[3]):
    return schedules.space(parse(text).description, machine)


def tile(text, machine=PRESETS[3], **knobs):
    """(space, a plain valid choice of `direct` with other values of some knobs, "f_threads" for "sum.f.threads")."""
    found = space(text, machine)
    plain = {f"sum.{slot}.{part}": 1 for slot in "fyx" for part in ("threads", "each")} | {"sum.x.threads": 56, "sum.chunk": 0, "sum.data": "direct", "sum.weights": "direct", "sum.unroll": 1, "sum.split": 1}
    choice = {name: value for name, value in ({"algorithm": "direct"} | plain).items() if name in found.leaves["direct"].domains}
    choice |= {name: min(choice[name], max(found.leaves["direct"].domains[name])) for name in choice if isinstance(choice[name], int)}
    assert found.valid(choice) is None
    return found, choice | {f"sum.{name.replace('_', '.')}": value for name, value in knobs.items()}


@pytest.mark.parametrize("knobs, reason", [
    ({"f_threads": 64, "y_threads": 28}, "100352 threads, a block has at most 1024"),
    ({"x_threads": 2}, "2 threads leave lanes of a warp idle"),
    ({"f_each": 28, "x_each": 7, "x_threads": 8, "f_threads": 4}, "196 results of one thread, at most 128"),
    ({"f_each": 14, "f_threads": 10, "x_threads": 28}, "tiles compute 2.2 times the results wanted"),
    ({"y_threads": 56, "x_threads": 14, "x_each": 4, "chunk": 32, "data": "shared"}, "bytes of shared memory, a block has 232448"),
    ({"f_each": 16, "f_threads": 4, "x_each": 4, "x_threads": 14, "data": "shared", "chunk": 32, "unroll": 3}, "unrolled body of 18432 operations"),
    ({"chunk": 8}, "chunks are of use for shared memory alone"),
    ({"unroll": 9}, "sum.unroll must be one of"),
])
def test_what_is_refused(knobs, reason):
    found, choice = tile(DENSE, **knobs)
    assert reason in (found.valid(choice) or "nothing")


def test_registers_are_of_a_thread_and_of_a_multiprocessor():
    found, choice = tile(DENSE, f_each=8, x_each=8, x_threads=7, f_threads=8, y_threads=14)
    assert "registers in 784 threads, a multiprocessor has 65536" in found.valid(choice)
    found.leaves["direct"].limits = found.leaves["direct"].limits | {"registers_per_thread": 64}
    assert "registers, a thread has 64" in found.valid(choice)


def test_a_multiprocessor_holds_a_warp_for_each_of_its_schedulers():
    found, choice = tile(DENSE)
    leaf = found.leaves["direct"]
    assert leaf.constraint(choice) is None
    leaf.limits = leaf.limits | {"blocks_per_sm": 1}
    assert leaf.constraint(choice) == "a multiprocessor would hold 2 warps, fewer than its 4 schedulers need"


def test_sharing_needs_threads_that_meet_the_same_data():
    found, choice = tile("conv2d:n1,c64,o64,h56,w56,k1x1;stride=2:f32.f32.f32:nchw", x_threads=28, y_threads=28, data="shared")
    assert "no two threads" in found.valid(choice)


def test_every_default_of_the_table_is_valid():
    for op in TABLE:
        for i, text in enumerate(HARD[op.name]):
            machine = PRESETS[(i + len(op.name)) % 4]
            found = schedules.space(workload(op.name, text).description, machine)
            for choice in found.defaults():
                assert found.valid(choice) is None, (op.name, text, machine["name"], choice["algorithm"], found.valid(choice))


def test_defaults_of_published_layers_fill_the_card():
    """Threads in whole warps and more blocks than multiprocessors, unless there is not that much to do."""
    layers = sorted({line.split()[0] for name in suites.names() for line in suites.path(name).read_text().splitlines() if line and line[0] != "#"})
    for i, text in enumerate(layers[::12]):
        for machine in (PRESETS[i % 4],):
            found = space(text, machine)
            choice = found.default()
            leaf = found.leaves[choice["algorithm"]]
            assert found.valid(choice) is None, (text, found.valid(choice))
            for work in leaf.works:
                shape = work.shape(choice)
                if work.points >= 2048 * machine["limits"]["sms"]:
                    assert shape.blocks >= 0.75 * machine["limits"]["sms"] and shape.threads >= 32, (text, work.name, shape)
                assert estimate.resident(work, shape, choice, machine["limits"]) >= 1


def test_candidates_are_valid_and_have_finite_features():
    for text in (DENSE, DEPTHWISE, "involution2d:n1,c64,g4,h56,w56,k7x7;padding=3:f32.f32.f32:nhwc"):
        found = space(text)
        candidates = found.candidates(random.Random(0), 12)
        assert len(candidates) == 12 and len({json.dumps(c, sort_keys=True) for c in candidates}) == 12
        for choice in candidates:
            row = found.features(choice)
            assert found.valid(choice) is None and len(row) == len(found.feature_names)
            assert all(abs(v) < 1e12 for v in row)


def test_more_work_takes_longer():
    one, eight = (space(DEPTHWISE.replace("n1,", f"n{n},")) for n in (16, 128))
    assert eight.leaves["direct"].seconds(eight.default()) > 3 * one.leaves["direct"].seconds(one.default())
