"""The search on a make-believe device: budgets, resuming, determinism, who may win."""

import json
import os
import signal

import pytest

from convgen.errors import TargetError, TuneError, WorkerError
from convgen.tune import tune
from convgen.tune.records import choice_key, read
from tests.tune.fakes import TARGET, FakeBaseline, FakeBuilder, FakeClock, FakeRunner, FakeSpace, FakeWorkload, WideSpace, environment, formula, wide_formula, wrong

BEST = {"tile": 32, "unroll": 4}
DEFAULT = {"tile": 4, "unroll": 1}


def go(workloads, logs, env=None, **options):
    options.setdefault("trials", 24) if "seconds" not in options else None
    return tune(workloads, TARGET, logs=str(logs), environment=env or environment(), **options)


def lines(logs, operator="blur"):
    return read(logs / "fake" / f"{operator}.jsonl")


def test_finds_the_best_choice_and_records_it(tmp_path):
    env = environment(baseline=FakeBaseline(640.0))
    result = go(FakeWorkload(), tmp_path, env, trials=40)
    row = result.rows[0]
    assert row.record["choice"] == BEST and row.record["final"] and row.record["verified"] == "EFG"
    assert row.us == pytest.approx(formula(BEST), rel=0.02)
    assert row.default_ratio == pytest.approx(formula(DEFAULT) / formula(BEST), rel=0.02)
    assert row.baseline_ratio == pytest.approx(10.0, rel=0.03)
    assert row.trials == 32 and not row.failures and not result.interrupted  # the space holds 32 choices
    saved = lines(tmp_path)
    assert saved[-1]["choice"] == BEST and saved[-1]["default_ratio"] == pytest.approx(5.0, rel=0.01)
    assert [r["kind"] for r in saved] == ["ok"] * 33
    assert result.store == str(tmp_path)
    assert 0 < saved[-1]["searched_s"] <= round(env.clock.now, 1)


def test_records_say_how_long_was_searched(tmp_path):
    """Later searches add to earlier ones; a re-measurement adds nothing to speak of."""
    searched = lambda **more: go(FakeWorkload(), tmp_path, environment(), **more).rows[0].record["searched_s"]
    first = searched(trials=16)
    second = searched(trials=16, retune=True)
    assert 0 < first < second and searched() == pytest.approx(second, rel=0.2)


def test_default_is_tried_first_and_curve_only_falls(tmp_path):
    env = environment()
    row = go(FakeWorkload(), tmp_path, env).rows[0]
    assert env.runner.measured[0][1] == DEFAULT
    bests = [us for _, _, us in row.curve]
    assert bests == sorted(bests, reverse=True) and row.curve[0][2] == formula(DEFAULT)


def test_same_seed_same_trials_other_seed_other_trials(tmp_path):
    sequences = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        env = environment()
        go([FakeWorkload(64), FakeWorkload(100)], tmp_path / name, env, seed=seed, trials=16)
        sequences.append(env.runner.measured)
    assert sequences[0] == sequences[1] != sequences[2]


def test_resumes_without_measuring_again(tmp_path):
    first = environment()
    clock = first.clock

    def stop_after_ten(choice):
        if len(first.runner.measured) > 10:
            raise KeyboardInterrupt
    first.runner.fail = stop_after_ten
    result = go(FakeWorkload(), tmp_path, first)
    assert result.interrupted and result.rows[0].trials == 10
    assert clock.now > 0
    second = environment()
    result = go(FakeWorkload(), tmp_path, second)
    known = {choice_key(c) for _, c in first.runner.measured[:10]}
    assert not result.interrupted
    assert not known & {choice_key(c) for _, c in second.runner.measured}
    assert len(second.runner.measured) == 14 and result.rows[0].trials == 24


