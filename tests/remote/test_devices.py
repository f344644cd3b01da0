"""The command line: listing servers, trying them, starting and ending them."""

import json
import os
import signal
import time

import pytest

from convgen.cli import main
from convgen.remote import facts


def test_lists_and_tries_servers(farm, key, capsys):
    assert main(["devices", "--rpc", farm.address, "--json"]) == 0
    assert [row["key"] for row in json.loads(capsys.readouterr().out)].count(key) == 2
    assert main(["devices", "--rpc", farm.address, "--key", key, "--threads", "1", "--wait", "120", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len({row["server"] for row in rows}) == 2 and all(row["us"] > 0 and row["error"] is None and row["facts"]["threads"] == 1 for row in rows)


def test_no_servers_and_no_tracker(farm, capsys):
    assert main(["devices", "--rpc", farm.address, "--key", "nobody"]) == 1
    assert "no server with the key 'nobody'" in capsys.readouterr().out
    assert main(["devices", "--rpc", "127.0.0.1:1"]) == 1
    assert "no tracker answers at 127.0.0.1:1" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_server_ends_with_its_children(farm, number):
    (process,) = farm.serve("brief")
    os.kill(process.pid, number)
    assert process.wait(120) == 0
    farm.until("brief", 0)
    with pytest.raises(ProcessLookupError):  # nobody of its session is left
        for _ in range(600):
            os.killpg(process.pid, 0)
            time.sleep(0.1)


def test_other_addresses_than_loopback_are_warned_of(capsys, monkeypatch):
    monkeypatch.setattr("convgen.remote.server.serve", lambda *words, **more: None)
    assert main(["device", "serve", "--tracker", "10.0.0.1:9190", "--host", "0.0.0.0", "--key", "a"]) == 0
    assert "run any program" in capsys.readouterr().err
    assert main(["device", "serve", "--tracker", "10.0.0.1:9190"]) == 0
    assert capsys.readouterr().err == ""


def test_facts_tell_emulation(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("processor : 0\nvendor_id : AuthenticAMD\nflags : fpu avx2\n\nprocessor : 1\nvendor_id : AuthenticAMD\nflags : fpu avx2\n")
    here, emulated = facts.facts(tmp_path, "x86_64"), facts.facts(tmp_path, "aarch64")
    assert here["flags"] == ["avx2", "fpu"] and not here["emulated"] and emulated["emulated"]
    arm = {"name": "arm:cortex-a72", "family": "arm", "features": ["asimd"]}
    assert "--emulated" in facts.unfit(emulated, arm, False) and facts.unfit(emulated, arm, True) is None
    assert "of family arm" in facts.unfit(here, arm, True)
    (tmp_path / "proc/cpuinfo").write_text("processor : 0\nFeatures : fp asimd\nCPU implementer : 0x41\n")
    board = facts.facts(tmp_path, "aarch64")
    assert not board["emulated"] and facts.unfit(board, arm, False) is None
    assert facts.unfit(board, {**arm, "features": ["asimddp"]}, False) == "it lacks asimddp, which arm:cortex-a72 may use"
