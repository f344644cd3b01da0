"""What rewrites make of parameters keeps to the bar of prepared parameters, in bytes, counted here from the stages themselves."""

from math import prod

import pytest

from convgen import algorithms, shapes
from convgen.bench import suites
from convgen.cli.arguments import read
from convgen.lang import parse
from convgen.lang.count import PREPARED
from convgen.ops import table
from convgen.ops.table import TABLE
from tests.emit.workloads import HARD, workload

_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1, "uint8": 1, "int32": 4}


def ratio(program) -> float:
    """Bytes of stages and parameters that calls read and that come from parameters alone, over those of the parameters."""
    own = {t.name: prod(t.shape) * _BYTES[t.dtype] for t in program.tensors if t.kind == "param"}
    made, tables = dict(own), set()
    for stage in program.stages[:-1]:
        sources = {load.data[0] for load in stage.body.loads()}
        if sources <= tables:
            tables.add(stage.name)
        elif sources <= made.keys() | tables:
            made[stage.name] = 4 * prod(stage.shape)
    read = {load.data[0] for stage in program.stages if stage.name not in made.keys() | tables for load in stage.body.loads()}
    return sum(size for name, size in made.items() if name in read) / max(1, sum(own.values()))


def assert_lean(programs):
    assert [(p.id, name, r) for p in programs for name, rewritten in algorithms.variants(p).items() if (r := ratio(rewritten)) > PREPARED] == []


def test_layers_of_all_suites():
    assert_lean({layer.workload.id: layer.workload.program for name in suites.names() for layer in read(suites.path(name))}.values())


@pytest.mark.parametrize("op", TABLE, ids=lambda op: op.name)
def test_odd_shapes_in_every_dtype(op):
    types = sorted(op.types) or ["f32.f32.f32", "bf16.f32.bf16", "f16.f32.f16"]
    assert_lean([*(workload(op.name, text, t).program for text in HARD[op.name] for t in types), *(shapes.small(op, seed).program for seed in range(4))])


@pytest.mark.parametrize("id, offered", [
    ("conv_transpose2d:n1,c32,o8,h49,w49,k4x4;stride=2,padding=1:f32.f32.f32:nchw", {"phases", "winograd2_phases", "winograd4_phases"}),  # tiles of 7, which fit: 16 times
    ("conv_transpose2d:n1,c32,o8,h16,w16,k3x3;stride=2,padding=1:f32.f32.f32:nchw", {"phases", "winograd2_phases"}),  # 16 taps in phases for 9: tiles of 4 take 11 times
    ("conv_transpose1d:n1,c32,o8,l24,k4;stride=2,padding=1:f32.f32.f32:ncl", {"phases", "winograd2_phases", "winograd4_phases", "winograd6_phases"}),
    ("conv_transpose2d:n1,c32,o8,h9,w9,k2x2;stride=8:f32.f32.f32:nchw", set()),  # 64 phases of one tap, of which 4 are none of zeros
    ("conv2d:n1,c16,o8,h28,w28,k3x3;padding=1:bf16.f32.bf16:nhwc", {"winograd2", "winograd4"}),  # tiles of 6: 7 numbers for a tap, of twice its bytes
    ("depthwise_conv2d:n1,c8,h20,w20,k9x9;padding=4:bf16.f32.bf16:nhwc", {"winograd5_blocks"}),  # blocks of 4 make 12 taps of 9
    ("depthwise_conv1d:n1,c8,l512,k131;padding=65:f32.f32.f32:ncl", {"winograd4_blocks", "winograd5_blocks", "fft256"}),
    ("depthwise_conv1d:n1,c8,l512,k132;padding=65_66:f32.f32.f32:ncl", {"winograd4_blocks", "winograd5_blocks", "fft256", "fft1024"}),  # 1056 numbers for 132 taps
])
def test_refused_are_those_beyond_the_bar_alone(id, offered):
    assert algorithms.variants(parse(id).program).keys() - {"direct"} == offered
