"""A server on an emulated aarch64: kernels built here for ARM run there, are verified, and their times are never kept.

Needs $CONVGEN_AARCH64_PYTHON: a command that runs Python on emulated aarch64 with numpy, tvm_ffi and TVM's runtime, for example a
script `exec qemu-aarch64 -L TREE TREE/usr/bin/python3 "$@"` with their wheels on PYTHONPATH. binfmt_misc is not needed: sessions are forks.
"""

import os
import subprocess
import time
from pathlib import Path

import pytest

import convgen
from convgen.cli import main
from convgen.errors import TuneError
from convgen.remote.address import Tracker, parse
from convgen.remote.devices import devices, registered
from convgen.targets import resolve
from convgen.tune import tune

PYTHON = os.environ.get("CONVGEN_AARCH64_PYTHON")
ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not PYTHON, reason="needs $CONVGEN_AARCH64_PYTHON, see the module")]


@pytest.fixture(scope="module")
def board(farm):
    """Address of a tracker with an emulated server under the key "qemu"."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen([PYTHON, "-m", "convgen", "device", "serve", "--tracker", farm.address, "--key", "qemu", "--threads", "2"],
                               stdout=subprocess.PIPE, text=True, start_new_session=True, env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"})
    farm.processes.append(process)
    farm.line(process, "serving on ")
    end = time.monotonic() + 120
    while not any(row["key"] == "qemu" for row in registered(Tracker(*parse(farm.address), ""))):
        assert time.monotonic() < end, "the server did not register"
    return farm.address


def test_devices_tell_the_emulation(board, capsys):
    (row,) = devices(Tracker(*parse(board), "qemu"), resolve("arm:cortex-a72").with_threads(2).to_json(), wait=120.0)
    assert row["error"] is None and row["us"] > 0 and row["facts"]["emulated"] and row["facts"]["architecture"] == "aarch64"
    assert main(["devices", "--rpc", board, "--key", "qemu", "--target", "arm:cortex-a72", "--threads", "2", "--wait", "120"]) == 0
    assert "emulated, its times mean nothing" in capsys.readouterr().out


@pytest.mark.parametrize("name, workload", [
    ("arm:cortex-a72", "conv2d:n1,c16,o16,h10,w10,k3x3;padding=1:f32.f32.f32:nhwc:bias"),
    ("arm:neoverse-n1", "quantized_conv2d:n1,c16,o16,h6,w6,k3x3;padding=1:u8.i32.u8:nhwc")])
def test_tunes_and_keeps_nothing(board, tmp_path, name, workload):
    target, case = resolve(name).with_threads(2), convgen.workload(workload)
    with pytest.raises(TuneError, match="emulated, so its times mean nothing"):
        tune(case, target, trials=2, logs=str(tmp_path), workers=1, rpc=board, key="qemu")
    result = tune(case, target, trials=3, logs=str(tmp_path), workers=1, rpc=board, key="qemu", emulated=True)
    assert result.rows[0].us > 0 and not set(result.rows[0].failures) - {"run_timeout"}, str(result)
    assert result.store is None and not list(tmp_path.iterdir())