def test_interrupted_run_keeps_a_usable_best(tmp_path):
    env = environment()

    def stop(choice):
        if len(env.runner.measured) > 20:
            raise KeyboardInterrupt
    env.runner.fail = stop
    row = go(FakeWorkload(), tmp_path, env).rows[0]
    verified = [r for r in lines(tmp_path) if r["verified"]]
    assert row.us == min(r["median_us"] for r in verified) and row.record["verified"] == "EFG"
    assert not any(r.get("final") for r in verified)


class ManyRunner(FakeRunner):
    """Several devices: a batch at once, the answers in any order; `stop_after` answers Ctrl-C comes."""

    stop_after = None

    def __init__(self, clock, **more):
        super().__init__(clock, **more)
        self.batches = []

    def measure_many(self, candidates, description, best_us=None, longest=None, done=None):
        self.batches.append(len(candidates))
        answers = [None] * len(candidates)
        for index in reversed(range(len(candidates))):
            try:
                answers[index] = self.measure(*candidates[index], description)
            except WorkerError as error:
                answers[index] = error
            done(index, answers[index])
            if self.stop_after is not None and len(self.measured) >= self.stop_after:
                raise KeyboardInterrupt
        return answers


def test_several_devices_measure_a_batch_at_once(tmp_path):
    clock = FakeClock()
    runner = ManyRunner(clock, fail=lambda c: WorkerError("crash", "it crashed") if c["tile"] == 128 else None)
    row = go(FakeWorkload(), tmp_path, environment(clock, runner=runner), trials=20).rows[0]
    alone = go(FakeWorkload(), tmp_path / "alone", environment(run_fail=lambda c: WorkerError("crash", "it crashed") if c["tile"] == 128 else None), trials=20).rows[0]
    assert max(runner.batches) > 1 and sum(runner.batches) + 1 == 20  # the default went alone
    assert (row.trials, row.failures, row.record["choice"]) == (20, alone.failures, alone.record["choice"])


def test_several_devices_without_references_fail_one_by_one(tmp_path):
    clock = FakeClock()
    runner = ManyRunner(clock)

    def refuse(*words):
        raise WorkerError("run_timeout", "the reference was not ready")
    runner.measure_many = refuse
    assert go(FakeWorkload(), tmp_path, environment(clock, runner=runner), trials=12).rows[0].trials == len(runner.measured) == 12


def test_what_several_devices_finished_before_an_interruption_is_kept(tmp_path):
    clock = FakeClock()
    runner = ManyRunner(clock)
    runner.stop_after = 5
    result = go(FakeWorkload(), tmp_path, environment(clock, runner=runner), trials=20)
    assert result.interrupted and [r["kind"] for r in lines(tmp_path)] == ["ok"] * 5 and [bool(r["verified"]) for r in lines(tmp_path)] == [True] + [False] * 4
    env = environment()
    assert go(FakeWorkload(), tmp_path, env, trials=20).rows[0].trials == 20 and len(env.runner.measured) == 15


def test_tuned_workload_costs_one_remeasure(tmp_path):
    go(FakeWorkload(), tmp_path, trials=40)
    before = (tmp_path / "fake" / "blur.jsonl").read_bytes()
    env = environment()
    row = go(FakeWorkload(), tmp_path, env, trials=40).rows[0]
    assert env.runner.measured == [] and env.runner.races == [[DEFAULT, BEST]]
    assert sorted(choice_key(c) for _, c in env.runner.checked) == sorted([choice_key(DEFAULT), choice_key(BEST)])
    assert row.record["choice"] == BEST and row.us == pytest.approx(formula(BEST), rel=0.02)
    assert (tmp_path / "fake" / "blur.jsonl").read_bytes() == before
    env = environment()
    go(FakeWorkload(), tmp_path, env, trials=12, retune=True)
    assert len(env.runner.measured) == 12


