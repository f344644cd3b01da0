"""Fixtures of tests on the driver of tests."""

import shutil

import pytest

from convgen.runtime import cuda, load

from . import library
from .device import HERE, Machine, build_driver, build_kernels


@pytest.fixture(scope="session")
def cuda_files(tmp_path_factory):
    """(the driver, the emulated kernels of the test library)."""
    folder = tmp_path_factory.mktemp("cuda")
    return build_driver(folder), build_kernels(HERE / "kernels.cu", folder / "kernels.so")


@pytest.fixture
def machine(cuda_files, monkeypatch):
    """A machine with two different devices; nothing of it is left behind."""
    monkeypatch.setenv("FAKE_CUDA_DEVICES", "8.0 NVIDIA A100,9.0 NVIDIA H100")
    monkeypatch.setenv("FAKE_CUDA_CODE", str(cuda_files[1]))
    monkeypatch.setattr(cuda, "LIBRARY", str(cuda_files[0]))
    monkeypatch.setattr(cuda, "_driver", None)
    machine = Machine(cuda_files[0])
    machine.forget()
    machine.limit("shared", 99 << 10)
    yield machine
    machine.capture(False)
    machine.context(None)


@pytest.fixture(scope="session")
def gpu_library(kernels, tmp_path_factory):
    """A library with variants for sm_80, sm_90 and the CPU."""
    with pytest.MonkeyPatch.context() as patch:
        return library.link(patch, tmp_path_factory.mktemp("gpu") / "ops.cvg", ["sm_80", "sm_90"], {"x86:avx2": kernels["x86:avx2"]})


@pytest.fixture
def gpu_path(gpu_library, tmp_path):
    """A copy of it to load or to damage."""
    return shutil.copytree(gpu_library, tmp_path / "ops.cvg")


@pytest.fixture
def gpu_lib(machine, gpu_library, tmp_path):
    return load(gpu_library, name=f"gpu_{tmp_path.name}")
