"""An aarch64 library through the real loader, in an aarch64 Python under QEMU: load, checks, shim, threads and calls on numpy arrays."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import convgen
from convgen.runtime import cpu

ROOT = Path(__file__).resolve().parents[2]
TREE = os.environ.get("CONVGEN_ARM_TREE")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(cpu.family() != "x86", reason="emulates aarch64 on x86-64"),
    pytest.mark.skipif(not shutil.which("qemu-aarch64"), reason="needs QEMU in user mode: apt install qemu-user"),
    pytest.mark.skipif(not TREE, reason="needs an aarch64 Python: tools/arm_tree.sh FOLDER, then CONVGEN_ARM_TREE=FOLDER"),
    pytest.mark.skipif(importlib.util.find_spec("tvm") is None or importlib.util.find_spec("torch") is None, reason="needs convgen[tune] and torch"),
]

IDS = ["conv2d:n1,c16,o32,h14,w14,k3x3;padding=1:f32.f32.f32:nchw", "conv2d:n1,c16,o32,h14,w14,k1x1:f16.f32.f16:nchw",
       "depthwise_conv2d:n2,c24,h14,w13,k5x5;padding=2:f32.f32.f32:nchw", "quantized_conv2d:n1,c32,o24,h9,w10,k3x3;padding=1:u8.i32.u8:nchw:bias"]


def served(command, folder, library, environment):
    """(what the process says, its results)."""
    done = subprocess.run([*command, str(ROOT / "tests/export/serve_numpy.py"), str(library), json.dumps(CALLS), str(folder / "in.npz"), str(folder / "out.npz")],
                          capture_output=True, text=True, timeout=900, env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    return said, {} if "error" in said else dict(np.load(folder / "out.npz"))


def emulated(folder, library, processor):
    return served(["qemu-aarch64", f"{TREE}/usr/bin/python3.11"], folder, library,
                  {"QEMU_LD_PREFIX": TREE, "QEMU_CPU": processor, "PYTHONHOME": f"{TREE}/usr", "PYTHONPATH": f"{ROOT}:{TREE}/site", "OMP_NUM_THREADS": "3"})


WORKLOADS = {f"k{i}": convgen.workload(text) for i, text in enumerate(IDS)}
CALLS = {key: [w.operator, {name: value for name, value in w.attributes.items()}] for key, w in WORKLOADS.items()}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder with the inputs, mixed library, results on this machine)."""
    folder = tmp_path_factory.mktemp("qemu")
    np.savez(folder / "in.npz", **{f"{key}/{name}": t.numpy() for key, w in WORKLOADS.items() for name, t in w.sample(seed=0).items()})
    convgen.export(list(WORKLOADS.values()), folder / "mixed.cvg", target=["x86:avx2", "arm:cortex-a72", "arm:neoverse-n1", "arm:neoverse-v1"])
    convgen.export(list(WORKLOADS.values())[:1], folder / "x86.cvg", target="x86:avx2")
    said, results = served([sys.executable], folder, folder / "mixed.cvg", {"PYTHONPATH": str(ROOT)})
    assert said["variant"] == "x86:avx2" and not said["sick"]
    return folder, results


@pytest.mark.parametrize("processor, variant, needs", [("cortex-a72", "arm:cortex-a72", set()), ("neoverse-n1", "arm:neoverse-n1", {"asimddp"}), ("max", "arm:neoverse-v1", {"asimddp", "i8mm"})])
def test_the_library_serves(made, processor, variant, needs):
    """Bytes exactly as on x86, floats to rounding, in three threads."""
    folder, here = made
    said, there = emulated(folder, folder / "mixed.cvg", processor)
    assert (said["family"], said["variant"], said["shim"], said["sick"]) == ("arm", variant, "shim-arm.so", [])
    assert needs <= set(said["features"])
    assert np.array_equal(here["k3"], there["k3"]) and here["k3"].dtype == np.uint8 and len(np.unique(here["k3"])) > 10
    for key, tolerance in (("k0", 2e-5), ("k1", 2e-3), ("k2", 2e-5)):
        assert there[key].dtype == here[key].dtype
        np.testing.assert_allclose(there[key].astype(np.float64), here[key].astype(np.float64), rtol=0, atol=tolerance * np.abs(here[key]).max())


def test_a_library_for_x86_is_refused_there(made):
    said, _ = emulated(made[0], made[0] / "x86.cvg", "max")
    assert "cannot run on this machine (it is for x86 and this machine is arm)" in said["error"]
