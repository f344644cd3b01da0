"""tools/arm_instructions.py: the committed counts are those of the code as it is."""

import importlib.util
import json
from pathlib import Path

import pytest

from convgen.lang import parse
from tests.tool import load

pytestmark = pytest.mark.skipif(importlib.util.find_spec("unicorn") is None or importlib.util.find_spec("tvm") is None, reason="needs unicorn and convgen[tune]")
PAGE = (Path(__file__).parents[2] / "docs" / "targets.md").read_text()
CHECKED = ("conv2d:n1,c32,o64,h28,w28,k1x1:f32.f32.f32:nchw", "depthwise_conv2d:n1,c32,h28,w28,k3x3;padding=1:f32.f32.f32:nhwc", "quantized_conv2d:n1,c32,o32,h14,w14,k3x3;padding=1:u8.i32.u8:nhwc:bias")


@pytest.fixture(scope="module")
def tool():
    return load("arm_instructions")


def test_counts_are_those_committed(tool):
    """Within 2 %: what changes them more is a change of the schedules, to be looked at and committed with new counts (the tool writes them)."""
    from convgen.emit.service import CompileService

    committed = {(row["workload"], row["target"]): row for row in map(json.loads, tool.OUT.read_text().splitlines())}
    service = CompileService()
    for text, name in tool.ROWS:
        if text in CHECKED:
            row = tool.counted(service, text, name)
            before = committed[text, name]
            assert (row["algorithm"], row["multiply_adds"]) == (before["algorithm"], before["multiply_adds"])
            assert row["instructions"] == pytest.approx(before["instructions"], rel=0.02), (text, name)
    service.close()


def test_every_row_is_committed_and_plausible(tool):
    rows = [json.loads(line) for line in tool.OUT.read_text().splitlines()]
    assert [(row["workload"], row["target"]) for row in rows] == list(tool.ROWS)
    for row in rows:
        assert parse(row["workload"]).flops // 8 == row["multiply_adds"] and row["instructions"] > 0
        assert f"| `{row['workload']}` | {row['target'][4:]} | {row['algorithm']} | {row['instructions']:,} |" in PAGE, "the table in docs/targets.md"
