"""NVIDIA's compiler as convgen calls it."""

import subprocess

import pytest

from convgen.emit import nvcc
from convgen.errors import WorkerError

SOURCE = 'extern "C" __global__ void __launch_bounds__(64) twice(float* __restrict__ out, float* __restrict__ x) { __shared__ float s[64]; s[threadIdx.x] = x[threadIdx.x]; __syncthreads(); out[threadIdx.x] = 2 * s[63 - threadIdx.x]; }\n'
needs_nvcc = pytest.mark.skipif(nvcc.find() is None, reason="needs nvcc of the CUDA toolkit")


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "twice.cu"
    path.write_text(SOURCE)
    return path


@needs_nvcc
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_cubins_and_what_they_use(source, tmp_path, arch):
    used = nvcc.compile_cuda(source, tmp_path / "twice.cubin", arch)
    assert set(used) == {"twice"} and used["twice"]["registers"] > 0 and used["twice"]["spills"] == 0 and used["twice"]["shared_static"] == 256
    assert (tmp_path / "twice.cubin").read_bytes()[:4] == b"\x7fELF"


@needs_nvcc
def test_ptx(source, tmp_path):
    assert nvcc.compile_cuda(source, tmp_path / "twice.ptx", "sm_80", "ptx") == {}
    text = (tmp_path / "twice.ptx").read_text()
    assert ".target sm_80" in text and ".entry twice" in text and str(tmp_path) not in text


@needs_nvcc
def test_arithmetic_is_not_fast_math(tmp_path):
    path = tmp_path / "k.cu"
    path.write_text('extern "C" __global__ void k(float* o, float* x) { o[0] = x[0] / x[1]; o[1] = sqrtf(x[2]); o[2] = x[3] * x[4] + x[5]; }\n')
    nvcc.compile_cuda(path, tmp_path / "k.ptx", "sm_80", "ptx")
    text = (tmp_path / "k.ptx").read_text()
    assert "div.rn.f32" in text and "sqrt.rn.f32" in text and "fma.rn.f32" in text and ".ftz" not in text and ".approx" not in text


@needs_nvcc
def test_errors_are_one_sentence(source, tmp_path):
    source.write_text(SOURCE.replace("2 *", "nonsense *"))
    with pytest.raises(WorkerError, match="nvcc refuses twice.cu: .*nonsense") as caught:
        nvcc.compile_cuda(source, tmp_path / "twice.cubin", "sm_90")
    assert caught.value.kind == "compile_error"
    with pytest.raises(WorkerError, match="to cubin or ptx, got 'elf'"):
        nvcc.compile_cuda(source, tmp_path / "twice.cubin", "sm_90", "elf")


def test_a_missing_compiler_is_one_sentence(source, tmp_path, monkeypatch):
    monkeypatch.setattr(nvcc, "find", lambda: None)
    with pytest.raises(WorkerError, match="compiling for sm_90 needs nvcc of the CUDA toolkit, found neither by CUDA_PATH or CUDA_HOME nor on PATH"):
        nvcc.compile_cuda(source, tmp_path / "twice.cubin", "sm_90")


def test_a_compiler_that_hangs_is_ended(source, tmp_path, monkeypatch):
    def hang(command, **options):
        raise subprocess.TimeoutExpired(command, options["timeout"])
    monkeypatch.setattr(nvcc, "find", lambda: "nvcc")
    monkeypatch.setattr(nvcc.subprocess, "run", hang)
    with pytest.raises(WorkerError, match="did not end within 240 s") as caught:
        nvcc.compile_cuda(source, tmp_path / "twice.cubin", "sm_90")
    assert caught.value.kind == "compile_timeout"


def test_usage_is_read_per_kernel():
    log = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'first' for 'sm_90'
ptxas info    : Function properties for first
    16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 4096 bytes smem
ptxas info    : Compiling entry function 'second' for 'sm_90'
ptxas info    : Function properties for second
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 10 registers, used 0 barriers
"""
    assert nvcc.usage(log) == {"first": {"registers": 255, "spills": 20, "shared_static": 4096}, "second": {"registers": 10, "spills": 0, "shared_static": 0}}
