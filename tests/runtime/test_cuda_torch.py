"""CUDA variants under torch. This torch knows no CUDA, so its CPU tensors are taken for tensors on cuda:0: every path of a call is the
real one, down to the launches, and only what torch itself would do for a device is put in its place."""

import threading
import types

import pytest
import torch
import torch.nn.functional as F

from convgen.errors import ArgumentError, NoKernel
from convgen.runtime import arrays, load, native

from .test_call import W, X, whole

WANTED = F.conv2d(X, W, padding=1)


class Gpu:
    """torch.cuda as far as calls use it. `stream` is the current one; `allocated` and `recorded` list what was asked of the allocator."""

    def __init__(self):
        self.stream, self.allocated, self.recorded = 0, [], []


@pytest.fixture
def gpu(machine, monkeypatch):
    gpu = Gpu()
    monkeypatch.setattr(native, "CUDA", 1)
    monkeypatch.setattr(arrays, "place", lambda device: "cuda:0")
    for name in ("empty", "empty_strided"):
        def make(*size, _real=getattr(torch, name), device=None, **options):
            gpu.allocated.append((str(device), size))
            return _real(*size, **options)
        monkeypatch.setattr(torch, name, make)
    monkeypatch.setattr(torch._C, "_cuda_getCurrentRawStream", lambda index: gpu.stream, raising=False)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda index: types.SimpleNamespace(cuda_stream=gpu.stream))
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: gpu.recorded.append((tensor.data_ptr(), stream.cuda_stream)))
    return gpu


def streams(machine):
    return [line.rpartition("stream ")[2] for line in machine.calls("cuLaunchKernel")]


def test_calls(gpu_lib, gpu, machine):
    for gpu.stream in (0, 0x7000, 0x7000, 0x8000):
        machine.forget()
        assert torch.equal(gpu_lib.conv2d(X, W, padding=1), WANTED)
        assert streams(machine) == [hex(gpu.stream) if gpu.stream else "0"] * 3
    gpu.allocated.clear()
    machine.capture(True)
    assert torch.equal(gpu_lib.conv2d(X, W, None, 1, 1), WANTED) and torch.equal(gpu_lib.conv2d(X, W, None, 1, 1), WANTED)
    assert gpu_lib.stats()["calls"][gpu_lib.explain("conv2d", X, W, padding=1).kernel] == 6
    # The remembered call takes the result and its scratch memory from torch: 576 floats of packed weights and padded input, in steps of 256 bytes.
    assert gpu.allocated[-2:] == [("cuda:0", ((1, 8, 6, 6), (288, 36, 6, 1))), ("cuda:0", (1280 + 1024,))]
    assert {line.split()[0] for line in machine.calls()} == {"cuLaunchKernel"}


def test_any_batch_and_two_inputs(gpu_lib, gpu):
    for n in (1, 7, 1):
        x = whole(n, 4, 5, 5, seed=n)
        assert torch.equal(gpu_lib.conv2d(x, W, padding=1), F.conv2d(x, W, padding=1))
    x, gate = whole(2, 3, 4, 5), whole(2, 3, seed=1)
    f = gpu_lib.bind("gate2d")
    for _ in range(2):
        assert torch.equal(f(x, gate), x * gate[:, :, None, None])


def test_what_cannot_be_read_in_place_is_copied(gpu_lib, gpu):
    shifted = torch.empty(X.numel() + 1)[1:].view(X.shape).copy_(X)
    assert torch.equal(gpu_lib.conv2d(shifted, W, padding=1), WANTED)
    assert torch.equal(gpu_lib.conv2d(torch.repeat_interleave(X, 2, -1)[..., ::2], W, padding=1), WANTED)
    assert gpu_lib.stats()["copies"] == {"conv2d.x": 2}


