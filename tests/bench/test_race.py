"""Races between fakes: order, correctness, failures, and that only one process runs at a time."""

import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import convgen
from convgen import bench
from convgen.bench import field, load
from convgen.bench import race as races
from convgen.bench.load import Load, Watch, await_quiet, seconds_of_group
from convgen.errors import ArgumentError

from .conftest import fake


def rows(result):
    return {row["contestant"]: row for row in result.rows}


def test_times_and_order(race):
    result = race(fake("convgen", us=100), fake("slow", us=400), fake("fast", us=150), fake("elsewhere", process="others", us=250))
    (one,) = result.races
    assert [(r["contestant"], round(r["median_us"], 1), r["spread_us"] < 0.1) for r in one.peers] == [("fast", 150, True), ("elsewhere", 250, True), ("slow", 400, True)]
    assert one.best["contestant"] == "fast" and one.ratio == pytest.approx(1.5, rel=1e-3)
    assert result.geometric_mean == pytest.approx(1.5, rel=1e-3)
    assert all(len(r["rounds_us"]) == 4 and r["calls"] >= 4 and r["error"] < 1e-6 and r["output"] == "fresh" for r in result.rows)


def test_wrong_outputs_are_reported_and_never_win(race):
    result = race(fake("convgen", us=100), fake("right", us=200), fake("wrong", us=1, add=1e-2), fake("nan", "undefined"), fake("shape", "misshapen"))
    (one,) = result.races
    assert one.best["contestant"] == "right"
    found = rows(result)
    for name, reason in (("wrong", "differs from the reference"), ("nan", "differs from the reference"), ("shape", "has the shape (1, 3, 6, 5), expected (1, 4, 6, 5)")):
        assert not found[name]["ok"] and found[name]["kind"] == "wrong" and reason in found[name]["reason"]
        assert "median_us" not in found[name]
        assert f"not timed: {name} (wrong:" in str(result)


def test_failing_peers_are_reported_with_their_reason(race):
    result = race(fake("convgen", us=100), fake("away", "absent"), fake("broken", "broken"), bench.Contestant("none", "no_such_module:f", "fakes"))
    found = rows(result)
    assert (found["away"]["kind"], found["away"]["reason"]) == ("absent", "it has the day off")
    assert (found["broken"]["kind"], found["broken"]["reason"]) == ("failed", "no such layer")
    assert "no_such_module" in found["none"]["reason"]
    assert result.races[0].ratio is None and found["convgen"]["ok"]


def test_our_own_failure_counts_as_half(race):
    result = race(fake("convgen", us=1, add=1.0), fake("peer", us=200))
    assert result.races[0].ratio == 0.5 and result.geometric_mean == pytest.approx(0.5)
    assert result.fast_p() == {0.5: 0.0, 1.0: 0.0, 1.5: 0.0, 2.0: 0.0, 3.0: 0.0} and result.summary()["failed"] == 1


def test_what_is_shown_only_is_never_the_best(race):
    result = race(fake("convgen", us=100), fake("free lunch", us=10, counts=False), fake("peer", us=120))
    assert result.races[0].best["contestant"] == "peer" and "free lunch (shown only)" in result.details()


def test_drift_hits_all_alike(race):
    """The machine gets twice as slow after two thirds: rounds change, the ratio stays."""
    result = race(fake("convgen", us=100), fake("peer", us=200, drift=0.14), rounds=12, seconds=0.04)
    ours, peer = rows(result)["convgen"], rows(result)["peer"]
    assert max(ours["rounds_us"]) > 1.9 * min(ours["rounds_us"])
    assert peer["median_us"] / ours["median_us"] == pytest.approx(2, rel=0.02)


def test_hopeless_peers_are_timed_in_fewer_rounds(race):
    result = race(fake("convgen", us=10), fake("hopeless", us=10_000), rounds=8)
    assert len(rows(result)["convgen"]["rounds_us"]) == 8 and len(rows(result)["hopeless"]["rounds_us"]) == field.FEW


