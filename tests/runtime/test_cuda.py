"""CUDA variants on a driver that runs kernels on the processor: results, streams, devices, and what is never called."""

import threading

import numpy as np
import pytest

from convgen.errors import ArgumentError, Error, NoKernel
from tests.cuda_driver import library
from tests.cuda_driver.device import Array

RNG = np.random.default_rng(0)
X, X5 = RNG.integers(-3, 4, (1, 4, 6, 6)).astype(np.float32), RNG.integers(-3, 4, (5, 4, 5, 5)).astype(np.float32)
W = RNG.integers(-3, 4, (8, 4, 3, 3)).astype(np.float32)
PREPARED, BATCH, _ = (entry["id"] for entry in library.entries("sm_80"))


def conv(x, w=W):
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    return sum(np.einsum("nchw,oc->nohw", padded[:, :, i:i + x.shape[2], j:j + x.shape[3]], w[:, :, i, j]) for i in range(3) for j in range(3))


def test_cpu_and_both_devices_at_once(gpu_lib, machine):
    assert np.array_equal(gpu_lib.conv2d(X, W, padding=1), conv(X))
    assert machine.calls() == []  # a library that is used on the CPU leaves the driver alone
    for index in (0, 1, 0):
        y = gpu_lib.conv2d(Array(X, index), Array(W, index), padding=1)
        assert isinstance(y, Array) and y.index == index and np.array_equal(y.host, conv(X))
        explained = gpu_lib.explain("conv2d", Array(X, index), Array(W, index), padding=1)
        isa = ("sm_80", "sm_90")[index]
        assert (explained.target, explained.code, explained.device, explained.launches) == (f"cuda:{isa}", isa, f"cuda:{index}", 3)
    assert machine.calls("cuModuleLoadDataEx") == ["cuModuleLoadDataEx 0 cubin 80", "cuModuleLoadDataEx 1 cubin 90"]
    assert gpu_lib.stats()["calls"][PREPARED] == 4
    assert {PREPARED, BATCH} <= set(gpu_lib.workloads()) and gpu_lib.variant == "x86:avx2"
    cpu = gpu_lib.explain("conv2d", X, W, padding=1)
    assert cpu.device == "cpu" and ("cuda:sm_90", "it is for tensors on CUDA devices") in cpu.refused


def test_a_warm_call_only_launches(gpu_lib, machine):
    """So it may be captured: the driver refuses everything else while it is."""
    x, w, x5 = Array(X), Array(W), Array(X5)
    gpu_lib.conv2d(x, w, padding=1), gpu_lib.conv2d(x5, w, padding=1)
    f = gpu_lib.bind("conv2d", weight=w, padding=1)
    f(x)
    machine.forget()
    machine.capture(True)
    for y, wanted in ((gpu_lib.conv2d(x, w, padding=1), X), (gpu_lib.conv2d(x5, w, padding=1), X5), (f(x), X)):
        assert np.array_equal(y.host, conv(wanted))
    assert {line.split()[0] for line in machine.calls()} == {"cuLaunchKernel"}
    assert [line.split()[1] for line in machine.calls()] == [
        "conv_prepare_kernel", "conv_run_kernel", "conv_run_kernel_1", "batch_run_kernel", "conv_run_kernel", "conv_run_kernel_1"]


def test_a_first_call_cannot_be_captured(gpu_lib, machine):
    machine.capture(True)
    for _ in range(2):
        with pytest.raises(Error, match="CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED .a stream is being captured: call lib.warmup.., and bind, before that"):
            gpu_lib.conv2d(Array(X), Array(W), padding=1)
    machine.capture(False)
    gpu_lib.warmup()
    machine.capture(True)
    assert np.array_equal(gpu_lib.conv2d(Array(X), Array(W), padding=1).host, conv(X))


def test_the_stream_is_the_callers(gpu_lib, machine):
    import tvm_ffi

    x, w = Array(X, 1), Array(W, 1)
    gpu_lib.conv2d(x, w, padding=1)
    assert x.streams == [1] and all(line.endswith("stream 0") for line in machine.calls("cuLaunchKernel"))
    machine.forget()
    with tvm_ffi.use_raw_stream(tvm_ffi.device("cuda", 1), 0x7000):
        gpu_lib.conv2d(x, w, padding=1)
    assert x.streams == [1, 0x7000]
    launches = machine.calls("cuLaunchKernel")
    assert len(launches) == 3 and all("device 1 " in line and line.endswith("stream 0x7000") for line in launches)


@pytest.mark.parametrize("before", [None, 0, 1])
def test_whatever_context_the_thread_has(gpu_lib, machine, before):
    gpu_lib.conv2d(Array(X), Array(W), padding=1), gpu_lib.conv2d(Array(X, 1), Array(W, 1), padding=1)
    machine.context(before)
    for index in (0, 1):
        assert np.array_equal(gpu_lib.conv2d(Array(X, index), Array(W, index), padding=1).host, conv(X))
        assert machine.current() == before
    machine.context(None)


def test_any_batch(gpu_lib, machine):
    for n in (1, 3, 9):
        x = np.resize(X5, (n, 4, 5, 5))
        assert np.array_equal(gpu_lib.conv2d(Array(x), Array(W), padding=1).host, conv(x))
    assert [line.partition("grid ")[2].split()[0] for line in machine.calls("cuLaunchKernel")] == ["2", "5", "15"]


