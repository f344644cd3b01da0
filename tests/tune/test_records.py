"""The record store under torn lines, flipped bits, full disks, foreign files and two writers."""

import json
import multiprocessing
import random
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from convgen import schedules
from convgen.lang import parse
from convgen.lang.count import CALL
from convgen.targets import resolve
from convgen.tune import logs, records
from convgen.tune.identity import description_hash
from convgen.tune.records import LONGEST_LINE, Store, append, dumps, file_of, loads, read, rewrite


def record(n=0, **more):
    return {"format": 1, "operator": "conv2d", "workload": f"conv2d:n{n}", "description": "d1", "target": "x86-zen5-avx512-t2", "family": "x86",
            "isa": "avx512", "microarchitecture": "zen5", "threads": 2, "space": 1, "choice": {"tile": n, "name": "größe"}, "kind": "ok",
            "median_us": 10.5 + n, "spread_us": 0.5, "repeats": 100, "verified": "EFG", "error": 0.1, "dims": {"N": n + 1}, **more}


def test_round_trip_and_self_contained():
    line = dumps(record(3))
    assert "\n" not in line and loads(line) == record(3)


def test_append_and_read(tmp_path):
    path = file_of(tmp_path, "x86", "conv2d")
    for n in range(3):
        append(path, record(n))
    assert path == tmp_path / "x86" / "conv2d.jsonl" and read(path) == [record(n) for n in range(3)]


def test_names_cannot_leave_the_folder(tmp_path):
    path = file_of(tmp_path, "../../etc", "a/b\x00c")
    assert tmp_path in path.parents and path.name == "a_b_c.jsonl"


def test_torn_at_every_byte(tmp_path, caplog):
    """A line cut anywhere loses that record only, also when the next writer appends to the torn file."""
    path = tmp_path / "log.jsonl"
    first, second = dumps(record(1)).encode() + b"\n", dumps(record(2)).encode() + b"\n"
    for cut in range(len(second)):
        path.write_bytes(first + second[:cut])
        whole = cut == len(second) - 1  # only the newline is missing
        assert read(path) == ([record(1), record(2)] if whole else [record(1)])
        append(path, record(3))
        assert read(path)[-1] == record(3) and len(read(path)) == (3 if whole else 2)
        assert path.read_bytes().startswith(first + second[:cut])  # nothing that was there is rewritten


def test_bit_flips_never_change_a_record_unnoticed(tmp_path):
    path = tmp_path / "log.jsonl"
    lines = [dumps(record(n)).encode() + b"\n" for n in range(3)]
    good = b"".join(lines)
    known = [record(n) for n in range(3)]
    rng = random.Random(7)
    for _ in range(400):
        damaged = bytearray(good)
        damaged[rng.randrange(len(good))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        found = read(path)
        assert all(r in known for r in found) and len(found) >= 1


def test_unusable_lines_give_one_warning_with_number_and_reason(tmp_path, caplog):
    path = tmp_path / "log.jsonl"
    foreign = [b"{}", b"[1,2]", b"\xff\xfe\x00", b'{"format":99}', b"nonsense", b"{" * 5000, b'{"format":1,"crc":"00000000"}', b"x" * (LONGEST_LINE + 10)]
    path.write_bytes(b"\n".join([dumps(record(1)).encode(), *foreign, b"", dumps(record(2)).encode(), b""]))
    problems = []
    assert read(path, problems) == [record(1), record(2)]
    assert [number for number, _ in problems] == list(range(2, 10))
    warnings = [r.message for r in caplog.records]
    assert len(warnings) == 1 and "line 2" in warnings[0] and "(and 7 more)" in warnings[0]


def test_missing_keys_are_refused():
    for key in ("workload", "choice", "space", "median_us", "kind"):
        broken = record()
        del broken[key]
        with pytest.raises(ValueError, match=key):
            loads(dumps(broken))
    with pytest.raises(ValueError, match="space"):
        loads(dumps(record(space=True)))


def test_not_a_number_cannot_be_written():
    with pytest.raises(ValueError):
        dumps(record(median_us=float("nan")))


def test_missing_and_unreadable_files(tmp_path, caplog):
    assert read(tmp_path / "none.jsonl") == [] and not caplog.records
    folder = tmp_path / "folder.jsonl"
    folder.mkdir()
    assert read(folder) == [] and "cannot be read" in caplog.text


WRITER = """
import sys
from convgen.tune.records import append
from tests.tune.test_records import record
for n in range(int(sys.argv[3])):
    append(sys.argv[1], record(n, seed=int(sys.argv[2])))
"""


def test_two_processes_write_two_hundred_lines_each(tmp_path):
    path, root = tmp_path / "log.jsonl", Path(__file__).parents[2]
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(k), "200"], cwd=root) for k in range(2)]
    assert [w.wait(240) for w in writers] == [0, 0]
    found = read(path)
    assert len(found) == 400
    for k in range(2):  # each writer's lines in its order
        assert [r["choice"]["tile"] for r in found if r["seed"] == k] == list(range(200))