def test_tuned_record_that_no_longer_passes_is_tuned_again(tmp_path):
    go(FakeWorkload(), tmp_path, trials=40)
    env = environment(check_fail=lambda c: wrong() if c == BEST else None, run_fail=lambda c: wrong() if c == BEST else None)
    row = go(FakeWorkload(), tmp_path, env, trials=60).rows[0]
    assert row.record["choice"] != BEST and row.failures["wrong"] >= 1


def test_wrong_but_fast_never_wins(tmp_path):
    cheat = {"tile": 64, "unroll": 8}
    env = environment(time=lambda c, n: 0.5 if c == cheat else formula(c, n), check_fail=lambda c: wrong() if c == cheat else None)
    row = go(FakeWorkload(), tmp_path, env, trials=40).rows[0]
    assert row.record["choice"] == BEST
    assert row.failures == {"wrong": 1}
    assert all(c["choice"] != cheat or c["kind"] == "wrong" for c in lines(tmp_path))
    assert all(cheat not in race for race in env.runner.races)


def test_tuned_never_loses_to_the_default(tmp_path):
    env = environment(time=lambda c, n: 10.0 if c == DEFAULT else 11.0)
    row = go(FakeWorkload(), tmp_path, env).rows[0]
    assert row.record["choice"] == DEFAULT and row.default_ratio == 1.0


def test_indistinguishable_times_prefer_the_default(tmp_path):
    class Noisy(FakeRunner):
        def race(self, candidates, description, best_us, rounds=12, budget=1.0):
            super().race(candidates, description, best_us, rounds, budget)
            rows = [[100 + ((i + r) % 3) - 0.1 * i for r in range(12)] for i in range(len(candidates))]
            return {"median": rows, "least": rows}
    clock = FakeClock()
    env = environment(clock, runner=Noisy(clock, time=lambda c, n: 99.0 if c == BEST else 100.0))
    assert go(FakeWorkload(), tmp_path, env).rows[0].record["choice"] == DEFAULT


def test_failures_are_counted_by_kind_and_not_tried_again(tmp_path):
    kinds = {1: "compile_timeout", 2: "crash", 128: "oom"}
    env = environment(build_fail=lambda c: WorkerError(kinds[c["tile"]], "x" * 5000) if c["tile"] in kinds else None,
                      run_fail=lambda c: WorkerError("run_timeout", "hangs") if c["tile"] == 64 else None)
    row = go(FakeWorkload(), tmp_path, env, trials=40).rows[0]
    assert row.failures == {"compile_timeout": 4, "crash": 4, "oom": 4, "run_timeout": 4}
    failed = [r for r in lines(tmp_path) if r["kind"] != "ok"]
    assert len(failed) == 16 and all(len(r["message"]) <= 200 for r in failed)
    env = environment()
    go(FakeWorkload(), tmp_path, env, trials=40, retune=False)
    assert all(c["tile"] not in (1, 2, 64, 128) for _, c in env.runner.measured)


def test_all_failing_gives_up_with_advice(tmp_path):
    env = environment(build_fail=lambda c: WorkerError("compile_error", "no"))
    result = go(FakeWorkload(), tmp_path, env, trials=32)
    assert result.rows[0].us is None and "32 of 32 candidates failed with compile_error" in result.rows[0].note
    assert "n/a" in str(result)


def test_equal_machine_code_is_measured_once(tmp_path):
    env = environment(same=lambda c: c["tile"], time=lambda c, n: float(c["tile"]))
    row = go(FakeWorkload(), tmp_path, env, trials=40).rows[0]
    assert len(env.runner.measured) == 8 and row.trials == 32


def test_seconds_bound_the_whole_call(tmp_path):
    env = environment()
    result = go(FakeWorkload(), tmp_path, env, seconds=2.0)
    assert env.clock.now <= 2.0 and 1 < result.rows[0].trials < 15
    assert result.rows[0].record["final"]


