"""A visit to a GPU, tried out on a driver whose kernels run on the processor: what is written, what is refused, how it goes on."""

import importlib.util
import json
import shutil

import pytest

from convgen import paths
from convgen.bench import gpu
from convgen.bench.report import read
from convgen.lang import parse
from convgen.wave import making
from tests.wave.test_cuda import Emulating, fake_driver

ID = "conv2d:n1,c4,o6,h6,w7,k3x3;padding=1:f32.f32.f32:nchw:bias"


@pytest.fixture(autouse=True)
def no_foreign_records(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "shipped_logs", lambda: tmp_path / "shipped")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("CONVGEN_LOGS", raising=False)


def test_without_a_gpu_it_says_so(tmp_path, capsys):
    (tmp_path / gpu.VISIT).write_text('{"plan": []}')
    assert gpu.main([str(tmp_path), "--libcuda", "libnowhere.so.1"]) == 3
    assert capsys.readouterr().err.startswith("no visit: no CUDA driver was found (libnowhere.so.1)")
    assert gpu.main([]) == 2 and gpu.main([str(tmp_path / "nothing")]) == 2
    assert "name the folder that --prepare made" in capsys.readouterr().err
    assert gpu.main(["--prepare", str(tmp_path / "x"), "--suite", "nosuch"]) == 2


def test_every_operator_is_checked():
    from convgen.ops.table import TABLE

    found = gpu.everything()
    assert {w.operator for w in found} == {op.name for op in TABLE} and {"float32", "float16", "bfloat16"} <= {w.dtype for w in found}


@pytest.mark.skipif(shutil.which("g++") is None or any(importlib.util.find_spec(m) is None for m in ("tvm", "torch", "matplotlib")), reason="needs g++, convgen[tune,torch,bench]")
def test_a_dry_visit(tmp_path, monkeypatch, capfd):
    driver, visit, out = fake_driver(tmp_path), tmp_path / "visit", tmp_path / "out"
    monkeypatch.setenv("FAKE_CUDA", "9.0 NVIDIA H200")
    (tmp_path / "built").mkdir()
    faults = iter([["right"], ["few"], ["few"]])
    monkeypatch.setattr(making, "LocalBuilder", lambda target, workers: Emulating(tmp_path / "built", target, next(faults, [])))
    monkeypatch.setattr(gpu, "everything", lambda: [parse("depthwise_conv2d:n1,c6,h7,w6,k3x3;padding=1:f32.f32.f32:nchw")])
    assert gpu.main(["--prepare", str(visit), ID, "--count", "1"]) == 0
    assert json.loads((visit / gpu.VISIT).read_text())["plan"][0]["workload"] == ID
    words = [str(visit), "--out", str(out), "--libcuda", str(driver), "--dry-run", "--no-compile", "--budget", "0.1", "--rounds", "4"]
    assert gpu.main([*words, "--seconds", "0"]) == 1  # nothing but the device could be looked at
    assert gpu.main(words) == 1, "the suite's default is wrong, and the visit says so"
    rows = read(out / gpu.DATA).rows
    assert [row["kind"] for row in rows] == ["wrong"] and not rows[0]["ok"] and "not written" in rows[0]["reason"]
    shutil.rmtree(visit)
    shutil.rmtree(out)
    assert gpu.main(["--prepare", str(visit), ID, "--count", "1"]) == 0
    assert gpu.main(words) == 1 and "0 of 1 kernels are right" in (out / gpu.TABLE).read_text(), "a wrong kernel among the operators fails the visit"
    shutil.rmtree(visit)
    shutil.rmtree(out)
    assert gpu.main(["--prepare", str(visit), ID, "--count", "1"]) == 0
    assert gpu.main(words) == 0, capfd.readouterr().out
    result = read(out / gpu.DATA)
    race, = result.races
    assert race.ours["ok"] and race.ours["target"] == "cuda-h200-sm_90" and race.ours["error"] < 2e-5 and len(race.ours["rounds_us"]) == 4
    assert {"torch eager", "torch eager channels_last"} <= {row["contestant"] for row in race.peers} and race.ratio > 0
    text = (out / gpu.TABLE).read_text()
    assert "NVIDIA H200 (dry run: figures mean nothing)" in text and "1 of 1 kernels are right by every oracle" in text and ID in text and "CUDA 13.0" in text
    assert "<svg" in (out / gpu.PICTURE).read_text()
    assert gpu.main(words) == 0 and len(read(out / gpu.DATA).rows) == len(result.rows), "what was raced is not raced again"
    assert gpu.main(["--read", str(out)]) == 0 and (out / gpu.TABLE).read_text() == text


def test_our_absence_is_a_row():
    assert gpu.failed("wrong", "x" * 999)["reason"] == "x" * 300 and not gpu.failed("wrong", "")["ok"]
