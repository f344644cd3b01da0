"""`convgen.export`: what is built for which workload, target and thread count, and what the report says."""

import json
import logging

import numpy as np
import pytest

import convgen
from convgen.building import Unmet
from convgen.cli import main
from convgen.errors import ArgumentError, WorkerError
from convgen.exporting import ExportReport, ReportRow, identifier


def fills(library, w):
    """What the kernel that serves a workload writes."""
    tensors = {name: np.asarray(value) for name, value in w.sample(0).items()}
    return set(np.unique(getattr(library, w.operator)(**tensors, padding=1)))


def test_a_record_is_built_and_reported(compiler, conv, record, home):
    tuned, other = conv(3), conv(5)
    logs = record(tuned, fill=7, us=20.0, torch_us=50.0)
    report = convgen.export({"stem": tuned, "head": other, "again": tuned}, home / "net.cvg", logs=logs)
    rows = [(r.name, r.workload, r.origin, r.measured_us, r.slower) for r in report.rows]
    assert rows == [("stem, again", tuned.id, "exact", 20.0, False), ("head", other.id, "near", None, False)]
    library = convgen.load(home / "net.cvg", name="test_record_built", expect_sha256=report.sha256)
    assert fills(library, tuned) == {7.0} and fills(library, other) == {7.0}


def test_without_records_the_default_is_built(compiler, conv, home):
    w = conv()
    report = convgen.export(w, home / "one.cvg")
    assert [(r.name, r.origin, r.measured_us) for r in report.rows] == [(None, "default", None)]
    assert fills(convgen.load(home / "one.cvg", name="test_default"), w) == {1.0}


def test_records_can_be_left_alone(compiler, conv, record, home, monkeypatch):
    w = conv()
    monkeypatch.setenv("CONVGEN_LOGS", record(w))
    rows = convgen.export(w, home / "none.cvg", logs=False).rows
    assert [r.origin for r in rows] == ["default"] and [choice for _, _, choice in compiler.built] == [None]
    with pytest.raises(Unmet, match="require='near' is not met"):
        convgen.export(w, home / "none.cvg", logs=False, require="near")


def test_every_target_and_thread_count_gets_a_kernel(compiler, conv, home):
    report = convgen.export([conv()], home / "all.cvg", target=["x86:avx2", "x86:avx512"], threads=(1, 8))
    assert [(r.target, r.threads) for r in report.rows] == [("x86:avx2", 1), ("x86:avx2", 8), ("x86:avx512", 1), ("x86:avx512", 8)]
    manifest = json.loads((home / "all.cvg" / "manifest.json").read_text())
    assert [v["target"]["name"] for v in manifest["variants"]] == ["x86:avx2", "x86:avx512"]
    assert manifest["name"] == "all"


def test_export_is_reproducible_and_prints_nothing(compiler, conv, home, capsys):
    first = convgen.export([conv(3), conv(5)], home / "a" / "net.cvg", target="x86:avx2", threads=1)
    second = convgen.export([conv(3), conv(5)], home / "b" / "net.cvg", target="x86:avx2", threads=1)
    assert first.sha256 == second.sha256
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("require, target, met", [
    ("any", "x86:avx2", True), ("near", "x86:avx2", True), ("near", "native", True), ("tuned", "x86:avx2", True), ("tuned", "native", False)])
def test_require(compiler, conv, record, home, require, target, met):
    w = conv()
    logs = record(w, target="x86:avx2")
    if met:
        convgen.export(w, home / "r.cvg", target=target, logs=logs, require=require)
    else:
        with pytest.raises(Unmet, match=f"require='tuned' is not met by 1 of 1 kernels, first by {w.id} for native"):
            convgen.export(w, home / "r.cvg", target=target, logs=logs, require=require)
        assert compiler.built == [] and not (home / "r.cvg").exists()


