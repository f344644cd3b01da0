"""No rewrite reads outside its tensors, whatever it multiplies the value by."""

import pytest

from convgen import algorithms, shapes
from convgen.lang import access, parse, ranges
from convgen.ops.table import TABLE
from tests.emit.workloads import HARD, workload


def outside(program):
    sizes = {t.name: t.shape for t in program.tensors} | {s.name: s.shape for s in program.stages}
    return [found for stage in program.stages if (found := ranges.outside(stage, sizes))]


@pytest.mark.parametrize("op", TABLE, ids=lambda op: op.name)
def test_reads_stay_inside(op):
    for w in [*(workload(op.name, text) for text in HARD[op.name]), *(shapes.small(op, seed) for seed in range(12))]:
        for name, program in algorithms.variants(w.program).items():
            assert not outside(program), (w.id, name)
            assert not outside(access.specialised(program)), (w.id, name)


def test_filled_taps_of_an_unpadded_axis():
    """A kernel of one tap with stride 3 leaves two phases of filled taps only, whose positions are outside."""
    w = parse("conv_transpose3d:n1,c2,o3,d4,h3,w5,k1x3x2;stride=3x1x2,dilation=2x2x3:f32.f32.f32:ndhwc:bias")
    assert "phases" in algorithms.variants(w.program)
    for program in algorithms.variants(w.program).values():
        assert not outside(program)