def test_no_budget_stops_when_nothing_is_to_be_gained(tmp_path):
    env = environment(time=lambda c, n: 100.0)
    result = tune(FakeWorkload(), TARGET, logs=str(tmp_path), environment=env)
    assert 8 <= result.rows[0].trials <= 32


def test_budget_goes_where_time_is_spent(tmp_path):
    env = wide_environment()
    small, big = go([FakeWorkload(10), FakeWorkload(10000)], tmp_path, env, seconds=20.0).rows
    assert big.trials > 2 * small.trials and small.trials >= 0.25 * (big.trials + small.trials) - 1


def wide_environment(time=wide_formula):
    """A device whose spaces no test can exhaust; a candidate takes 0.2 s."""
    env = environment(time=lambda choice, size: size * time(choice))
    env.space = WideSpace
    return env


@pytest.mark.parametrize("time", (wide_formula, lambda choice: 100.0, lambda choice: 100.0 + choice["tile"] % 7))
def test_every_workload_is_searched_for_half_of_an_equal_part(tmp_path, time):
    """However much longer others take, and whether or not there is anything to gain; the rest does not go to one alone."""
    rows = go([FakeWorkload(10 * 4 ** n) for n in range(5)], tmp_path, wide_environment(time), strategy="random", seconds=60.0).rows
    tried = [row.trials for row in rows]
    assert sum(tried) * 0.2 == pytest.approx(50.0, abs=2.0)
    assert min(tried) >= 0.5 * sum(tried) / len(tried) - 1 and max(tried) < 2.5 * sum(tried) / len(tried)
    assert all(row.record["searched_s"] >= 4.8 for row in rows)


def test_time_that_an_exhausted_space_leaves_goes_to_others(tmp_path):
    few, many = FakeWorkload(10000), FakeWorkload(10)
    env = environment()
    env.space = lambda description, target: (FakeSpace if description["dims"]["N"] == few.size else WideSpace)(description, target)
    env.runner.time = lambda choice, size: 1.0
    rows = go([few, many], tmp_path, env, strategy="random", seconds=24.0).rows
    assert rows[0].trials == 32 and sum(row.trials for row in rows) * 0.2 == pytest.approx(20.0, abs=2.0)


class SlowRunner(FakeRunner):
    """References of a workload take the seconds that `slow` says, and are kept only once they are whole."""

    def __init__(self, clock, slow):
        super().__init__(clock)
        self.slow, self.waited = dict(slow), {}

    def measure(self, path, entry, description, best_us=None, longest=None):
        needed = self.slow.get(description["id"], 0.0)
        if longest is not None and needed > longest:
            self.clock.now += longest
            self.waited.setdefault(description["id"], []).append(longest)
            raise WorkerError("run_timeout", "the reference was not ready")
        self.clock.now += needed
        self.slow.pop(description["id"], None)
        return super().measure(path, entry, description)


@pytest.mark.parametrize("place", (0, 6, 13))
def test_no_workload_takes_the_time_of_others(tmp_path, place):
    """One whose reference takes for ever costs its share; all others are measured beside their default, and its row says where its time went."""
    clock, many = FakeClock(), [FakeWorkload(64 + n) for n in range(14)]
    runner = SlowRunner(clock, {many[place].id: 1e6})
    result = go(many, tmp_path, environment(clock, runner=runner), seconds=140.0)
    starved = result.rows.pop(place)
    assert clock.now <= 140.0 and all(row.trials >= 2 and row.record["final"] and row.note is None for row in result.rows)
    assert starved.us is None and starved.trials == 0 and not starved.failures and "references and measuring" in starved.note and "default schedule will be used" in starved.note
    assert runner.waited[many[place].id][0] <= 140.0 / (14 - place)


def test_the_compilers_start_is_nobodys_time(tmp_path):
    clock = FakeClock()
    env = environment(clock, builder=FakeBuilder(clock, loading=6.0))
    rows = go([FakeWorkload(n) for n in (16, 32, 64)], tmp_path, env, seconds=15).rows
    searched = [row.record["searched_s"] for row in rows]
    assert env.builder.loading == 0 and min(searched) >= 1.0 and sum(searched) == pytest.approx(6.0, abs=0.5)  # 12 s of searching, loading included


