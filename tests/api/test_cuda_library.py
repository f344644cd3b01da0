"""From workloads to a library with CUDA variants and to results: really emitted and compiled, run by emulation on a driver of tests."""

import json
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import convgen
from convgen import building, exporting
from convgen.cli import main
from convgen.emit import nvcc
from convgen.errors import TargetError
from convgen.runtime import cuda
from convgen.targets import resolve
from convgen.tune.records import Store
from tests.cuda_driver.device import Array, build_kernels
from tests.emit.workloads import HARD, workload

TARGETS = ["cuda:sm_80", "cuda:sm_90", "x86:avx2"]


def integers(tensors, seed=0):
    """Small integers in the shapes of a sample, so that sums are exact."""
    rng = np.random.default_rng(seed)
    return {name: rng.integers(-3, 4, np.shape(value)).astype(np.float32) for name, value in tensors.items()}


def last(x):
    """The same tensor with its channels last in memory."""
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


@pytest.mark.skipif(nvcc.find() is None, reason="compiling for CUDA needs nvcc")
def test_export_load_call(machine, home, monkeypatch):
    dense = convgen.operator("conv2d")(N=1, C=3, O=5, H=7, W=6, kernel=3, padding=1, bias=True, activation="relu")
    batch = convgen.operator("depthwise_conv2d")(N=2, C=6, H=5, W=5, kernel=3, stride=2, padding=1, any_batch=True, layout="NHWC")
    report = convgen.export({"dense": dense, "depthwise": batch}, home / "net.cvg", target=TARGETS, threads=(1, 2))
    assert [(row.name, row.target, row.threads) for row in report.rows if row.target != "x86:avx2"] == [
        ("dense", "cuda:sm_80", 1), ("depthwise", "cuda:sm_80", 1), ("dense", "cuda:sm_90", 1), ("depthwise", "cuda:sm_90", 1)]

    # The same kernels once more, for their source: what nvcc makes of it elsewhere is the same, byte for byte.
    plans = [building.plan(w, resolve("cuda:sm_80"), Store.open(None)) for w in (dense, batch)]
    (home / "again").mkdir()
    entries = building.build(plans, home / "again")
    code = [str(build_kernels(home / "again" / entry["source"], home / f"{entry['symbol']}.so")) for entry in entries]
    with zipfile.ZipFile(home / "net.cvg" / "kernels-cuda-sm_80.zip") as archive:
        for entry in entries:
            assert archive.read(f"{entry['symbol']}.cubin") == (home / "again" / entry["object"]).read_bytes()
            assert b".target sm_80" in archive.read(f"{entry['symbol']}.ptx")
        assert all(str(home).encode() not in archive.read(name) for name in archive.namelist())

    monkeypatch.setenv("FAKE_CUDA_DEVICES", "8.0 NVIDIA A100")
    monkeypatch.setenv("FAKE_CUDA_CODE", ":".join(code))
    library = convgen.load(home / "net.cvg", name="test_cuda_export", expect_sha256=report.sha256)
    given = integers(dense.sample(0))
    wanted = dense.reference(**given)
    for _ in range(2):
        assert np.array_equal(library.conv2d(**given, padding=1, activation="relu"), wanted)
        y = library.conv2d(**{n: Array(v) for n, v in given.items()}, padding=1, activation="relu")
        assert np.array_equal(y.host, wanted)
    bound = library.bind("conv2d", weight=Array(given["weight"]), bias=Array(given["bias"]), padding=1, activation="relu")
    assert np.array_equal(bound(Array(given["x"])).host, wanted)
    for n in (1, 3):
        w = convgen.operator("depthwise_conv2d")(N=n, C=6, H=5, W=5, kernel=3, stride=2, padding=1, layout="NHWC")
        given = integers(w.sample(0), n)
        y = library.depthwise_conv2d(Array(last(given["x"])), Array(given["weight"]), stride=2, padding=1)
        assert np.array_equal(y.host, w.reference(**given)) and y.host.strides == last(y.host).strides
    assert not any(finding.problem for finding in library.selftest())

    # A kernel of one workload takes the same way.
    kernel = convgen.compile(dense, target="cuda:sm_80")
    given = integers(dense.sample(0))
    assert np.array_equal(kernel(**{name: Array(value) for name, value in given.items()}).host, wanted)
    assert kernel.explain(**{name: Array(value) for name, value in given.items()}).code == "sm_80"


