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


def on(root, family, target, **more):
    """A record of a family's device, given as `family-microarchitecture-isa`, and for processors threads."""
    workload = FakeWorkload(more.pop("size", 64))
    parts = target.split("-t")[0].split("-", 2)
    append(file_of(root, family, "blur"), {
        "format": 1, "operator": "blur", "workload": workload.id, "description": "s1", "target": target, "family": family, "isa": parts[2],
        "microarchitecture": parts[1], "threads": int(target.partition("-t")[2] or 1), "space": FakeSpace.version, "choice": {"tile": 8, "unroll": 1},
        "kind": "ok", "median_us": 10.0, "spread_us": 0.1, "repeats": 9, "verified": "EFG", "dims": workload.description["dims"],
        "layout": "channels_first", "dtypes": {"x": "float32", "accumulator": "float32", "output": "float32"}, **more})


def found_on(root, family, target, block=()):
    workload = FakeWorkload()
    parts = target.split("-t")[0].split("-", 2)
    machine = {"family": family, "microarchitecture": parts[1], "isa": parts[2], "threads": int(target.partition("-t")[2] or 1), "fingerprint": target}
    got = look_up(Store([root]), workload.description, "s1", machine, FakeSpace(workload.description, machine, block))
    return got.step, got.record and got.record["target"], got.reason


def test_gpus_exact_card_then_architecture_then_family_then_shape(tmp_path):
    here = "cuda-h200-sm_90"
    assert found_on(tmp_path, "cuda", here)[0] == "default"
    on(tmp_path, "cuda", "cuda-h200-sm_90", size=128, choice={"tile": 2, "unroll": 1})
    assert found_on(tmp_path, "cuda", here)[:2] == ("shape", "cuda-h200-sm_90")
    on(tmp_path, "cuda", "cuda-rtx3090-sm_86", median_us=1.0)
    on(tmp_path, "cuda", "cuda-l4-sm_89", median_us=90.0, choice={"tile": 4, "unroll": 1})
    step, device, reason = found_on(tmp_path, "cuda", here)
    assert (step, device) == ("family", "cuda-l4-sm_89") and "another machine of the family" in reason  # the nearest capability, not the fastest card
    assert found_on(tmp_path, "cuda", here, block={4})[:2] == ("family", "cuda-rtx3090-sm_86")  # its knobs do not fit this device
    on(tmp_path, "cuda", "cuda-h100-sm_90", choice={"tile": 16, "unroll": 1})
    step, device, reason = found_on(tmp_path, "cuda", here)
    assert (step, device) == ("architecture", "cuda-h100-sm_90") and "another card with sm_90" in reason
    assert found_on(tmp_path, "cuda", "cuda-generic-sm_90")[:2] == ("architecture", "cuda-h100-sm_90")
    on(tmp_path, "cuda", "cuda-h200-sm_90", choice={"tile": 32, "unroll": 1})
    assert found_on(tmp_path, "cuda", here)[:2] == ("exact", "cuda-h200-sm_90")
    step, device, reason = found_on(tmp_path, "cuda", here, block={32})
    assert step == "architecture" and "tile 32 is blocked" in reason


def test_arm_same_core_then_same_instructions_then_family(tmp_path):
    here = "arm-neoverse_n1-neon_dotprod-t4"
    on(tmp_path, "arm", "arm-cortex_a72-neon-t4")
    assert found_on(tmp_path, "arm", here)[:2] == ("family", "arm-cortex_a72-neon-t4")
    on(tmp_path, "arm", "arm-cortex_a76-neon_dotprod-t4")
    step, device, reason = found_on(tmp_path, "arm", here)
    assert (step, device) == ("architecture", "arm-cortex_a76-neon_dotprod-t4") and "another core with neon_dotprod" in reason
    on(tmp_path, "arm", "arm-neoverse_n1-neon_dotprod-t1")
    assert found_on(tmp_path, "arm", here)[:2] == ("threads", "arm-neoverse_n1-neon_dotprod-t1")
    on(tmp_path, "arm", here)
    assert found_on(tmp_path, "arm", here)[:2] == ("exact", here)


def test_nearest_shape_prefers_the_same_architecture(tmp_path):
    on(tmp_path, "cuda", "cuda-rtx3090-sm_86", size=128, median_us=1.0)
    on(tmp_path, "cuda", "cuda-h100-sm_90", size=128)
    assert found_on(tmp_path, "cuda", "cuda-h200-sm_90")[:2] == ("shape", "cuda-h100-sm_90")


def test_families_never_mix(tmp_path):
    on(tmp_path, "cuda", "cuda-h200-sm_90")
    assert found_on(tmp_path, "arm", "arm-cortex_a72-neon-t4")[0] == "default"


def test_instruction_sets_of_x86_stay_one_step(tmp_path):
    on(tmp_path, "x86", "x86-alder-avx2-t2", median_us=1.0)
    on(tmp_path, "x86", "x86-icelake-avx512-t2", median_us=9.0)
    assert found_on(tmp_path, "x86", "x86-zen5-avx512-t2")[:2] == ("family", "x86-alder-avx2-t2")
