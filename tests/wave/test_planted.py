"""Whatever a candidate does, it costs one line; and whatever happens to the run or its file, what was measured counts once."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from convgen.errors import TuneError
from convgen.lang import parse
from convgen.targets import resolve
from convgen.tune import logs
from convgen.tune.records import read
from convgen.wave import WaveError, absorb, bundle, make
from convgen.wave.device import journal
from tests.wave.bare import command, environment, lines_of, result_of, run

SHAPE = (1, 5, 6, 7)
ID = "depthwise_conv2d:n1,c5,h6,w7,k3x3;padding=1:f32.f32.f32:nchw"
FAULTS = {"unwritten": "wrong", "stale": "wrong", "beyond": "wrong", "ahead": "wrong", "mutates": "wrong", "mutates_weight": "wrong", "lost_tap": "wrong",
          "low_precision": "wrong", "noisy": "wrong", "infinite": "wrong", "lazy": "wrong", "segfault": "crash", "exit": "crash", "hang": "run_timeout",
          "refuses": "oom", "prints": "ok"}


def target() -> dict:
    return resolve("x86:avx2").with_threads(1).to_json()


def wave_of(folder, variants, name="wave", store="records", **more):
    made = make(parse(ID), folder / name, target(), count=max(2, len(variants)), logs=folder / store, environment=environment(folder, variants, SHAPE), **more)
    return made, folder / name


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A wave of every fault, run once, with its output."""
    folder = tmp_path_factory.mktemp("planted")
    made, wave = wave_of(folder, ["right", "refused", *FAULTS, "right"])
    code, output = run(wave, "--limit", "2")
    return folder, wave, made, code, output


def test_faults_cost_one_line_of_their_kind(measured):
    folder, wave, made, code, output = measured
    assert code == 0, output
    lines = lines_of(wave, "candidate")
    assert [line["status"] for line in lines] == ["ok", *FAULTS.values(), "ok", "ok"], output  # the last stands in for what did not compile
    assert "noise on standard output" not in result_of(wave).read_text()
    said = dict(zip(FAULTS, lines[1:]))
    assert "1 elements were not written" in said["unwritten"]["message"] and "memory after out" in said["beyond"]["message"]
    assert "memory before out" in said["ahead"]["message"] and "x was changed" in said["mutates"]["message"]
    assert "SIGSEGV" in said["segfault"]["message"] and "2 s" in said["hang"]["message"] and "oracle F" in said["low_precision"]["message"]
    good = lines[0]
    assert good["oracles"] == "EFG" and 0 <= good["ratio"] < 1 and 0 < good["min_us"] <= good["median_us"] and good["cold_us"] > 0
    assert all(line["date"].endswith("Z") and line["wave"] == made.id for line in lines)
    final, = lines_of(wave, "final")
    assert final["candidates"][0] == "0.0" and len(final["candidates"]) == 4 and min(map(min, final["least"])) > 0


def test_only_what_passed_is_recorded_as_measured(measured):
    folder, wave, made, *_ = measured
    absorbed = absorb(result_of(wave), logs=folder / "records")
    assert (absorbed.new, absorbed.known, absorbed.missing) == (len(FAULTS) + 4, 0, 0) and "new results" in str(absorbed)
    path, = (folder / "records").rglob("*.jsonl")
    records = read(path)
    kinds = [r["kind"] for r in records if not r.get("final")]
    assert sorted(kinds) == sorted(["ok", "ok", "ok", "compile_error", *FAULTS.values()])
    final = records[-1]
    assert final["final"] and final["verified"] == "EFG" and final["wave"] == made.id and final["made_for"] == target()["fingerprint"]
    device = lines_of(wave, "device")[0]["device"]
    assert final["target"] == absorbed.device and final["target"].startswith("x86-") and final["target"].endswith(f"avx2-t{device['threads']}")
    assert final["date"] == lines_of(wave, "final")[0]["date"]
    size = path.stat().st_size
    again = absorb(result_of(wave), logs=folder / "records")
    assert (again.new, again.known) == (0, len(FAULTS) + 4) and path.stat().st_size == size
    assert again.tuned.rows[0].record == final and again.tuned.rows[0].us == final["median_us"] and str(again.tuned) == str(absorbed.tuned)