def test_rewriting_loses_nothing_that_another_process_appends(tmp_path):
    """One process appends while this one puts other lines in the place of all that are there, again and again."""
    path, root = tmp_path / "log.jsonl", Path(__file__).parents[2]
    append(path, record(0, seed=7))
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path), "1", "60"], cwd=root)
    rounds = 0
    while writer.poll() is None:
        rounds += 1
        rewrite(path, {dumps(r).encode(): dumps(r | {"round": rounds}).encode() for r in read(path)})
    assert writer.returncode == 0 and [r["choice"]["tile"] for r in read(path) if r["seed"] == 1] == list(range(60))
    assert [r.get("round") for r in read(path)][0] == (rounds or None) and [p.name for p in tmp_path.iterdir()] == ["log.jsonl"]


def test_a_record_goes_to_the_file_that_took_the_place_of_the_one_waited_for(tmp_path, monkeypatch):
    path, locked = tmp_path / "log.jsonl", records._locked
    append(path, record(0))

    def late(descriptor):
        monkeypatch.setattr(records, "_locked", locked)
        rewrite(path, {dumps(record(0)).encode(): dumps(record(5)).encode()})  # before the lock is ours
        return locked(descriptor)
    monkeypatch.setattr(records, "_locked", late)
    append(path, record(1))
    assert read(path) == [record(5), record(1)]


def _limited_writer(path, answers):
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    try:
        for n in range(10):
            append(path, record(n))
    except OSError as error:
        answers.put(error.errno)


def test_full_disk_leaves_whole_lines(tmp_path):
    """A write that only partly fits is taken back; what was there stays."""
    path = tmp_path / "log.jsonl"
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=_limited_writer, args=(path, answers))
    child.start()
    assert answers.get(timeout=240) > 0
    child.join()
    assert 1 <= len(read(path)) < 10 and path.read_bytes().endswith(b"\n")
    assert read(path) == [record(n) for n in range(len(read(path)))]