def test_a_default_that_took_more_than_its_share_gets_another(tmp_path):
    clock, many = FakeClock(), [FakeWorkload(64 + n) for n in range(10)]
    env = environment(clock, runner=SlowRunner(clock, {many[0].id: 15.0}))
    row = go(many, tmp_path, env, seconds=100.0).rows[0]
    assert [c for w, c in env.runner.measured if w == many[0].id][0] == DEFAULT and row.trials >= 2 and row.note is None


def test_a_baseline_that_the_first_share_left_no_time_for_is_timed_later(tmp_path):
    clock, many = FakeClock(), [FakeWorkload(64 + n) for n in range(3)]
    env = environment(clock, runner=SlowRunner(clock, {many[0].id: 20.0}), baseline=FakeBaseline())
    rows = go(many, tmp_path, env, seconds=90.0, trials=4).rows
    assert env.baseline.asked == [w.id for w in (many[1], many[2], many[0])] and all(row.baseline_ratio for row in rows)


def test_a_time_too_short_for_all_serves_some_and_says_who_got_nothing(tmp_path):
    """What building left no time of its share is measured all the same; those whose turn never came say so."""
    clock, many = FakeClock(), [FakeWorkload(64 + n) for n in range(10)]
    env = environment(clock, builder=FakeBuilder(clock, cost=5.0), runner=SlowRunner(clock, {w.id: 0.5 for w in many}))
    rows = go(many, tmp_path, env, seconds=40.0).rows
    served = [row for row in rows if row.us is not None]
    assert len(served) == 5 and all(row.record["choice"] == DEFAULT and row.note.startswith("only one candidate") for row in served)
    notes = [row.note for row in rows if row.us is None]
    assert notes[-1] == "no candidate was measured in the time given; the default schedule will be used" and all(n.startswith("no candidate was measured") for n in notes)


def test_a_baseline_takes_no_more_than_half_of_its_share(tmp_path):
    class Baseline(FakeBaseline):
        def time(self, workload_id, longest=120.0):
            self.asked.append(longest)
            return super().time(workload_id)
    env = environment(baseline=Baseline())
    go([FakeWorkload(64 + n) for n in range(4)], tmp_path, env, seconds=80.0, trials=3)
    assert all(limit <= 40.0 for limit in env.baseline.asked[::2]) and env.baseline.asked[0] <= 10.0


def test_a_row_with_one_candidate_says_why(tmp_path):
    clock = FakeClock()
    row = go(FakeWorkload(), tmp_path, environment(clock, builder=FakeBuilder(clock, cost=6.0)), seconds=7.0).rows[0]
    assert row.trials == 1 and row.note == "only one candidate was measured in the time given (building took 6.0 s, references and measuring 0.1 s)"


def test_repeated_layers_count(tmp_path):
    env = environment()
    often, once = FakeWorkload(100), FakeWorkload(150)
    result = go({"a": often, "b": often, "c": often, "d": once}, tmp_path, env, seconds=5.0)
    tried = [w for w, _ in env.runner.measured]
    assert [r.count for r in result.rows] == [3, 1] and tried.count(often.id) > tried.count(once.id)


def test_model_beats_chance_at_equal_trials(tmp_path):
    """After 24 trials of 1200 choices the model's best is nearer the optimum than that of random order, over four seeds."""
    def reached(strategy, seed):
        env = environment(time=wide_formula)
        env.space = WideSpace
        return go(FakeWorkload(), tmp_path / f"{strategy}{seed}", env, strategy=strategy, seed=seed, trials=24).rows[0].us
    assert sum(reached("model", s) for s in range(4)) < 0.9 * sum(reached("random", s) for s in range(4))