@pytest.mark.parametrize("disturbed", [1.2, 3.7])
def test_a_race_reads_the_same_when_it_comes_in_again(tmp_path, disturbed):
    """Whether the device was busy in the race is said from what is recorded, not from single measurements before it."""
    made, wave = wave_of(tmp_path, ["right"] * 2)
    assert run(wave)[0] == 0
    result = result_of(wave)
    entries, _ = journal.read(result)
    for line in entries:
        if line["kind"] == "candidate":
            line.update(median_us=12.34567, min_us=12.34567)
        if line["kind"] == "final":
            line.update(median=[[disturbed * 7.6543219] * 3] * len(line["candidates"]), least=[[7.6543219] * 3] * len(line["candidates"]))
    result.write_bytes(b"".join(map(journal.encode, entries)))
    first, again = (absorb(result, logs=tmp_path / "records") for _ in range(2))
    assert first.new and not again.new
    said, recorded = ([part(r) for r in (first, again)] for part in (lambda r: str(r.tuned), lambda r: r.tuned.rows[0].record))
    assert said[0] == said[1] and recorded[1] == {"format": 1, **recorded[0]}
    assert ("machine was busy" in str(first.tuned)) == (disturbed > 1.5)


def test_the_next_wave_holds_nothing_twice_and_races_the_best(tmp_path):
    made, first = wave_of(tmp_path, ["right"] * 4, "first")
    assert run(first)[0] == 0
    absorb(result_of(first), logs=tmp_path / "records")
    tried = {json.dumps(c["choices"], sort_keys=True) for c in bundle.read(first)[1]["candidates"]}
    second_made, second = wave_of(tmp_path, ["right"] * 5, "second")
    manifest = bundle.read(second)[1]
    assert manifest["target"]["fingerprint"] == second_made.target != manifest["made_for"] == target()["fingerprint"]
    roles = [c["role"] for c in manifest["candidates"]]
    assert roles[0] == "default" and roles.count("new") >= 3 and roles.count("best") <= 1
    assert not tried & {json.dumps(c["choices"], sort_keys=True) for c in manifest["candidates"] if c["role"] == "new"}
    assert run(second)[0] == 0
    later = absorb(result_of(second), logs=tmp_path / "records")
    assert later.new == roles.count("new") and later.known == len(roles) - later.new
    older = absorb(result_of(first), logs=tmp_path / "records")  # an older wave coming in again changes nothing
    assert older.new == 0
    found = logs.why(parse(ID), logs=str(tmp_path / "records"))
    assert found.step in ("exact", "threads", "family") and found.record["verified"]
    with pytest.raises(TuneError, match="no wave .* was measured on x86-other"):
        wave_of(tmp_path, ["right"] * 2, "third", device="x86-other")


def test_interrupted_it_goes_on_where_it_stopped(tmp_path):
    made, wave = wave_of(tmp_path, ["right"] * 3 + ["hang"] + ["right"] * 2)
    process = subprocess.Popen(command(wave, "--limit", "600"), env={}, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, start_new_session=True)
    until = time.monotonic() + 200
    while time.monotonic() < until and not (list(wave.glob("result-*")) and len(lines_of(wave, "candidate")) == 3):
        time.sleep(0.02)
    partial = absorb(result_of(wave), logs=tmp_path / "records")  # a part is worth having, too
    assert (partial.new, partial.missing) == (3, 3)
    os.kill(process.pid, signal.SIGKILL)  # power loss, in the middle of the fourth
    process.wait()
    with open(result_of(wave), "ab") as file:
        file.write(b'{"format":1,"wave":"' + made.id.encode())
    code, output = run(wave, "--limit", "2")
    assert code == 0 and "skipped: it is not complete JSON" in output, output
    lines = lines_of(wave, "candidate")
    assert [line["candidate"] for line in lines] == [f"0.{i}" for i in range(6)] and lines[3]["status"] == "run_timeout"
    whole = absorb(result_of(wave), logs=tmp_path / "records")
    assert (whole.new, whole.known, whole.missing) == (3, 3, 0) and len(whole.problems) == 1
    assert run(wave)[0] == 0 and len(lines_of(wave, "candidate")) == 6 and len(lines_of(wave, "final")) == 1