def test_a_peer_that_dies_does_not_take_others_along(race):
    """Checking takes about a thousand calls of the fake clock, so it dies while it is timed."""
    result = race(fake("convgen", us=100), fake("dying", "dying", calls=1100), fake("neighbour", us=300), rounds=6, seconds=0.6)
    found = rows(result)
    assert found["dying"]["kind"] == "crash" and not found["dying"]["ok"]
    assert found["neighbour"]["ok"] and found["convgen"]["ok"] and len(found["neighbour"]["rounds_us"]) >= 5


def test_a_peer_that_dies_while_it_is_prepared_does_not_take_others_along(race):
    result = race(fake("convgen", us=100), fake("doomed", "doomed"), fake("neighbour", us=300))
    found = rows(result)
    assert found["doomed"]["kind"] == "crash" and found["neighbour"]["ok"] and found["convgen"]["ok"]


def test_processes_prepare_at_the_same_time(race, tmp_path, monkeypatch):
    monkeypatch.setattr("convgen.targets.usable_threads", lambda: 2)
    result = race(fake("convgen", "meeting", folder=str(tmp_path), me="a", other="b"), fake("peer", "meeting", process="others", folder=str(tmp_path), me="b", other="a"))
    assert all(row["ok"] for row in result.rows)


def test_who_measures_while_it_prepares_does_so_alone(race):
    told = []
    tuner = bench.Contestant("tuner", "fake_peers:timed", "tuner", {"us": 50}, counts=False, seconds=1.0)
    result = race(tuner, fake("convgen", us=100), fake("peer", us=120), progress=told.append)
    assert [line.strip() for line in told[1:]] == ["convgen", "peer", "tuner"] and result.races[0].best["contestant"] == "peer"


def test_processes_stand_still_when_it_is_not_their_turn(race, stage):
    race(fake("convgen", us=100), fake("spinner", "spinning", process="spinner"))
    pid = stage._workers["spinner"].process.pid
    states = lambda: {Path(f"/proc/{pid}/task/{t.name}/stat").read_text().rpartition(")")[2].split()[0] for t in Path(f"/proc/{pid}/task").iterdir()}
    for _ in range(6000):  # a thread that waits for a processor stands still once it gets one
        if states() == {"T"}:
            break
        time.sleep(0.01)
    before = seconds_of_group(pid)
    time.sleep(0.3)
    assert seconds_of_group(pid) == before and states() == {"T"}
    stage.end("spinner")


def test_cold_rounds_time_single_calls(race):
    result = race(fake("convgen", us=100), cold=True)
    row = rows(result)["convgen"]
    assert row["cold"] and row["ok"] and row["roofline_us"] == pytest.approx(max(row["flops"] / 100e3, row["bytes"] / 10e3))


def test_rows_state_their_conditions(race, workload, tmp_path):
    told, path = [], tmp_path / "data.jsonl"
    race(fake("convgen", us=100), fake("peer", us=50), output=path, progress=told.append)
    again = bench.read(path)
    assert len(again.rows) == 2 and again.races[0].ratio == pytest.approx(0.5, rel=1e-2)
    for row in again.rows:
        assert row["workload"] == workload.id
        assert row["group"] == "few input channels" and row["suites"] == {} and row["threads"] == 1 and row["count"] == 1 and row["cold"] is False
        assert row["versions"]["torch"] and row["cpu"] and row["date"] and row["roofline"]["gflops"] == 100 and set(row["allocator"])
    assert told[0] == f"[1/1] {workload.id}"


def test_equal_workloads_are_raced_once(workload):
    twice = races.merged([races.Entry(workload, "a", 2), races.Entry(workload, "b", 3), workload])
    assert [(e.name, e.count, e.suites) for e in twice] == [("a", 6, {})]
    line = lambda suite, count: SimpleNamespace(workload=workload, name="a", count=count, suite=suite)
    assert races.merged([line("one", 2), line("two", 3), line("one", 4)])[0].suites == {"one": 6, "two": 3}