def test_out_and_strides(gpu_lib):
    out = Array(np.zeros((1, 8, 6, 6), np.float32))
    assert gpu_lib.conv2d(Array(X), Array(W), padding=1, out=out) is out and np.array_equal(out.host, conv(X))
    with pytest.raises(ArgumentError, match="x must lie compact in the kernel's memory format, aligned to 64 bytes; on CUDA devices only torch"):
        gpu_lib.conv2d(Array(X, offset=4), Array(W), padding=1)
    with pytest.raises(ArgumentError, match="out must be on the device of the inputs .cuda:0., got cuda:1"):
        gpu_lib.conv2d(Array(X), Array(W), padding=1, out=Array(out.host, 1))


def test_bound(gpu_lib, machine):
    w = Array(W, 1)
    f = gpu_lib.bind("conv2d", weight=w, padding=1)
    assert np.array_equal(f(Array(X, 1)).host, conv(X))  # the weight fits two kernels, so the first call prepares it for this one
    assert [line.split()[:2] for line in machine.calls("cuStreamSynchronize", "cuLaunchKernel")][:3] == [
        ["cuStreamSynchronize", "0"], ["cuLaunchKernel", "conv_prepare_kernel"], ["cuStreamSynchronize", "0"]]
    machine.forget()
    assert np.array_equal(f(Array(X, 1)).host, conv(X)) and f.nbytes == 2 * W.nbytes
    assert not machine.calls("cuStreamSynchronize")
    w.host[...] = 0
    assert np.array_equal(f(Array(X, 1)).host, conv(X))
    f.update(weight=Array(W + 1, 1))
    assert np.array_equal(f(Array(X, 1)).host, conv(X, W + 1))
    assert [line.split()[1] for line in machine.calls("cuLaunchKernel")].count("conv_prepare_kernel") == 1
    with pytest.raises(ArgumentError, match="all tensors of a call must be on one device, got x on cuda:0 and weight on cuda:1"):
        f(Array(X))
    f.update(weight=Array(W, 0))  # to another device
    assert np.array_equal(f(Array(X)).host, conv(X))


def test_bound_without_parameters_serves_every_device(gpu_lib, machine):
    f = gpu_lib.bind("gate2d")
    x, gate = RNG.random((2, 3, 4, 5), np.float32), RNG.random((2, 3), np.float32)
    wanted = x * gate[:, :, None, None]
    assert np.array_equal(f(x, gate), wanted)
    assert np.array_equal(f(Array(x), Array(gate)).host, wanted) and np.array_equal(f(Array(x, 1), Array(gate, 1)).host, wanted)
    assert machine.calls("cuFuncSetAttribute") == ["cuFuncSetAttribute gate_run_kernel 8 60000"] * 2  # dynamic shared memory beyond 48 KiB


def test_mixed_devices(gpu_lib):
    with pytest.raises(ArgumentError, match="conv2d: all tensors of a call must be on one device, got x on cuda:0 and weight on cpu"):
        gpu_lib.conv2d(Array(X), W, padding=1)
    with pytest.raises(NoKernel, match="does not serve tensors on cuda:2: there is no device cuda:2 here, the driver finds 2"):
        gpu_lib.conv2d(Array(X, 2), Array(W, 2), padding=1)


def test_a_block_that_does_not_fit(gpu_lib, machine):
    machine.limit("shared", 48 << 10)
    x, gate = Array(np.ones((2, 3, 4, 5), np.float32)), Array(np.ones((2, 3), np.float32))
    with pytest.raises(NoKernel, match=r"gate_run_kernel needs 60000 bytes of shared memory per block and cuda:0 \(NVIDIA A100, sm_80\) offers 49152"):
        gpu_lib.gate2d(x, gate)


def test_a_failing_launch_says_so(gpu_lib, monkeypatch):
    monkeypatch.setenv("FAKE_CUDA_FAIL", "719")
    with pytest.raises(Error, match=r"the kernel .* failed: CUDA error 719 CUDA_ERROR_LAUNCH_FAILED: unspecified launch failure"):
        gpu_lib.conv2d(Array(X), Array(W), padding=1)


def test_many_threads(gpu_lib, machine):
    """Eight threads, both devices and the CPU: every module is loaded once per device."""
    wrong = []

    def work(seed):
        rng = np.random.default_rng(seed)
        for _ in range(10):
            x, index = rng.integers(-3, 4, X.shape).astype(np.float32), int(rng.integers(3)) - 1
            y = gpu_lib.conv2d(x, W, padding=1) if index < 0 else gpu_lib.conv2d(Array(x, index), Array(W, index), padding=1).host
            if not np.array_equal(y, conv(x)):
                wrong.append((seed, index))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert not wrong and len(machine.calls("cuModuleLoadDataEx")) == 2


def test_selftest_and_warmup(gpu_lib, machine):
    findings = gpu_lib.selftest()
    assert {f.device for f in findings} == {"cpu", "cuda:0", "cuda:1"} and not any(f.problem for f in findings)
    machine.forget()
    gpu_lib.warmup()
    assert not machine.calls("cuModuleLoadDataEx") and len(machine.calls("cuMemAlloc")) == len(machine.calls("cuMemFree"))


def test_tensors_that_cannot_be_allocated(gpu_lib, monkeypatch):
    monkeypatch.delattr(Array, "__array_namespace__")
    gate = lambda: (Array(np.ones((2, 3, 4, 5), np.float32)), Array(np.full((2, 3), 2, np.float32)))  # noqa: E731
    with pytest.raises(ArgumentError, match="a tensor of Array on cuda:0 has no array namespace to allocate from; pass torch tensors, or out="):
        gpu_lib.gate2d(*gate())
    out = Array(np.zeros((2, 3, 4, 5), np.float32))
    gpu_lib.gate2d(*gate(), out=out)
    assert (out.host == 2).all()
