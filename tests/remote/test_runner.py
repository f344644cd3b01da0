"""Kernels on servers: what is right is measured and raced, what is wrong in any way costs one failure of the right kind."""

import os
import signal
import subprocess

import pytest

from convgen.errors import TuneError, WorkerError
from convgen.lang import parse
from convgen.remote.address import Tracker, parse as parse_address
from convgen.remote.builder import SOURCE
from convgen.remote.runner import RemoteRunner
from tests.tune.c_kernels import compile_kernel, entry

SHAPE = (1, 5, 6, 7)
TARGET = {"name": "test", "family": "x86", "features": [], "threads": 1, "cores": 1, "lanes": {"float32": 16}, "l3": 1 << 20}


@pytest.fixture(scope="module")
def description():
    return parse("depthwise_conv2d:n1,c5,h6,w7,k3x3;padding=1:f32.f32.f32:nchw").description


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A function name → shared object of a variant with the guarded entry points."""
    folder = tmp_path_factory.mktemp("kernels")

    def make(name, packed=False):
        compile_kernel(folder, name, packed)
        source, path = folder / f"{name}{packed:d}.c", folder / f"{name}{packed:d}-guarded.so"
        subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-DRUN=__tvm_ffi_k", "-DPREPARE=__tvm_ffi_k_prepare", "-o", str(path), str(source), str(SOURCE)],
                       check=True)
        return str(path)

    return make


@pytest.fixture(scope="module")
def runner(farm, key):
    made = RemoteRunner(TARGET, Tracker(*parse_address(farm.address), key), budget=0.02)
    yield made
    made.close()


def test_measures_checks_and_races(runner, guarded, description):
    for packed in (False, True):
        path = guarded("right", packed)
        taken = runner.measure(path, entry(SHAPE, packed), description)
        assert 0 < taken.min_us <= taken.median_us < 1e5 and taken.repeats >= 7 and taken.oracles == "EG"
        assert runner.check(path, entry(SHAPE, packed), description)["oracles"] == "EFG"
    candidates = [(guarded("right", p), entry(SHAPE, p)) for p in (False, True)]
    rows = runner.race(candidates, description, taken.median_us, rounds=4, budget=0.05)
    assert [len(r) for r in rows["median"]] == [4, 4] and min(map(min, rows["least"])) > 0


@pytest.mark.parametrize("name, words", [("lost_tap", "elements differ"), ("unwritten", "not written"), ("beyond", "after out was overwritten"),
                                         ("ahead", "before out was overwritten"), ("mutates", "x was changed"), ("noisy", "second run differs"),
                                         ("low_precision", "times its bound"), ("stale", "second run")])
def test_wrong_candidates_are_refused_as_they_are_here(runner, guarded, description, name, words):
    with pytest.raises(WorkerError) as caught:
        runner.check(guarded(name), entry(SHAPE), description)
    assert caught.value.kind == "wrong" and words in str(caught.value)


def test_many_at_once_and_each_failure_is_its_own(runner, guarded, description):
    def kinds(names, **more):
        found = runner.measure_many([(guarded(name), entry(SHAPE)) for name in names], description, **more)
        return [f.kind if isinstance(f, WorkerError) else "ok" for f in found]

    assert kinds(["right", "segfault", "exit", "right", "refuses", "right"]) == ["ok", "crash", "crash", "ok", "oom", "ok"]
    assert kinds(["hang", "hang"], best_us=10.0) == ["run_timeout"] * 2  # the limit is short where a fast one is known
    assert kinds(["right", "right"]) == ["ok"] * 2


def test_a_session_that_waits_does_not_hang(runner, guarded, description, monkeypatch):
    """The limit is of seconds that are computed."""
    runner.warm(description)
    monkeypatch.setattr("convgen.tune.measure.time_limit", lambda *_: 1.0)
    monkeypatch.setattr("convgen.remote.runner.OVERHEAD", 0.0)
    assert runner.measure(guarded("naps"), entry(SHAPE), description).median_us > 0


def test_time_that_is_over_before_a_candidate_began(runner, guarded, description):
    runner.warm(description)
    assert runner.measure_many([(guarded("right"), entry(SHAPE))] * 2, description, longest=-1.0) == [None, None]


@pytest.mark.parametrize("change, words", [
    ({"features": ["amx_tile9"]}, "lacks amx_tile9"), ({"family": "arm", "name": "arm:cortex-a72"}, "of family arm"), ({"threads": 3}, "start it with --threads 3")])
def test_servers_that_cannot_measure_for_the_target(runner, guarded, description, monkeypatch, change, words):
    monkeypatch.setattr(runner, "target", TARGET | change)
    with pytest.raises(TuneError, match=words):
        runner.measure(guarded("right"), entry(SHAPE), description)


def test_a_server_that_cannot_be_reached_is_named(farm, guarded, description):
    farm.serve("astray", more=("--advertise", "127.0.0.9"))
    runner = RemoteRunner(TARGET, Tracker(*parse_address(farm.address), "astray"), budget=0.02, wait=2.0)
    try:
        with pytest.raises(TuneError, match=r"the server 127.0.0.9:\d+ that the tracker .* names cannot be reached"):
            runner.measure(guarded("right"), entry(SHAPE), description)
    finally:
        runner.close()


@pytest.mark.slow
def test_a_machine_that_falls_silent_costs_its_time_and_no_candidate(farm, guarded, description):
    """Longer than a session's patience and that after it: about 50 s."""
    silent, other = farm.serve("silent", "silent")
    runner = RemoteRunner(TARGET, Tracker(*parse_address(farm.address), "silent"), budget=0.02)
    try:
        os.killpg(silent.pid, signal.SIGSTOP)
        found = runner.measure_many([(guarded("right"), entry(SHAPE))] * 4, description, best_us=10.0)
        assert all(f.median_us > 0 for f in found), [str(f) for f in found]
    finally:
        runner.close()
        os.killpg(silent.pid, signal.SIGCONT)
