"""TVM's tuner as a contestant: it searches, is checked, and is shown only unless it is asked to count."""

import importlib.util
from types import SimpleNamespace

import pytest

import convgen
from convgen import bench
from convgen.bench import race
from convgen.bench.contestants import PEERS, offered
from convgen.bench.stage import Stage

pytest.importorskip("torch")
ID = "conv2d:n1,c4,o8,h5,w4,k3x3;padding=1:f32.f32.f32:nhwc:bias"


def test_it_takes_part_where_asked_for():
    w = convgen.workload(ID)
    assert not any(c.alone for c in offered(w))
    (shown,), (counted,) = offered(w, ["metaschedule"], tuning_seconds=7.0), offered(w, ["metaschedule"], ["metaschedule"])
    assert shown.alone and shown.options == {"seconds": 7.0} and not shown.counts and counted.counts
    assert {c.process for c in offered(w, [*PEERS, "metaschedule"])} > {"metaschedule"}


def test_it_searches_as_long_as_convgen_did(monkeypatch):
    found = lambda record, step: SimpleNamespace(found=SimpleNamespace(record=record, step=step))
    for record, step, seconds in (({"searched_s": 33.5}, "exact", 33.5), ({"searched_s": 33.5}, "shape", 60.0), ({}, "exact", 60.0), (None, "default", 60.0)):
        monkeypatch.setattr("convgen.building.plan", lambda *_: found(record, step))
        assert race._searched(convgen.workload(ID), None, None) == seconds


@pytest.mark.slow
@pytest.mark.skipif(any(importlib.util.find_spec(name) is None for name in ("tvm", "cloudpickle", "psutil", "xgboost")), reason="needs convgen[tune,peers]")
def test_it_is_raced():
    tuner = bench.Contestant("TVM MetaSchedule", "convgen.bench.peers.metaschedule:tuned", "metaschedule",
                             {"seconds": 600.0, "trials": 1, "strategy": "replay-trace"}, counts=False, seconds=600.0)
    peer = bench.Contestant("torch", "convgen.bench.peers.torch:eager", "torch", {"form": "torch"})
    with Stage(1) as stage:
        result = bench.run([convgen.workload(ID)], threads=1, seconds=0.1, rounds=2, contestants=lambda w: [tuner, peer], stage=stage)
    found = {row["contestant"]: row for row in result.rows}
    row = found["TVM MetaSchedule"]
    assert row["ok"], row["reason"]
    assert row["error"] < 1e-6 and row["facts"]["trials"] == 1 and 0 < row["facts"]["seconds"] < 600 and not row["counts"]
