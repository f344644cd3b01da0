"""`convgen tune` and `convgen logs`: arguments, output and exit codes; the search has its own tests."""

import json
import sys

import pytest

import convgen.tune.search
from convgen import paths
from convgen.schedules import space
from convgen.targets import resolve
from convgen.tune.identity import description_hash
from convgen.tune.records import append
from convgen.tune.result import Row, TuneResult

ID = "conv2d:n1,c8,o4,h9,w7,k3x3:f32.f32.f32:nchw"


@pytest.fixture
def search(monkeypatch):
    """The search replaced by one that answers at once; returns what it was called with."""
    calls = []

    def tune(workloads, target, **options):
        calls.append((workloads, target, options))
        if options["progress"]:
            options["progress"]({"event": "store", "path": "/somewhere"})
        us = None if options["seed"] == 1 else 12.5
        return TuneResult([Row(workloads[0].id, us=us)], interrupted=options["seed"] == 2)

    monkeypatch.setattr(sys.modules["convgen.tune.search"], "tune", tune)
    return calls


def test_arguments_arrive(run, search, tmp_path):
    (tmp_path / "net.txt").write_text(f"{ID}  # stem x3\n")
    result = run("tune", "-f", "net.txt", "--target", "x86:avx2", "--threads", 3, "--seconds", 1.5, "--trials", 7, "--logs", "a", "--logs", "b", "--retune")
    assert result.code == 0 and ID in result.out and result.err == "records: /somewhere"
    ((workloads, target, options),) = search
    assert [w.id for w in workloads] == [ID] * 3
    assert (target.name, target.threads) == ("x86:avx2", 3)
    assert {k: options[k] for k in ("seconds", "trials", "logs", "retune", "seed")} == {"seconds": 1.5, "trials": 7, "logs": ["a", "b"], "retune": True, "seed": 0}


def test_suites(run, search):
    assert run("tune", "--suite", "im2win12", ID, "--quiet").code == 0
    ((workloads, _, _),) = search
    assert len(workloads) == 13 and workloads[-1].id == ID


def test_only_new_ones(run, search, tmp_path):
    """What was tuned to the end for the very target, its threads included, is left out."""
    w, other = convgen.workload(ID), ID.replace("h9", "h8")
    for threads, final in ((2, True), (1, False)):
        target = resolve("x86:avx512").with_threads(threads).to_json()
        space_of = space(w.description, target)
        append(tmp_path / "logs" / "x86" / "conv2d.jsonl", {
            "format": 1, "operator": "conv2d", "workload": ID, "description": description_hash(w.description), "target": target["fingerprint"], "family": "x86", "isa": target["isa"],
            "microarchitecture": target["microarchitecture"], "threads": threads, "space": space_of.version, "choice": space_of.default(), "kind": "ok", "median_us": 1.0, "spread_us": 0.1,
            "repeats": 9, "verified": "EFG", "final": final})
    words = ("tune", ID, other, "--new", "--target", "x86:avx512", "--logs", tmp_path / "logs")
    assert "1 workloads were tuned before, 1 are left" in run(*words, "--threads", 2).out
    assert run(*words[:2], *words[3:], "--threads", 2).code == 0 and len(search) == 1
    run(*words, "--threads", 1)
    assert [[v.id for v in workloads] for workloads, *_ in search] == [[other], [ID, other]]


@pytest.mark.parametrize("seed, code", [(0, 0), (1, 1), (2, 130)])
def test_exit_codes(run, search, seed, code):
    assert run("tune", ID, "--seed", seed).code == code


def test_json_and_quiet(run, search):
    result = run("tune", ID, "--json")
    assert json.loads(result.out)["rows"][0]["us"] == 12.5 and result.err == ""
    assert run("tune", ID, "--quiet").err == ""


def test_logs_of_nothing(run, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "shipped_logs", lambda: tmp_path / "shipped")
    assert run("logs", "check").out == "0 records in 0 files, 0 unusable lines\n"
    assert json.loads(run("logs", "best", "--json").out) == []
    assert run("logs", "best").out == "no records\n"


def test_logs_check_names_bad_lines(run, tmp_path):
    (tmp_path / "bad.jsonl").write_text("{}\n")
    result = run("logs", "check", "bad.jsonl")
    assert result.code == 1 and "bad.jsonl:1: its format is None" in result.out
    result = run("logs", "check", "missing.jsonl", "--json")
    assert result.code == 1 and json.loads(result.out)["problems"][0]["reason"] == "there is no such file"


def test_logs_merge(run, tmp_path):
    (tmp_path / "a.jsonl").write_text("")
    assert run("logs", "merge", "a.jsonl", "--into", "all").out == "0 records added to all\n"