def test_a_record_that_cannot_be_built_falls_back_to_the_default(compiler, conv, record, home, caplog):
    w = conv()
    logs = record(w, fill=-1)
    with caplog.at_level(logging.WARNING, "convgen"):
        report = convgen.export(w, home / "f.cvg", logs=logs)
    assert [(r.origin, r.measured_us) for r in report.rows] == [("default", None)]
    assert "its record cannot be built (invalid: fill is negative), the default schedule is used" in caplog.text
    assert fills(convgen.load(home / "f.cvg", name="test_fallback"), w) == {1.0}


def test_a_default_that_cannot_be_built_names_the_workload(compiler, conv, home, monkeypatch):
    monkeypatch.setattr(compiler, "one", lambda **job: WorkerError("oom", "out of memory"))
    with pytest.raises(WorkerError, match="cannot build its kernel for native: out of memory") as caught:
        convgen.export(conv(), home / "f.cvg")
    assert caught.value.kind == "oom" and not (home / "f.cvg").exists()


@pytest.mark.parametrize("workloads, options, message", [
    ("conv2d:n1", {}, "expected Workloads or {layer name: Workload}, got str"),
    ([1], {}, "expected Workloads, got int"),
    ([], {}, "there is no workload to export"),
    (None, {}, "got NoneType"),
    ("one", {"require": "all"}, "require must be one of any, near, tuned, got 'all'"),
    ("one", {"threads": 0}, "threads must be a positive int or several, got 0"),
    ("one", {"threads": True}, "threads must be a positive int or several, got True"),
    ("one", {"threads": []}, "threads must be a positive int or several, got none"),
    ("one", {"logs": True}, "logs must be a folder or several, got True"),
    ("one", {"logs": 3}, "logs must be a folder or several, got 3"),
])
def test_mistakes(compiler, conv, home, workloads, options, message):
    with pytest.raises(ArgumentError, match=message):
        convgen.export(conv() if workloads == "one" else workloads, home / "m.cvg", **options)


def test_report_flags_what_torch_does_faster():
    rows = [ReportRow("a", "conv2d:x", "native", 2, "exact", 20.0, 10.0), ReportRow(None, "conv2d:y", "native", 2, "near", None, None)]
    lines = str(ExportReport("net.cvg", "ab12", rows)).splitlines()
    assert "a: conv2d:x" in lines[1] and "0.50x  slower than torch" in lines[1]
    assert "n/a" in lines[2] and "slower" not in lines[2]
    assert lines[3] == "2 kernels in net.cvg, sha256 ab12"
    assert ExportReport("p", "s", rows).to_json()["kernels"][0]["slower_than_torch"] is True


@pytest.mark.parametrize("path, name", [("a/ops.cvg", "ops"), ("my-net.v2.cvg", "my_net"), ("3d.cvg", "lib_3d"), ("größe.cvg", "gr__e")])
def test_library_name_from_path(path, name):
    assert identifier(path) == name


def test_command_line(compiler, conv, record, home, capsys, monkeypatch):
    w = conv()
    logs = record(w, us=5.0, torch_us=4.0)
    assert main(["export", w.id, "-o", "cli.cvg", "--logs", logs]) == 0
    assert "slower than torch" in capsys.readouterr().out
    assert main(["export", w.id, "-o", "cli.cvg", "--logs", logs, "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)["kernels"]] == [None]
    monkeypatch.setenv("CONVGEN_LOGS", logs)
    assert main(["export", w.id, "-o", "cli.cvg", "--no-logs", "--json"]) == 0
    assert [row["origin"] for row in json.loads(capsys.readouterr().out)["kernels"]] == ["default"]
    assert main(["inspect", "cli.cvg"]) == 0
    assert w.id in capsys.readouterr().out
    assert main(["inspect", "cli.cvg", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "cli"
    assert main(["export", conv(5).id, "-o", "cli.cvg", "--require", "tuned", "--logs", logs]) == 3
    assert "require='tuned' is not met" in capsys.readouterr().err
    assert main(["inspect", "absent.cvg"]) == 1
    assert main(["logs", "why", w.id, "--logs", logs]) == 0
    assert f"{w.id}: exact: tuned for this workload on" in capsys.readouterr().out
