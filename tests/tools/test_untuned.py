"""tools/untuned.py: tuned kernels against defaults."""

import importlib.util

import pytest

from convgen import bench, building, targets
from convgen.schedules import space
from convgen.tune import lookup
from convgen.tune.records import Store
from tests.tool import load

pytest.importorskip("torch")
ID = "depthwise_conv2d:n1,c9,h6,w5,k3x3;padding=1:f32.f32.f32:nchw"


@pytest.fixture(scope="module")
def tool():
    return load("untuned")


@pytest.fixture
def alone(tmp_path, monkeypatch):
    for name in ("CONVGEN_LOGS", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_workloads_without_records_are_refused(tool, alone, tmp_path, capsys):
    assert tool.main([ID, "-o", str(tmp_path / "data.jsonl")]) == 2
    assert "1 of 1 workloads have no record" in capsys.readouterr().err and not (tmp_path / "data.jsonl").exists()


@pytest.mark.skipif(importlib.util.find_spec("tvm") is None, reason="needs convgen[tune]")
def test_a_record_against_its_default(tool, alone, tmp_path, capsys, monkeypatch):
    """The recorded choice and the default are both built, checked and timed; the share is of their medians."""
    machine, w = targets.resolve("x86:avx2").with_threads(1), tool.convgen.workload(ID)
    planned = building.plan(w, machine, Store([]))
    points = space(w.description, machine.to_json())
    choice = points.neighbours(points.default())[0]
    found = lambda work, target, store: building.Planned(work, target.to_json(), lookup.Found({"choice": choice, "median_us": 1.0}, "exact", "test") if store.roots else planned.found)
    monkeypatch.setattr(building, "plan", found)
    path = tmp_path / "data.jsonl"
    assert tool.main([ID, "-o", str(path), "--target", "x86:avx2", "--threads", "1", "--rounds", "1", "--seconds", "0.01", "--logs", str(tmp_path / "logs")]) == 0
    rows = bench.read(path).rows
    assert [r["contestant"] for r in rows] == ["convgen", "untuned"] and all(r["ok"] and r["error"] < 1e-6 for r in rows)
    assert rows[0]["facts"]["choice"] != rows[1]["facts"]["choice"]
    out = capsys.readouterr().out
    share = rows[0]["median_us"] / rows[1]["median_us"]
    assert f"median {share:.0%}" in out and "share of tuned speed" in out
