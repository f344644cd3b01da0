"""Races between fakes on a machine whose roofline is given."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import convgen
from convgen import bench
from convgen.bench import environment
from convgen.bench.roofline import Roofline
from convgen.bench.stage import Stage

HERE = Path(__file__).parent
ROOT = Path(convgen.__file__).parents[1]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    for name in ("CONVGEN_LOGS", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(environment, "roofline", lambda threads: Roofline(threads, 100.0, ((1 << 20, 50.0), (1 << 28, 10.0))))
    return tmp_path


@pytest.fixture(scope="module")
def stage():
    """Worker processes that know the fakes, shared by a module's tests: starting one takes seconds."""
    with Stage(1, environment={"PYTHONPATH": os.pathsep.join([str(HERE), str(ROOT)])}) as stage:
        stage.close = lambda: None  # a race closes its stage; the next test goes on with it
        try:
            yield stage
        finally:
            Stage.close(stage)


@pytest.fixture(scope="module")
def workload():
    return convgen.workload("conv2d:n1,c3,o4,h6,w5,k3x3;padding=1:f32.f32.f32:nchw")


def fake(name: str, function: str = "timed", process: str = "fakes", counts: bool = True, **options) -> bench.Contestant:
    """A contestant out of fake_peers; `convgen` is ours."""
    return bench.Contestant(name, f"fake_peers:{function}", process, options, counts)


@pytest.fixture
def race(stage, workload):
    """race(contestant, ..., rounds=...) → Result."""
    def run(*contestants, **options):
        return bench.run([workload], threads=1, contestants=lambda w: list(contestants), stage=stage, **{"seconds": 0.01, "rounds": 4, **options})
    return run