def test_warm_start_from_another_shape(tmp_path):
    go(FakeWorkload(64), tmp_path, trials=40)
    env = environment()
    go(FakeWorkload(256), tmp_path, env, trials=4)
    assert [c for _, c in env.runner.measured][:2] == [DEFAULT, BEST]


def test_store_failure_costs_one_warning_not_the_run(tmp_path, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr("convgen.tune.records.os.write", full)
    result = go(FakeWorkload(), tmp_path, trials=40)
    assert result.rows[0].record["choice"] == BEST and result.store is None
    assert [r.message for r in caplog.records if "cannot be saved" in r.message] and len(caplog.records) == 1


def test_sigint_in_a_save_waits_for_the_save(tmp_path, monkeypatch):
    from convgen.tune import records
    real, sent = records.append, []

    def interrupted(path, record):
        sent.append(1)
        if len(sent) == 5:
            os.kill(os.getpid(), signal.SIGINT)
        real(path, record)
    monkeypatch.setattr(records, "append", interrupted)
    result = go(FakeWorkload(), tmp_path)
    assert result.interrupted and len(lines(tmp_path)) == 5 and result.rows[0].trials == 5


def test_sigint_while_building_and_measuring(tmp_path):
    for where in ("build_fail", "run_fail", "check_fail"):
        calls = []

        def signalled(choice, calls=calls):
            calls.append(choice)
            if len(calls) == 2:
                os.kill(os.getpid(), signal.SIGINT)
        result = go(FakeWorkload(), tmp_path / where, environment(**{where: signalled}))
        assert result.interrupted and result.rows[0].us is not None, where
        assert all(json.loads(line) for line in (tmp_path / where / "fake" / "blur.jsonl").read_text().splitlines())
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_arguments_are_checked(tmp_path):
    for bad in ([], "blur:n64", 3, ["blur:n64"]):
        with pytest.raises(TuneError):
            go(bad, tmp_path)
    with pytest.raises(TuneError, match="seconds must be positive"):
        go(FakeWorkload(), tmp_path, seconds=-1)
    with pytest.raises(TuneError, match="trials must be positive, got '3'"):
        go(FakeWorkload(), tmp_path, trials="3")
    elsewhere = {**TARGET, "name": "fake", "features": ["quantum"]}
    with pytest.raises(TargetError, match="fake measures on this machine, which lacks quantum"):
        tune(FakeWorkload(), elsewhere, logs=str(tmp_path))
    with pytest.raises(TuneError, match="strategy"):
        go(FakeWorkload(), tmp_path, strategy="luck")


def test_progress_events(tmp_path):
    events = []
    go(FakeWorkload(), tmp_path, progress=events.append, trials=8, env=environment(baseline=FakeBaseline()))
    kinds = [e["event"] for e in events]
    assert kinds[0] == "store" and events[0]["path"] == str(tmp_path)
    assert kinds[-2:] == ["row", "done"] and kinds.count("trial") >= 8
    last = [e for e in events if e["event"] == "trial"][-1]
    assert last["trial"] == 8 and last["trials"] == 8 and last["best_us"] > 0 and last["torch_us"] == 500.0


def test_table_is_readable(tmp_path):
    text = str(go([FakeWorkload(64), FakeWorkload(128)], tmp_path, environment(baseline=FakeBaseline())))
    assert text.splitlines()[0].split() == ["workload", "µs", "spread", "vs", "torch", "vs", "default", "trials", "failures"]
    assert "blur:n64" in text and "x" in text


def test_builder_fake_is_used_once_per_choice(tmp_path):
    clock = FakeClock()
    builder = FakeBuilder(clock)
    go(FakeWorkload(), tmp_path, environment(clock, builder=builder), trials=20)
    keys = [choice_key(c) for _, c in builder.built]
    assert len(keys) == len(set(keys)) == 20