def test_store_keeps_records_in_memory_when_it_cannot_write(tmp_path, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    store = Store([tmp_path / "empty"], blocked / "logs")
    assert store.add(record(1)) is False and store.add(record(2)) is False
    assert len(caplog.records) == 1 and "memory only" in caplog.text
    assert [r["choice"]["tile"] for r in store.records("x86", "conv2d")[0]] == [1, 2]


def test_store_order_and_fresh_reads(tmp_path, monkeypatch):
    own, other = tmp_path / "own", tmp_path / "other"
    monkeypatch.setenv("CONVGEN_LOGS", str(other))
    append(file_of(other, "x86", "conv2d"), record(2))
    store = Store.open(str(own))
    assert store.write_to == own and store.roots[:2] == [own, other]
    store.add(record(1))
    assert [[r["choice"]["tile"] for r in g] for g in store.records("x86", "conv2d")] == [[1], [2]]
    append(file_of(own, "x86", "conv2d"), record(5))  # another process
    assert [r["choice"]["tile"] for r in store.records("x86", "conv2d")[0]] == [1, 5]


def test_check_best_and_merge(tmp_path):
    a, b, into = tmp_path / "a", tmp_path / "b", tmp_path / "into"
    for r in (record(1, median_us=5.0), record(1, median_us=4.0), record(1, kind="crash", choice={"tile": 9})):
        append(file_of(a, "x86", "conv2d"), r)
    append(file_of(b, "x86", "conv2d"), record(1, median_us=6.0, final=True))
    append(file_of(b, "x86", "conv2d"), record(2, median_us=1.0, verified=""))
    with open(file_of(b, "x86", "conv2d"), "ab") as file:
        file.write(b'{"torn')
    checked = logs.check([a, b])
    assert not checked.ok and (checked.files, checked.records) == (2, 5) and "jsonl:3: it is not complete JSON" in str(checked)
    assert logs.check([a]).ok
    assert [r["median_us"] for r in logs.best([a, b])] == [6.0]  # a final raced its rivals, a trial did not
    assert logs.merge([a, b], into) == 5 and logs.merge([a, b], into) == 0
    assert logs.merge([a, b], tmp_path / "ship", only_best=True) == 1
    assert json.loads(file_of(tmp_path / "ship", "x86", "conv2d").read_text())["final"]


def test_failed_trials_stay_compact():
    line = dumps({k: v for k, v in record(kind="crash", message="m" * 200).items() if k not in ("median_us", "spread_us", "repeats", "verified")})
    assert len(line) < 1000 and loads(line)["kind"] == "crash"


class Counting:
    """A compile service that counts the same for every kernel."""

    def __init__(self):
        self.jobs, self.meanwhile = [], lambda: None

    def call(self, command, **job):
        self.jobs.append((command, job))
        self.meanwhile()
        return {"border": 1, "scratch": 9, "ratio": 10.0, "why": "so"}


@pytest.fixture
def known():
    """Keys of a record whose choice is in its space."""
    w, machine = parse("conv2d:n1,c8,o16,h6,w6,k3x3:f32.f32.f32:nchw"), resolve("x86:avx512").with_threads(1).to_json()
    space = schedules.space(w.description, machine)
    return {"workload": w.id, "description": description_hash(w.description), "target": machine["fingerprint"], "threads": 1, "space": space.version, "choice": space.default()}


def test_memory_counted_while_another_process_tunes(tmp_path, known):
    path, service, root = tmp_path / "log.jsonl", Counting(), Path(__file__).parents[2]
    append(path, record(0, **known))
    service.meanwhile = lambda: subprocess.run([sys.executable, "-c", WRITER, str(path), "1", "3"], cwd=root, check=True)
    assert len(logs.restate([path], service)) == 1
    assert [r.get("seed") for r in read(path)[1:]] == [1] * 3 and read(path)[0]["memory"]["why"] == "so"


def test_memory_is_written_into_records_and_nothing_else(tmp_path, known):
    old = [record(0, **known, torch_us=3.25), record(1, **known, memory={"ratio": 1.0}, torch_us=2.0), record(2, **known | {"space": known["space"] - 1}), record(3)]
    path, service = tmp_path / "log.jsonl", Counting()
    path.write_text("".join(dumps(r) + "\n" for r in old) + "torn")
    assert len(logs.restate([tmp_path], service)) == 2
    lines = path.read_text().splitlines()
    new = [loads(line) for line in lines[:4]]
    assert lines[4] == "torn" and lines[2:4] == [dumps(r) for r in old[2:]]
    assert [r.pop("memory")["why"] for r in new[:2]] == ["so", "so"] and old[1].pop("memory") and new == old and list(new[0]) == list(old[0])
    assert service.jobs[0] == ("memory", {"description": parse(known["workload"]).description, "target": resolve("x86:avx512").with_threads(1).to_json(), "choice": known["choice"]})
    assert logs.restate([path], service) == []


def test_shipped_records_say_what_calls_hold_and_why_it_is_much():
    shipped = [r for path in logs.log_files([Path(__file__).parents[2] / "tuning_logs"]) for r in read(path) if r["family"] == "x86"]
    assert shipped and [r["workload"] for r in shipped if "memory" not in r] == []
    assert [r["workload"] for r in shipped if (r["memory"]["ratio"] > CALL) != bool(r["memory"]["why"]) and abs(r["memory"]["ratio"] - CALL) > 0.01] == []
