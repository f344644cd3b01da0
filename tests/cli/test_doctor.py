"""`convgen doctor`: findings about installation, machine and cache."""

import importlib.metadata
import json

import pytest

from convgen import cache
from convgen.cli import doctor
from convgen.runtime import cuda

examine_kernel = doctor._kernel


@pytest.fixture(autouse=True)
def no_kernel(monkeypatch):
    """The kernel that doctor compiles has its own test, with a compiler."""
    monkeypatch.setattr(doctor, "_kernel", lambda: ("kernel", "ok", "not run"))


def findings(run, *words):
    result = run("doctor", "--json", *words)
    return result.code, {row["name"]: row for row in json.loads(result.out)}


def test_everything_is_reported(run, home):
    code, found = findings(run)
    assert {"python", "numpy", "apache-tvm-ffi", "apache-tvm", "torch", "C compiler", "target", "cache", "records"} <= set(found)
    assert str(home / "cache") in found["cache"]["detail"] and str(home) in found["records"]["detail"]
    assert code == 0 or any(row["status"] == "WRONG" for row in found.values())


def test_wrong_and_missing_versions(run, monkeypatch):
    real = importlib.metadata.version

    def version(name):
        if name == "onnxruntime":
            raise importlib.metadata.PackageNotFoundError(name)
        return {"apache-tvm": "0.26.0", "apache-tvm-ffi": "0.1.14.post1", "torch": "2.13.0+cpu"}.get(name) or real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: [
        "numpy>=1.26", "apache-tvm-ffi<0.1.15,>=0.1.14", "apache-tvm==0.27.0.post1; extra == 'tune'", 'torch==2.13.0; extra == "torch"'])
    code, found = findings(run)
    assert code == 1
    assert found["apache-tvm"]["status"] == "WRONG" and "0.26.0, but convgen[tune] was tested with 0.27.0.post1" in found["apache-tvm"]["detail"]
    assert (found["onnxruntime"]["status"], found["torch"]["status"], found["apache-tvm-ffi"]["status"]) == ("absent", "ok", "ok")


def test_without_a_compiler_no_kernel_is_run(run, monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    code, found = findings(run)
    assert found["C compiler"]["status"] == "absent" and "kernel" not in found


def test_a_failing_kernel_is_a_finding(monkeypatch):
    import convgen.api
    monkeypatch.setattr(convgen.api, "compile", lambda w: 1 / 0)
    assert examine_kernel() == ("kernel", "WRONG", "ZeroDivisionError: division by zero")


def test_the_kernel_is_compared_with_the_oracle(monkeypatch):
    import convgen.api
    monkeypatch.setattr(convgen.api, "compile", lambda w: lambda **tensors: w.reference(**tensors))
    assert examine_kernel()[1] == "ok"
    monkeypatch.setattr(convgen.api, "compile", lambda w: lambda **tensors: w.reference(**tensors) + 1)
    assert examine_kernel()[1] == "WRONG"


def test_cuda_devices(run, machine, monkeypatch):
    assert findings(run)[1]["CUDA"] == {"name": "CUDA", "status": "ok",
                                        "detail": "driver for CUDA 13.0, cuda:0 (NVIDIA A100, sm_80), cuda:1 (NVIDIA H100, sm_90)"}
    monkeypatch.setattr(cuda, "_driver", None)
    monkeypatch.setattr(cuda, "LIBRARY", "libcuda-absent.so.1")
    code, found = findings(run)
    assert found["CUDA"]["status"] == "absent" and "there is no usable NVIDIA driver here" in found["CUDA"]["detail"]


def test_targets_say_what_runs_here(run, machine, monkeypatch):
    def status():
        return {row["name"]: row["status"] for row in json.loads(run("targets", "--json").out)}

    assert status()["cuda:sm_86"] == "runs here"  # as PTX
    monkeypatch.setattr(cuda, "_driver", None)
    monkeypatch.setenv("FAKE_CUDA_DEVICES", "8.0 NVIDIA A100")
    assert status()["cuda:sm_80"] == "runs here" and "cuda:0 (NVIDIA A100, sm_80) cannot run that" in status()["cuda:sm_90"]


def test_clear_cache(run):
    cache.entry("aa11", lambda folder: (folder / "k").write_bytes(b"123"))
    assert "1 kernels, 3 B" in findings(run)[1]["cache"]["detail"]
    assert "0 kernels, 0 B, 1 removed" in findings(run, "--clear-cache")[1]["cache"]["detail"]