def test_interrupt_and_time_limit_keep_everything(tmp_path):
    made, wave = wave_of(tmp_path, ["right", "hang", "right"])
    code, output = run(wave, "--seconds", "0")
    assert code == 3 and "the time is over" in output and not lines_of(wave, "candidate")
    process = subprocess.Popen(command(wave, "--limit", "600"), env={}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout.readline().startswith("wave ")
    process.send_signal(signal.SIGINT)  # it cannot be over yet: the second hangs
    assert process.wait(120) == 130 and "interrupted; run again" in process.stdout.read()
    assert run(wave, "--limit", "2")[0] == 0 and [line["status"] for line in lines_of(wave, "candidate")] == ["ok", "run_timeout", "ok"]


def test_nothing_is_loaded_from_a_damaged_wave(tmp_path):
    made, wave = wave_of(tmp_path, ["right"] * 2)
    assert run(wave, "--check") == (0, f"wave {made.id} is complete and undamaged\n")
    code = next((wave / "code").glob("*.z"))
    good = code.read_bytes()
    code.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    status, output = run(wave)
    assert status == 2 and f"code/{code.name} is damaged" in output and not list(wave.glob("result*"))
    code.unlink()
    assert run(wave)[0] == 2
    code.write_bytes(good)
    sums = (wave / "SHA256SUMS").read_text()
    (wave / "SHA256SUMS").write_text(sums + sums.splitlines()[0][:66] + "../../etc/passwd\n")
    assert "strange file" in run(wave)[1]
    (wave / "SHA256SUMS").write_text(sums)
    (wave / "wave.json").write_text((wave / "wave.json").read_text().replace('"threads":1', '"threads":2'))
    assert run(wave)[0] == 2
    with pytest.raises(WaveError, match="wave.json is damaged"):
        bundle.read(wave)


def test_results_must_be_of_this_wave_and_one_device(tmp_path):
    made, wave = wave_of(tmp_path, ["right"] * 2)
    assert run(wave)[0] == 0
    result, whole = result_of(wave), result_of(wave).read_bytes()
    entries = journal.read(result)[0]

    def rewritten(change):
        result.write_bytes(b"".join(journal.encode(change(dict(entry))) for entry in entries))

    rewritten(lambda e: {**e, "wave": "0" * 16})
    with pytest.raises(WaveError, match="holds results of wave 0000"):
        absorb(result, logs=tmp_path / "records")
    assert "give another file with --result" in run(wave)[1]
    rewritten(lambda e: {**e, "device": {**e["device"], "card": "another"}} if e["kind"] == "device" else e)
    assert run(wave)[0] == 2 and "another device (card is 'another'" in run(wave)[1]
    result.write_bytes(whole + journal.encode({**entries[0], "device": {**entries[0]["device"], "card": "another"}}))
    with pytest.raises(WaveError, match="results of two devices"):
        absorb(result, logs=tmp_path / "records")
    rewritten(lambda e: {**e, "code": "code/0.z"} if e.get("candidate") == "0.1" else e)
    absorbed = absorb(result, logs=tmp_path / "records")
    assert absorbed.new == 1 and "is not in this wave" in absorbed.problems[0][1]
    result.write_bytes(whole.replace(b'"min_us":', b'"min_us":0', 1))  # a figure changed by hand
    absorbed = absorb(result, logs=tmp_path / "other")
    assert any("checksum" in reason or "JSON" in reason for _, reason in absorbed.problems)
    result.write_bytes(b"\n".join(whole.splitlines()[1:]))
    with pytest.raises(WaveError, match="which device"):
        absorb(result, logs=tmp_path / "records")
    with pytest.raises(WaveError, match="no result file"):
        absorb(tmp_path / "nowhere.jsonl")


def test_impossible_times_are_no_records(tmp_path):
    made, wave = wave_of(tmp_path, ["right"] * 2)
    assert run(wave)[0] == 0
    entries = journal.read(result_of(wave))[0]
    result_of(wave).write_bytes(b"".join(journal.encode({**e, "median_us": 1e-6, "min_us": 1e-6} if e["kind"] == "candidate" else e) for e in entries if e["kind"] != "final"))
    absorbed = absorb(result_of(wave), logs=tmp_path / "records")
    assert absorbed.tuned.rows[0].us is None and absorbed.tuned.rows[0].failures == {"wrong": 2}


def test_bundles_replace_waves_only(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(WaveError, match="is no wave; it is not overwritten"):
        wave_of(tmp_path, ["right"] * 2, "mine")
    first, path = wave_of(tmp_path, ["right"] * 2, "wave.tar")
    assert path.is_file() and bundle.read(path)[0] == first.id
    subprocess.run(["tar", "-xf", str(path)], cwd=tmp_path, check=True)
    assert run(tmp_path / "wave", "--check")[0] == 0 and bundle.read(tmp_path / "wave")[0] == first.id
    wave_of(tmp_path, ["right"] * 2, "wave")
    assert (tmp_path / "wave.old").is_dir()
    with pytest.raises(TuneError, match="at least 1 candidate"):
        make(parse(ID), tmp_path / "x", target(), count=0)
    with pytest.raises(TuneError, match="no candidate for a wave could be built: the compiler refuses it"):
        make(parse(ID), tmp_path / "x", target(), count=2, logs=tmp_path / "records", environment=environment(tmp_path, ["refused"] * 20, SHAPE))


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs PyTorch")
def test_torch_races_where_it_is_installed(tmp_path):
    made, wave = wave_of(tmp_path, ["right"] * 2)
    done = subprocess.run([sys.executable, str(wave / "run.py"), "--budget", "0.01", "--final", "0.05"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    line, = lines_of(wave, "torch")
    assert line["names"] == ["ours", "eager", "eager channels_last"] and not line["errors"] and len(line["least"]) == 3 and max(line["ratios"].values()) < 1
    row = absorb(result_of(wave), logs=tmp_path / "records").tuned.rows[0]
    assert row.baseline_ratio == pytest.approx(min(map(min, line["least"][1:])) / row.record["min_us"])
