"""tools/any_batch.py: one open kernel against exact ones."""

import importlib.util

import pytest

import convgen
from convgen import bench
from tests.tool import load

pytest.importorskip("torch")
ID = "depthwise_conv2d:n1,c8,h6,w5,k3x3;padding=1:f32.f32.f32:nhwc:bias"


@pytest.fixture(scope="module")
def tool():
    return load("any_batch")


def test_other_batches(tool):
    w = convgen.workload("conv2d:n2,c8,o8,h6,w5,k3x3;padding=0_1x1_0,groups=2:f32.f32.bf16:nhwc:act=relu,bias")
    assert tool.batched(w, 2) == w and tool.batched(w, 3).id == w.id.replace("n2", "n3") and tool.batched(w, 8, True).id == w.id.replace("n2", "n8+")
    assert tool.batched(tool.batched(w, 8, True), 2) == w


@pytest.mark.skipif(importlib.util.find_spec("tvm") is None, reason="needs convgen[tune]")
def test_open_against_exact(tool, tmp_path, capsys, monkeypatch):
    for name in ("CONVGEN_LOGS", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    path, searched = tmp_path / "data.jsonl", []
    monkeypatch.setattr(convgen, "tune", lambda kernels, *_, **options: searched.append(kernels))
    assert tool.main([ID, "-o", str(path), "--batches", "1", "3", "--threads", "1", "--rounds", "1", "--seconds", "0.01", "--tune", "0.1", "--logs", str(tmp_path / "logs")]) == 0
    rows = bench.read(path).rows
    assert [(row["workload"].split(",")[0][-2:], row["contestant"]) for row in rows] == [(n, who) for n in ("n1", "n3") for who in ("convgen", "any batch")]
    assert [[w.id.split(",")[0].split(":n")[1] for w in kernels] for kernels in searched] == [["8+", "1", "3"]]
    assert all(row["ok"] and row["error"] < 1e-6 for row in rows) and "exact / open" in capsys.readouterr().out
    assert tool.main(["conv1d:n1,c8,o8,l9,k3:f32.f32.f32:nlc", "-o", str(path), "--tuned-at", "0"]) == 2 and "N must be" in capsys.readouterr().err