def test_bound(gpu_lib, gpu, machine):
    gpu.stream = 0x7000
    f = gpu_lib.bind("conv2d", weight=W, padding=1)
    assert torch.equal(f(X), WANTED)
    assert machine.calls("cuStreamSynchronize")[-1] == "cuStreamSynchronize 0x7000"  # what was prepared may now be read from any stream
    machine.forget()
    gpu.recorded.clear()
    machine.capture(True)
    for gpu.stream in (0x7000, 0x8000, 0x8000, 0x7000):
        assert torch.equal(f(X), WANTED)
    out = torch.empty_like(WANTED)
    assert f(X, out=out) is out and torch.equal(out, WANTED)
    machine.capture(False)
    assert streams(machine) == ["0x7000"] * 2 + ["0x8000"] * 4 + ["0x7000"] * 4
    assert {line.split()[0] for line in machine.calls()} == {"cuLaunchKernel"}
    # The allocator hears once of every stream that reads the prepared weight.
    assert sorted(stream for _, stream in gpu.recorded) == [0x7000, 0x8000] and len({pointer for pointer, _ in gpu.recorded}) == 1
    f.update(weight=W * 2)
    assert torch.equal(f(X), WANTED * 2)


def test_updates_are_whole(gpu_lib, gpu):
    f, wrong, done = gpu_lib.bind("conv2d", weight=W, padding=1), [], threading.Event()
    good = [WANTED * k for k in range(4)]

    def work():
        while not done.is_set():
            y = f(X)
            if not any(torch.equal(y, g) for g in good):
                wrong.append(y)

    threads = [threading.Thread(target=work) for _ in range(4)]
    [t.start() for t in threads]
    for k in range(30):
        f.update(weight=W * (k % 4))
    done.set()
    [t.join() for t in threads]
    assert not wrong


def test_gradients_are_refused(gpu_lib, gpu):
    for call in (lambda x: gpu_lib.conv2d(x, W, padding=1), gpu_lib.bind("conv2d", weight=W, padding=1)):
        call(X)
        with pytest.raises(RuntimeError, match="requires grad, and this kernel has no gradient"):
            call(X.clone().requires_grad_())


def test_torch_ops(gpu_library, gpu, machine, tmp_path):
    lib = load(gpu_library, name=f"ops_{tmp_path.name}")
    conv2d = getattr(torch.ops, f"convgen_{lib.name}").conv2d
    for _ in range(2):
        assert torch.equal(conv2d(X, W, None, [1], [1]), WANTED)
    for key in ("CPU", "CUDA", "AutogradCPU", "AutogradCUDA"):
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"convgen_{lib.name}::conv2d", key)


def test_fake_tensors_on_a_device(gpu_lib, machine):
    """Tracing asks neither the driver nor a kernel."""
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode():
        x, weight = torch.empty(1, 4, 6, 6, device="cuda:0"), torch.empty(8, 4, 3, 3, device="cuda:0")
        y = getattr(torch.ops, f"convgen_{gpu_lib.name}").conv2d(x, weight, None, [1], [1])
    assert y.shape == (1, 8, 6, 6) and str(y.device) == "cuda:0" and machine.calls() == []


def test_mixed_devices(gpu_lib, gpu, monkeypatch):
    assert torch.equal(gpu_lib.conv2d(X, W, padding=1), WANTED)
    places = iter(["cuda:0", "cpu"])
    monkeypatch.setattr(arrays, "place", lambda device: next(places))
    with pytest.raises(ArgumentError, match="all tensors of a call must be on one device, got x on cuda:0 and weight on cpu"):
        gpu_lib.conv2d(X.clone()[:, :, :5, :5], W, padding=1)


def test_missing_kernels_by_torch(gpu_library, gpu, machine, monkeypatch, tmp_path):
    from convgen.ops import table

    monkeypatch.setenv("FAKE_CUDA_DEVICES", "7.5 NVIDIA T4")
    lib = load(gpu_library, name=f"missing_{tmp_path.name}", on_missing="torch")
    assert table.baseline("conv2d") is not None
    with pytest.warns(RuntimeWarning, match=r"does not serve tensors on cuda:0: nothing in it runs on cuda:0 .NVIDIA T4, sm_75.*computing it with PyTorch"):
        assert torch.allclose(lib.conv2d(X, W, padding=1), WANTED)
    f = lib.bind("conv2d", weight=W, padding=1)
    assert torch.allclose(f(X), WANTED) and lib.stats()["missing"] == {"conv2d": 2}
    assert load(gpu_library, name=f"strict_{tmp_path.name}").on_missing == "error"
    with pytest.raises(NoKernel):
        load(gpu_library, name=f"strict_{tmp_path.name}").conv2d(X, W, padding=1)
