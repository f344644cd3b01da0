"""The measuring process: what crashes, hangs, eats memory or prints costs one failure of the right kind."""

from types import SimpleNamespace

import pytest

from convgen.errors import WorkerError
from convgen.lang import parse
from convgen.tune import timing
from convgen.tune.finals import frugal, pick
from convgen.tune.measure import LocalRunner, measuring_environment
from convgen.tune.roofline import fastest_possible_us
from tests.tune.c_kernels import compile_kernel, entry

SHAPE = (1, 5, 6, 7)
TARGET = {"threads": 1, "cores": 1, "lanes": {"float32": 16}, "l3": 1 << 20}


@pytest.fixture(scope="module")
def description():
    return parse("depthwise_conv2d:n1,c5,h6,w7,k3x3;padding=1:f32.f32.f32:nchw").description


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture(scope="module")
def runner():
    made = LocalRunner(TARGET, budget=0.02, memory=3 << 30)
    yield made
    made.close()


def kind_of(call, *arguments, **more):
    with pytest.raises(WorkerError) as caught:
        call(*arguments, **more)
    return caught.value.kind, str(caught.value)


def test_measures_checks_and_races(runner, folder, description):
    for packed in (False, True):
        path = compile_kernel(folder, "right", packed)
        taken = runner.measure(path, entry(SHAPE, packed), description)
        assert 0 < taken.min_us <= taken.median_us < 1e5 and taken.repeats >= 7 and taken.oracles == "EG"
        assert runner.check(path, entry(SHAPE, packed), description)["oracles"] == "EFG"
    assert runner.measure(path, entry(SHAPE, packed), description, cold=True).repeats >= 7
    candidates = [(compile_kernel(folder, "right", p), entry(SHAPE, p)) for p in (False, True)]
    rows = runner.race(candidates, description, taken.median_us, rounds=4, budget=0.05)
    assert [len(r) for r in rows["median"]] == [4, 4] and min(map(min, rows["least"])) > 0
    assert all(least <= median for lr, mr in zip(rows["least"], rows["median"]) for least, median in zip(lr, mr))


def test_wrong_candidates_are_refused(runner, folder, description):
    kind, message = kind_of(runner.measure, compile_kernel(folder, "lost_tap"), entry(SHAPE), description)
    assert kind == "wrong" and "elements differ" in message
    path = compile_kernel(folder, "low_precision")
    kind, message = kind_of(runner.check, path, entry(SHAPE), description)
    assert kind == "wrong" and "times its bound" in message


@pytest.mark.parametrize("name, kind, words", [
    ("segfault", "crash", "SIGSEGV"), ("exit", "crash", "code 1"), ("hang", "run_timeout", "no answer"), ("bomb", "crash", "SIGABRT"),
    ("refuses", "oom", "stopped with code -1 and no message")])
def test_faults_cost_one_failure(runner, folder, description, name, kind, words):
    runner.warm(description)
    limit = {"longest": 0.7} if name == "hang" else {}
    found, message = kind_of(runner.measure, compile_kernel(folder, name), entry(SHAPE), description, **limit)
    assert found == kind and words in message
    assert runner.measure(compile_kernel(folder, "right"), entry(SHAPE), description).median_us > 0


@pytest.mark.parametrize("name, words", [("hang", "within 0.3 s of processor time"), ("sleeps", "no answer within 0.6 s")])
def test_a_candidate_has_processor_time_and_far_more_time_by_the_clock(runner, folder, description, monkeypatch, name, words):
    runner.warm(description)
    monkeypatch.setattr("convgen.tune.measure.time_limit", lambda *_: 0.3)
    monkeypatch.setattr("convgen.tune.measure.BACKSTOP", {"hang": 1e4, "sleeps": 2.0}[name])
    kind, message = kind_of(runner.measure, compile_kernel(folder, name), entry(SHAPE), description)
    assert kind == "run_timeout" and words in message


def test_printing_kernels_do_not_disturb(runner, folder, description, capfd):
    assert runner.check(compile_kernel(folder, "prints"), entry(SHAPE), description)["ok"]
    assert capfd.readouterr() == ("", "")