@pytest.mark.slow
@pytest.mark.skipif(nvcc.find() is None, reason="compiling for CUDA needs nvcc")
def test_every_operator(machine, home, monkeypatch):
    """One awkward shape of each, from one library: whatever an operator asks of calls, memory and launches, CUDA variants give."""
    cases = [workload(name, texts[0]) for name, texts in HARD.items()]
    target = resolve("cuda:sm_80")
    plans = [building.plan(w, target, Store.open(None)) for w in cases]
    entries = building.build(plans, home, 2)
    exporting.write(home / "all.cvg", "all", [(target, cases, entries)], home)
    with ThreadPoolExecutor(2) as pool:
        code = list(pool.map(lambda entry: str(build_kernels(home / entry["source"], home / f"{entry['symbol']}.so")), entries))
    monkeypatch.setenv("FAKE_CUDA_DEVICES", "8.0 NVIDIA A100")
    monkeypatch.setenv("FAKE_CUDA_CODE", ":".join(code))
    library = convgen.load(home / "all.cvg", name="test_cuda_operators")
    for w, entry in zip(cases, entries):
        given = {name: np.asarray(value) for name, value in w.sample(0).items()}
        wanted = np.asarray(w.reference(**given), np.float64)
        perms = {t.name: t.permutation(w.layout) for t in w.program.tensors}
        tensors = {n: Array(np.ascontiguousarray(v.transpose(perms[n])).transpose(np.argsort(perms[n]))) for n, v in given.items()}
        attributes = {n: listed(v) for n, v in entry["attributes"].items()}
        for y in (getattr(library, w.operator)(**tensors, **attributes), library.bind(w.operator, **{
                t.name: tensors[t.name] for t in w.program.tensors if t.kind == "param"}, **attributes)(**{
                t.name: tensors[t.name] for t in w.program.tensors if t.kind == "input"})):
            np.testing.assert_allclose(y.host, wanted, rtol=2e-4, atol=2e-4 * np.abs(wanted).max(), err_msg=w.id)
    assert not any(finding.problem for finding in library.selftest())


def listed(value):
    """Tuples for the lists that JSON made of them."""
    return tuple(map(listed, value)) if isinstance(value, list) else value


def test_compile_for_a_device_that_is_not_here(compiler, conv, monkeypatch, machine):
    monkeypatch.setenv("FAKE_CUDA_DEVICES", "7.5 NVIDIA T4")
    with pytest.raises(TargetError, match=r"target 'cuda:sm_90' cannot run here: it is for sm_90 and cuda:0 .NVIDIA T4, sm_75. cannot run that"):
        convgen.compile(conv(), target="cuda:sm_90")
    monkeypatch.setattr(cuda, "_driver", None)
    monkeypatch.setattr(cuda, "LIBRARY", "libcuda-absent.so.1")
    with pytest.raises(TargetError, match="target 'cuda:sm_80' cannot run here: there is no usable NVIDIA driver here") as caught:
        convgen.compile(conv(), target="cuda:sm_80")
    assert "\n" not in str(caught.value) and compiler.built == []


def test_export_without_nvcc(machine, home, monkeypatch):
    from convgen.export import cuda as packing
    from convgen.errors import LibraryError
    from tests.cuda_driver import library

    monkeypatch.setattr(packing.nvcc, "find", lambda: None)
    with pytest.raises(LibraryError, match="exporting for CUDA needs nvcc of the CUDA toolkit, found neither by CUDA_PATH"):
        library.link_library(library.variants(["sm_80"], home), library.SIGNATURES, home / "x.cvg", "x")
    assert not (home / "x.cvg").exists()


def test_inspect_on_a_machine_without_cuda(gpu_library, monkeypatch, capsys):
    monkeypatch.setattr(cuda, "_driver", None)
    monkeypatch.setattr(cuda, "LIBRARY", "libcuda-absent.so.1")
    assert main(["inspect", os.fspath(gpu_library)]) == 0
    text = capsys.readouterr().out
    assert "cuda:sm_80  (kernels-cuda-sm_80.zip, with PTX for later devices, made by CUDA 13.0, does not run here: there is no usable NVIDIA driver" in text
    assert "cuda:sm_90  (kernels-cuda-sm_90.zip, made by CUDA 13.0, does not run here" in text
    assert main(["inspect", os.fspath(gpu_library), "--json"]) == 0
    variant = json.loads(capsys.readouterr().out)["variants"][0]
    assert variant["cuda"] == {"driver": 13000, "ptx": True, "toolkit": 13000} and Path(gpu_library, variant["file"]).is_file()
