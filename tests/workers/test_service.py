"""Compile workers that crash, hang, print, leak and are killed; the caller gets one failure of the right kind and goes on."""

import os
import platform
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from convgen.emit.service import CompileService
from convgen.errors import WorkerError
from convgen.workers import Worker
from convgen.workers.parent import _unread
from convgen.workers.scratch import sweep

ROOT = Path(__file__).parents[2]
LONG = 300.0  # seconds: a limit that is not reached


@pytest.fixture
def service():
    made = []

    def make(workers=1, **options):
        made.append(CompileService(workers, command=[sys.executable, "-m", "tests.workers.fake_compiler"], env={"PYTHONPATH": str(ROOT)}, **options))
        return made[-1]
    yield make
    for one in made:
        one.close()


def job(do, tmp_path="/tmp", **more):
    return {"description": {"do": do, **more}, "target": {}, "choice": {"a": 1}, "directory": str(tmp_path), "symbol": "cg_1"}


def kind_of(service, do, timeout=LONG, **more):
    with pytest.raises(WorkerError) as caught:
        service.build(**job(do, **more), timeout=timeout)
    return caught.value.kind, str(caught.value)


def alive(pid):
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat") as file:  # an orphan that nobody reaps yet is dead all the same
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except (ProcessLookupError, FileNotFoundError):
        return False


def gone(pid):
    return comes(lambda: not alive(pid))


def comes(condition):
    """True as soon as the condition holds; False after a minute."""
    for _ in range(6000):
        if condition():
            return True
        time.sleep(0.01)
    return False


def once_hanging(folder, count, action):
    """Do something once `count` jobs that hang ("began": folder) have begun."""
    def wait():
        if comes(lambda: len(os.listdir(folder)) >= count):
            action()
    threading.Thread(target=wait, daemon=True).start()


def test_builds_in_one_lasting_process(service):
    one = service()
    entries = [one.build(**job("ok")) for _ in range(3)]
    assert entries[0]["choice"] == {"a": 1} and len({e["pid"] for e in entries}) == 1
    assert entries[0]["pid"] != os.getpid() and entries[0]["cwd"] != os.getcwd()
    assert one.call("version").startswith("3.")


def test_printing_does_not_corrupt_the_answers(service, capfd):
    one = service()
    assert one.build(**job("print"))["symbol"] == "cg_1" and one.build(**job("ok"))["symbol"] == "cg_1"
    assert capfd.readouterr() == ("", "")


def test_failure_kinds_and_recovery(service):
    one = service()
    assert kind_of(one, "invalid") == ("invalid", "tile 7 does not divide 8")
    assert kind_of(one, "error") == ("compile_error", "LLVM said no")
    assert kind_of(one, "unpicklable")[0] == "compile_error"
    assert kind_of(one, "garbage")[0] == "compile_error"
    first = one.build(**job("ok"))["pid"]
    kind, message = kind_of(one, "segfault")
    assert kind == "crash" and "SIGSEGV" in message
    kind, message = kind_of(one, "exit")
    assert kind == "crash" and "code 1" in message
    assert kind_of(one, "bad_alloc")[0] == "oom"
    for hanging in ("hang", "spin"):
        kind, message = kind_of(one, hanging, timeout=0.3)
        assert kind == "compile_timeout" and "0.3 s" in message
    second = one.build(**job("ok"))["pid"]
    assert second != first and gone(first)


def test_an_answer_counts_however_late_this_process_looks(service):
    worker = service()._workers[0]
    for command, length in (("version", len(platform.python_version())), ("long", 1_000_000)):  # the second is longer than a pipe holds
        worker.send({"cmd": command}, LONG)
        select.select(worker.descriptors()[:1], [], [])
        worker._deadline = 0.0
        assert len(worker.answer()) == length


def test_unknown_command_is_invalid(service):
    with pytest.raises(WorkerError, match="knows no command 'fly'"):
        service().call("fly")


def test_memory_is_bounded(service):
    one = service(memory=1 << 29)
    assert kind_of(one, "eat")[0] == "oom"
    assert one.build(**job("ok"))["symbol"] == "cg_1"


def test_recycled_after_jobs_and_by_size(service):
    one = service(max_jobs=2)
    pids = [one.build(**job("ok"))["pid"] for _ in range(4)]
    assert pids[0] == pids[1] != pids[2] == pids[3]
    one = service(max_rss=1)
    assert one.build(**job("ok"))["pid"] != one.build(**job("ok"))["pid"]