def test_resuming(stage, workload, tmp_path):
    """What the file holds is not raced again; what a torn line may belong to is, and so are other conditions."""
    other, path, told = convgen.workload("conv2d:n1,c3,o4,h7,w5,k3x3;padding=1:f32.f32.f32:nchw"), tmp_path / "data.jsonl", []
    rivals = [fake("convgen", us=100), fake("peer", us=150)]
    settings = {"threads": 1, "seconds": 0.01, "rounds": 2, "contestants": lambda w: rivals, "stage": stage, "output": path, "progress": told.append}
    run = lambda workloads, **more: bench.run(workloads, **settings | more)
    before = run([workload]).rows
    both = run([workload, races.Entry(other, "layer", 3)], resume=True)
    assert both.rows[:2] == before and len(both.races) == 2 and not both.left_out and f"[1/2] {workload.id}: in {path}" in told
    assert bench.read(path).rows == both.rows
    path.write_text(path.read_text()[:-30])  # in the line of the second workload
    again = run([workload, races.Entry(other, "layer", 3)], resume=True)
    assert len(bench.read(path).rows) == 4 and again.rows[:2] == before and again.rows[2]["count"] == 3
    assert run([workload], resume=True, cold=True).rows[0]["cold"] and len(bench.read(path).rows) == 6


def test_interrupted(stage, workload):
    """What was not reached counts as left out."""
    other = convgen.workload("conv2d:n1,c3,o4,h7,w5,k3x3;padding=1:f32.f32.f32:nchw")

    def contestants(w):
        if w == other:
            raise KeyboardInterrupt
        return [fake("convgen", us=100), fake("peer", us=150)]
    result = bench.run([workload, other], threads=1, seconds=0.01, rounds=2, contestants=contestants, stage=stage)
    assert result.interrupted and [e["workload"] for e in result.left_out] == [other.id] and result.geometric_mean == pytest.approx((1.5 * 0.5) ** 0.5, rel=1e-3)


def test_refusals(workload):
    for arguments, message in (({"workloads": []}, "no workload"), ({"workloads": [workload], "peers": ["tensorflow"]}, "peers are torch, compile, onnxruntime, openvino, ncnn, metaschedule"),
                               ({"workloads": [workload], "resume": True}, "needs the output file"),
                               ({"workloads": [workload], "seconds": 0}, "positive")):
        with pytest.raises(ArgumentError, match=message):
            bench.run(**arguments)


def test_waiting_for_quiet(monkeypatch):
    loads = iter([Load(1.0, 0.0), Load(0.5, 0.0), Load(0.0, 0.0)])
    monkeypatch.setattr(Watch, "stop", lambda self: next(loads))
    assert await_quiet(60, 1, window=0.0) and next(loads, None) is None
    monkeypatch.setattr(Watch, "stop", lambda self: Load(1.0, 0.0))
    assert not await_quiet(0.05, 1, window=0.01)


def test_load_of_others(monkeypatch):
    """In two seconds all processors worked for three, one of them for us, and a tenth was stolen."""
    assert Load(0.2, 0.0).busy(2) and Load(0.0, 0.2).busy(2) and not Load(0.05, 0.0).busy(2)
    told = {"clock": iter([7.0, 9.0]), "total": iter([(50.0, 4.0), (53.0, 4.1)]), "own": iter([20.0, 21.0])}
    monkeypatch.setattr(load, "time", SimpleNamespace(monotonic=lambda: next(told["clock"])))
    monkeypatch.setattr(load, "_total", lambda: next(told["total"]))
    monkeypatch.setattr(Watch, "_own", lambda self: next(told["own"]))
    found = Watch().stop()
    assert found.to_json() == {"others": 1.0, "stolen": 0.05}


def test_our_own_work_is_counted():
    """Of this process, of the children that it waited for, and of the groups that are ours."""
    def until(grown, work):
        before = grown()
        for _ in range(3000):
            if grown() > before:
                return True
            work()
        return False
    assert until(Watch()._own, lambda: sum(range(200_000)))
    child = subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True)
    try:
        assert until(lambda: seconds_of_group(child.pid), lambda: time.sleep(0.02))
        theirs, own = seconds_of_group(child.pid), Watch()._own()
        assert Watch([child.pid])._own() > own + theirs - 1e-6
    finally:
        child.kill()
        child.wait()
