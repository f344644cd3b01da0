"""The whole way once, with the real compiler and the real measuring process: tune, record, look up, confirm."""

import importlib.util
from pathlib import Path

import pytest

import convgen
from convgen.emit.service import CompileService
from convgen.tune import logs, tune
from convgen.tune.records import read

pytestmark = pytest.mark.skipif(importlib.util.find_spec("tvm") is None, reason="needs the compiler, convgen[tune]")


def test_tune_record_and_serve(tmp_path):
    workload = convgen.workload("depthwise_conv2d:n1,c20,h9,w7,k3x3;padding=1:f32.f32.f32:nhwc")
    result = tune(workload, trials=3, logs=str(tmp_path), workers=1)
    row = result.rows[0]
    assert row.us > 0 and row.trials == 3 and row.record["final"] and set(row.record["verified"]) == set("EFG"), str(result)
    assert (row.baseline_ratio or 0) > 0 or importlib.util.find_spec("torch") is None
    lines = read(tmp_path / row.record["family"] / "depthwise_conv2d.jsonl")
    assert len(lines) == 4 and lines[-1]["choice"] == row.record["choice"] and 0 < lines[-1]["error"] <= 1
    assert logs.check([tmp_path]).ok
    found = logs.why(workload, logs=str(tmp_path))
    assert found.step == "exact" and found.choice == row.record["choice"]
    near = logs.why(convgen.workload("depthwise_conv2d:n1,c20,h18,w14,k3x3;padding=1:f32.f32.f32:nhwc"), logs=str(tmp_path))
    assert near.step in ("shape", "default") and near.reason
    again = tune(workload, trials=3, logs=str(tmp_path), workers=1)
    assert again.rows[0].record == lines[-1] and len(read(tmp_path / row.record["family"] / "depthwise_conv2d.jsonl")) == 4


def test_the_compiler_lives_without_torch():
    service = CompileService()
    try:
        assert service.call("load")
        mapped = Path(f"/proc/{service._workers[0].process.pid}/maps").read_text()
    finally:
        service.close()
    assert "libtvm" in mapped and "libtorch" not in mapped
