"""Tuning on servers that are killed, with candidates that crash and hang; and what is said when no server is left."""

import os
import shutil
import signal
import subprocess
import threading

import pytest

import convgen
from convgen.errors import TuneError
from convgen.remote.environment import remote_environment
from convgen.targets import resolve
from convgen.tune import logs, tune
from convgen.tune.records import read

BAD = {"segfault": "*(volatile int*)8 = 1;", "hang": "for (volatile int i = 0;; i++) {}"}


@pytest.fixture(autouse=True)
def no_foreign_records(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("CONVGEN_LOGS", raising=False)
    monkeypatch.setattr("convgen.paths.shipped_logs", lambda: tmp_path / "shipped")


class Sabotage:
    """A builder whose third and fourth candidate crash and hang, whatever they are; `then` happens while the second batch is measured."""

    def __init__(self, builder, folder, then):
        self.builder, self.workers, self.count, self.folder, self.then = builder, builder.workers, 0, folder, then

    def load(self, deadline=None):
        self.builder.load(deadline)

    def build(self, description, choices, deadline=None, grace=0.0):
        outcomes = self.builder.build(description, choices, deadline, grace)
        for built in outcomes:
            self.count += 1
            name = {3: "segfault", 4: "hang"}.get(self.count)
            if name:
                shutil.copy(self._compiled(name), built.path)
                built.digest = name
        if self.count > 1 and self.then:
            threading.Timer(0.4, self.then).start()
            self.then = None
        return outcomes

    def _compiled(self, name):
        source, path = self.folder / f"{name}.c", self.folder / f"{name}.so"
        source.write_text("int __tvm_ffi_guarded_run() { %s return 0; } int __tvm_ffi_guarded_prepare() { return 0; }" % BAD[name])
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(path), str(source)], check=True)
        return path

    def discard(self, built):
        self.builder.discard(built)

    def close(self):
        self.builder.close()


def test_a_killed_server_and_bad_candidates_lose_nothing(farm, tmp_path):
    first, second = farm.serve("mortal", "mortal")
    target = resolve("native").with_threads(1)
    workload = convgen.workload("depthwise_conv2d:n1,c20,h9,w7,k3x3;padding=1:f32.f32.f32:nhwc")
    environment = remote_environment(target.to_json(), farm.address, "mortal", workers=1)
    environment.builder = Sabotage(environment.builder, tmp_path, lambda: os.killpg(first.pid, signal.SIGKILL))
    result = tune(workload, target, trials=5, logs=str(tmp_path / "logs"), environment=environment)
    row = result.rows[0]
    assert first.poll() == -signal.SIGKILL and row.us > 0 and row.trials == 5 and row.failures == {"crash": 1, "run_timeout": 1}, str(result)
    assert row.baseline_ratio is None
    lines = read(tmp_path / "logs" / "x86" / "depthwise_conv2d.jsonl")
    assert sorted(r["kind"] for r in lines) == ["crash"] + ["ok"] * 4 + ["run_timeout"]
    assert lines[-1]["final"] and set(lines[-1]["verified"]) == set("EFG")
    assert all(r["measured"] == "rpc" and r["target"] == target.fingerprint for r in lines)
    assert logs.why(workload, target, str(tmp_path / "logs")).step == "exact"

    environment = remote_environment(target.to_json(), farm.address, "mortal", workers=1)
    environment.runner.wait = 1.0
    os.killpg(second.pid, signal.SIGKILL)
    farm.until("mortal", 0)
    with pytest.raises(TuneError, match="no server with the key 'mortal' is left at the tracker .* saved, the same call goes on"):
        tune(workload, target, trials=6, logs=str(tmp_path / "logs"), environment=environment)


def test_nothing_is_saved_of_emulated_processors(farm, key, tmp_path):
    target = resolve("native").with_threads(1)
    workload = convgen.workload("depthwise_conv2d:n1,c20,h9,w7,k3x3;padding=1:f32.f32.f32:nhwc")
    result = tune(workload, target, trials=1, logs=str(tmp_path / "logs"), workers=1, rpc=farm.address, key=key, emulated=True)
    assert result.rows[0].us > 0 and result.store is None and not (tmp_path / "logs").exists()


def test_arguments(farm, tmp_path):
    workload = convgen.workload("depthwise_conv2d:n1,c20,h9,w7,k3x3;padding=1:f32.f32.f32:nhwc")
    for words, expected in (({"rpc": farm.address, "key": "nobody"}, "no server with the key 'nobody' is registered"), ({"key": "a"}, "belong to rpc"),
                            ({"rpc": "127.0.0.1", "key": "a"}, "HOST:PORT"), ({"rpc": farm.address}, "needs the key"),
                            ({"rpc": farm.address, "key": "a", "target": "cuda:sm_90"}, "cuda:sm_90 cannot be measured through RPC.*convgen wave"),
                            ({"rpc": "127.0.0.1:1", "key": "a"}, "no tracker answers at 127.0.0.1:1")):
        with pytest.raises(convgen.Error, match=expected):
            tune(workload, trials=1, logs=str(tmp_path), **words)
