"""Which record serves a workload: each step of the order, and what is refused on the way."""

from convgen.tune.lookup import look_up
from convgen.tune.records import Store, append, file_of
from tests.tune.fakes import FakeSpace, FakeWorkload

TARGET = {"family": "x86", "isa": "avx512", "microarchitecture": "zen5", "threads": 2, "fingerprint": "x86-zen5-avx512-t2"}


def saved(root, size=64, tile=8, us=10.0, target="x86-zen5-avx512-t2", **more):
    workload = FakeWorkload(size)
    _, arch, isa, threads = target.split("-")
    append(file_of(root, "x86", "blur"), {
        "format": 1, "operator": "blur", "workload": workload.id, "description": "s1", "target": target, "family": "x86", "isa": isa,
        "microarchitecture": arch, "threads": int(threads[1:]), "space": FakeSpace.version, "choice": {"tile": tile, "unroll": 1}, "kind": "ok",
        "median_us": us, "spread_us": 0.1, "repeats": 9, "verified": "EFG", "dims": {"N": size}, "layout": "channels_first",
        "dtypes": {"x": "float32", "accumulator": "float32", "output": "float32"}, **more})


def found(*roots, block=(), size=64):
    workload = FakeWorkload(size)
    return look_up(Store(roots), workload.description, "s1", TARGET, FakeSpace(workload.description, TARGET, block))


def test_every_step_in_order(tmp_path):
    assert (found(tmp_path).step, found(tmp_path).origin, found(tmp_path).choice) == ("default", "default", None)
    saved(tmp_path, size=512, tile=1)
    assert (found(tmp_path).step, found(tmp_path).record["choice"]["tile"]) == ("shape", 1)
    saved(tmp_path, size=128, tile=2)
    assert found(tmp_path).record["choice"]["tile"] == 2 and "nearest shape blur:n128" in found(tmp_path).reason
    saved(tmp_path, tile=4, target="x86-alder-avx2-t2")
    assert (found(tmp_path).step, found(tmp_path).record["choice"]["tile"]) == ("family", 4)
    saved(tmp_path, tile=8, target="x86-zen5-avx512-t8")
    assert (found(tmp_path).step, found(tmp_path).origin, found(tmp_path).record["choice"]["tile"]) == ("threads", "near", 8)
    assert "with 8 threads instead of 2" in found(tmp_path).reason
    saved(tmp_path, tile=16)
    assert (found(tmp_path).step, found(tmp_path).origin, found(tmp_path).record["choice"]["tile"]) == ("exact", "exact", 16)


def test_knobs_that_do_not_fit_are_refused_and_named(tmp_path):
    saved(tmp_path, tile=16)
    saved(tmp_path, size=128, tile=8)
    got = found(tmp_path, block={16})
    assert got.step == "shape" and got.record["choice"]["tile"] == 8 and "tile 16 is blocked" in got.reason


def test_unverified_failed_and_outdated_records_never_serve(tmp_path):
    saved(tmp_path, verified="")
    saved(tmp_path, kind="crash")
    saved(tmp_path, space=FakeSpace.version - 1)
    saved(tmp_path, description="other")
    got = found(tmp_path)
    assert got.step == "default" and "schedule space 2, now 3" in got.reason


def test_hostile_knobs_never_serve(tmp_path):
    saved(tmp_path, choice={"tile": "__import__('os').system('true')", "unroll": 1})
    saved(tmp_path, choice={})
    assert found(tmp_path).step == "default"


def test_last_final_supersedes_earlier_finals_and_trials(tmp_path):
    saved(tmp_path, tile=1, us=1.0)
    saved(tmp_path, tile=2, us=9.0, final=True)
    assert found(tmp_path).record["choice"]["tile"] == 2
    saved(tmp_path, tile=4, us=9.5, final=True)
    saved(tmp_path, tile=8, us=0.5)
    assert found(tmp_path).record["choice"]["tile"] == 4


def test_fastest_trial_where_no_race_was_run(tmp_path):
    saved(tmp_path, tile=1, us=3.0)
    saved(tmp_path, tile=2, us=2.0)
    saved(tmp_path, tile=4, us=4.0)
    assert found(tmp_path).record["choice"]["tile"] == 2


def test_first_folder_wins_at_the_same_step(tmp_path):
    saved(tmp_path / "a", tile=1, us=9.0)
    saved(tmp_path / "b", tile=2, us=1.0)
    assert found(tmp_path / "a", tmp_path / "b").record["choice"]["tile"] == 1
    saved(tmp_path / "c", size=128, tile=8)
    assert found(tmp_path / "c", tmp_path / "b").record["choice"]["tile"] == 2


def test_nearest_prefers_the_same_machine_at_equal_distance(tmp_path):
    saved(tmp_path, size=32, tile=1, us=1.0, target="x86-alder-avx2-t2")
    saved(tmp_path, size=128, tile=2, us=9.0)
    assert found(tmp_path).record["choice"]["tile"] == 2


def test_other_layout_or_dtype_is_no_neighbour(tmp_path):
    saved(tmp_path, size=128, layout="channels_last")
    saved(tmp_path, size=128, dtypes={"x": "float16", "accumulator": "float32", "output": "float16"})
    saved(tmp_path, size=128, dims={"N": "huge"})
    saved(tmp_path, size=128, dims={"M": 3})
    assert found(tmp_path).step == "default"