def test_killed_from_outside(service, tmp_path):
    one = service()
    pid = one.build(**job("ok"))["pid"]
    os.kill(pid, signal.SIGKILL)
    assert gone(pid)
    assert one.build(**job("ok"))["pid"] != pid
    worker = one._workers[0]
    once_hanging(tmp_path, 1, lambda: os.kill(worker.process.pid, signal.SIGKILL))
    kind, message = kind_of(one, "hang", timeout=LONG, began=str(tmp_path))
    assert kind == "crash" and "SIGKILL" in message


def stopped(pid):
    os.kill(pid, signal.SIGSTOP)
    return comes(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")


def test_what_a_dying_worker_did_not_read_goes_to_a_fresh_one(service):
    one = service()
    pid, worker = one.build(**job("ok"))["pid"], one._workers[0]
    assert stopped(pid)
    worker.send({"cmd": "build", **job("ok")}, LONG)
    os.kill(pid, signal.SIGKILL)
    second = worker.answer()["pid"]
    assert second != pid and stopped(second)
    threading.Thread(target=lambda: comes(lambda: _unread(worker.process.stdin.fileno())) and os.kill(second, signal.SIGKILL), daemon=True).start()
    assert one.build(**job("ok", more="m" * 1_000_000), timeout=LONG)["pid"] not in (pid, second), "longer than a pipe holds"
    deaf = Worker([sys.executable, "-c", "print('{\"ready\": 1}')"])
    with pytest.raises(WorkerError, match="exited with code 0"):
        deaf.request({"cmd": "build"}, LONG)
    assert deaf.starts == 2


def test_processor_time_is_limited_and_waiting_is_not_counted(service):
    one = service()
    outcomes = one.build_many([job("sleep", seconds=0.5), job("compute", seconds=1e9), job("ok")], LONG, processor=0.3)
    assert [getattr(o, "kind", "ok") for o in outcomes] == ["ok", "compile_timeout", "ok"]
    worker = one._workers[0]

    def ask(do, seconds, processor):
        return worker.request({"cmd": "build", **job(do, seconds=seconds)}, LONG, processor)["pid"]
    first = ask("sleep", 0.5, 0.3)
    assert ask("compute", 0.5, None) == first, "a limit holds for one request"
    with pytest.raises(WorkerError, match="within 0.3 s of processor time") as caught:
        ask("compute", 1e9, 0.3)
    assert caught.value.kind == "compile_timeout" and ask("compute", 0.0, LONG) != first


def test_children_of_a_killed_worker_die_too(service, tmp_path):
    for limit in (0.5, 5.0, 50.0):  # where it takes longer to have a child, it gets longer
        assert kind_of(service(), "child", tmp_path=tmp_path, timeout=limit)[0] == "compile_timeout"
        if (tmp_path / "child").exists():
            break
    assert gone(int((tmp_path / "child").read_text()))


def test_batch_runs_in_parallel_and_keeps_order(service):
    two = service(2)
    told = []
    jobs = [job(do) for do in ("ok", "segfault", "invalid", "ok", "error", "ok")]
    outcomes = two.build_many(jobs, LONG, done=lambda i, o: told.append(i))
    kinds = [o.kind if isinstance(o, WorkerError) else "ok" for o in outcomes]
    assert kinds == ["ok", "crash", "invalid", "ok", "compile_error", "ok"] and sorted(told) == list(range(6))
    outcomes = two.build_many([job("sleep", seconds=0.2) for _ in range(2)], LONG)
    assert len({o["pid"] for o in outcomes}) == 2


def test_preload_is_waited_for_not_lost(service):
    two = service(2)
    two.preload()
    assert two.build(**job("ok"))["symbol"] == "cg_1"
    assert [o["symbol"] for o in two.build_many([job("ok")] * 4, LONG)] == ["cg_1"] * 4
    two.close()
    two.preload()
    os.kill(two._workers[1].process.pid, signal.SIGKILL)
    assert [o["symbol"] for o in two.build_many([job("ok")] * 4, LONG)] == ["cg_1"] * 4


def test_loading_can_be_waited_for(service):
    two = service(2)
    two.load(0.0)  # over already: begun, not waited for
    assert all(worker.running for worker in two._workers)
    two.load(float("inf"))
    assert [worker.jobs for worker in two._workers] == [1, 1] and not any(worker.busy for worker in two._workers)
    assert two.build(**job("ok"))["symbol"] == "cg_1"


def test_batch_deadline_leaves_the_rest_undone(service, monkeypatch):
    """By a clock that moves when a job is done: little time is left when the second begins, none when it ends."""
    now = [0.0]
    monkeypatch.setattr("convgen.workers.pool.time", SimpleNamespace(monotonic=lambda: now[0]))
    outcomes = service().build_many([job("ok"), job("hang"), job("ok")], LONG, deadline=100.0, done=lambda index, outcome: now.__setitem__(0, (99.7, 100.1)[index]))
    assert outcomes[0]["symbol"] == "cg_1" and outcomes[1].kind == "compile_timeout" and outcomes[2] is None


def test_interrupt_abandons_the_batch_and_the_next_works(service, tmp_path):
    two = service(2)
    two.build_many([job("ok"), job("ok")], LONG)
    interrupt, hanging = lambda: os.kill(os.getpid(), signal.SIGINT), job("hang", began=str(tmp_path))
    once_hanging(tmp_path, 2, interrupt)
    with pytest.raises(KeyboardInterrupt):
        two.build_many([hanging, hanging], LONG)
    assert two.build(**job("ok"))["symbol"] == "cg_1"
    before = len(os.listdir(tmp_path))
    once_hanging(tmp_path, before + 1, interrupt)
    with pytest.raises(KeyboardInterrupt):
        two.build(**hanging, timeout=LONG)
    assert two.build(**job("ok"))["symbol"] == "cg_1"  # not the answer of the job that was abandoned


def test_interrupt_while_a_worker_starts(service):
    worker = Worker([sys.executable, "-c", "import time\nwhile True: time.sleep(9)"])
    threading.Thread(target=lambda: comes(lambda: worker.busy) and os.kill(os.getpid(), signal.SIGINT), daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        worker.send({"cmd": "build"}, LONG)
    assert not worker.busy and not worker.running


def test_from_several_threads(service):
    one, got = service(), []

    def ask():
        got.append(one.build(**job("ok"))["pid"])
    threads = [threading.Thread(target=ask) for _ in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert len(got) == 4 and len(set(got)) == 1  # and the child outlives the thread that happened to start it
    assert one.build(**job("ok"))["pid"] == got[0]


PARENT = """
import os, sys
from convgen.emit.service import CompileService
service = CompileService(command=[sys.executable, "-m", "tests.workers.fake_compiler"], env={"PYTHONPATH": os.getcwd()})
print(service.build({"do": "ok"}, {}, None, "/tmp", "s")["pid"], flush=True)
sys.stdin.readline()
"""


def test_workers_end_with_their_parent_however_it_ends():
    """No __main__ guard here, and the parent's code comes from -c as in a notebook."""
    for end in (signal.SIGKILL, None):
        parent = subprocess.Popen([sys.executable, "-c", PARENT], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.send_signal(end) if end else parent.stdin.write("\n")
        parent.communicate(timeout=120)
        assert gone(pid)


def test_fork_leaves_the_parents_worker_alone(service):
    one = service()
    first = one.build(**job("ok"))
    child = os.fork()
    if child == 0:
        try:
            one.close()
            other = one.build(**job("ok"))["pid"]
            one.close()
            os._exit(0 if other != first["pid"] else 2)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert one.build(**job("ok"))["pid"] == first["pid"] and os.path.isdir(first["cwd"])


def test_worker_that_cannot_start_is_a_crash():
    with pytest.raises(WorkerError, match="code 1.*No module named"):
        CompileService(command=[sys.executable, "-m", "no_such_module_here"]).build(**job("ok"))


def test_folders_of_dead_processes_are_swept(tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    names = [f"convgen-worker-{dead.pid}-ab_c", f"convgen-worker-{os.getpid()}-abc", "convgen-worker-notes-abc", "other-worker-1-abc"]
    for name in names:
        (tmp_path / name).mkdir()
    sweep(str(tmp_path))
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(names[1:])


def test_scratch_folders_are_removed(service):
    one = service()
    folder = one.build(**job("ok"))["cwd"]
    assert os.path.isdir(folder)
    one.close()
    assert not os.path.exists(folder)