def test_missing_symbol_and_missing_file(runner, folder, description):
    path = compile_kernel(folder, "right")
    assert kind_of(runner.measure, path, {**entry(SHAPE), "symbol": "nobody"}, description)[0] == "invalid"
    assert kind_of(runner.measure, str(folder / "none.so"), entry(SHAPE), description)[0] == "crash"


def test_faster_than_the_machine_is_wrong(folder, description):
    slow = LocalRunner({**TARGET, "lanes": {"float32": 1e-9}}, budget=0.01)
    try:
        kind, message = kind_of(slow.measure, compile_kernel(folder, "right"), entry(SHAPE), description)
        assert kind == "wrong" and "faster than this machine can be" in message
    finally:
        slow.close()


def test_limits_follow_the_best_time():
    runner = LocalRunner(TARGET, budget=0.1)
    runner.close()
    assert runner._limit({"id": "w"}, None) >= 30
    assert 2 <= runner._limit({"id": "w"}, 10.0) <= 4
    assert runner._limit({"id": "w"}, 1e6) >= 200  # a second per call, ten calls, twenty times over


def test_environment_has_the_allocator_and_the_threads():
    env = measuring_environment(3)
    assert env["OMP_NUM_THREADS"] == "3" and env["MALLOC_MMAP_THRESHOLD_"] == "1073741824" and env["MALLOC_TRIM_THRESHOLD_"] == "4294967296"


def test_timing_adapts_and_cuts_hopeless_candidates():
    calls = []
    found = timing.measure(lambda: calls.append(1), 0.01)
    assert found["repeats"] < len(calls) and found["repeats"] >= 7 and found["min_us"] <= found["median_us"] and found["spread_us"] >= 0
    calls.clear()
    assert timing.measure(lambda: calls.append(1), 10.0, hopeless=0.0)["repeats"] == 4 and len(calls) == 5
    flushed = []
    found = timing.measure(lambda: None, 0.001, before=lambda: flushed.append(1))
    assert len(flushed) >= found["repeats"]


def test_one_sample_that_was_held_up_does_not_end_the_timing(monkeypatch):
    """A slow kernel is timed less often; one whose first sample took long, because something else had the processor, is not slow."""
    def timed(seconds):
        now, samples = [0.0], []

        def take(call, calls, before):
            held_up = calls > 1 and max(samples, default=0) <= 1
            samples.append(calls)
            taken = 3.0 if held_up else calls * seconds
            now[0] += taken
            return taken / calls

        monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: now[0]))
        return timing.measure(lambda: None, 0.02, None, None, take)

    quick = timed(1e-5)
    assert quick["repeats"] == 20 * timing.MIN_SAMPLES and quick["median_us"] == pytest.approx(10) and quick["spread_us"] < 0.01
    assert timed(1.0)["repeats"] == 1


def test_roofline_is_generous_but_finite():
    target = {"threads": 1, "cores": 1, "lanes": {"float32": 16}}
    peak = 2 * 16 * 2 * 6.5e9
    assert 0 < fastest_possible_us(peak, 0, target, "E") < 1e6 / 4
    assert fastest_possible_us(peak, 0, target, "N") < fastest_possible_us(peak, 0, target, "E")
    assert fastest_possible_us(0, 1e12, target, "E") > 1e5


def test_memory_decides_between_times_that_hardly_differ():
    rows = [[100.0, 101.0, 99.0], [101.0, 102.0, 100.0], [110.0, 111.0, 109.0], [101.5, 101.5, 101.5]]
    assert frugal(0, rows, [4.0, 2.5, 1.0, 1.0]) == 1  # the fastest that hardly is slower
    assert frugal(0, rows, [4.0, 3.5, 1.0, 3.5]) == 0  # a tenth slower is too slow
    assert frugal(0, rows, [3.0, 1.0, 1.0, 1.0]) == 0  # nothing is won


def test_pick_needs_a_clear_difference():
    even = [100.0, 101.0, 99.0, 100.0]
    assert pick([even, [v * 0.9 for v in even]]) == 1
    assert pick([even, [v * 0.999 for v in even]]) == 0
    assert pick([even, [90.0, 112.0, 89.0, 111.0]]) == 0
    assert pick([even, [v * 0.9 for v in even], [v * 0.8999 for v in even]]) == 1
