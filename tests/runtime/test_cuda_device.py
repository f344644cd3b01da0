"""What only a real device can show of a library's CUDA variants: streams, graphs, the driver's own checks. Skipped where there is none.

The library is $CONVGEN_CUDA_LIBRARY, exported elsewhere for the workloads below, so that the machine needs no compiler; else it is
exported here. No machine of ours has run this file yet.
"""

import importlib.util
import os
import threading

import pytest
import torch
import torch.nn.functional as F

import convgen
from convgen.emit import nvcc

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device and a torch that knows it")
DENSE = "conv2d:n1,c16,o32,h28,w28,k3x3;padding=1:f32.f32.f32:nchw:bias"
BATCH = "depthwise_conv2d:n8+,c32,h14,w14,k3x3;padding=1:f32.f32.f32:nhwc"


@pytest.fixture(scope="module")
def lib(tmp_path_factory):
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    path = os.environ.get("CONVGEN_CUDA_LIBRARY")
    if path is None:
        if nvcc.find() is None or importlib.util.find_spec("tvm") is None:
            pytest.skip("needs $CONVGEN_CUDA_LIBRARY, or nvcc and apache-tvm to make a library")
        major, minor = torch.cuda.get_device_capability()
        path = str(tmp_path_factory.mktemp("cuda") / "device.cvg")
        convgen.export([convgen.workload(DENSE), convgen.workload(BATCH)], path, target=[f"cuda:sm_{major}{minor}", "x86:avx2"])
    return convgen.load(path, name="on_device")


def tensors(device="cuda:0", seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).to(device) for shape in ((1, 16, 28, 28), (32, 16, 3, 3), (32,))]


def close(y, wanted):
    torch.testing.assert_close(y, wanted, rtol=1e-4, atol=1e-4)


def test_health(lib):
    assert {f.device for f in lib.selftest() if not f.problem} >= {"cuda:0"}


def test_results(lib):
    x, w, b = tensors()
    for _ in range(2):
        close(lib.conv2d(x, w, b, padding=1), F.conv2d(x, w, b, padding=1))
        close(lib.conv2d(x.cpu(), w.cpu(), b.cpu(), padding=1), F.conv2d(x, w, b, padding=1).cpu())
    for n in (1, 8, 5):
        x, w = torch.randn(n, 32, 14, 14, device="cuda").to(memory_format=torch.channels_last), torch.randn(32, 1, 3, 3, device="cuda")
        y = lib.depthwise_conv2d(x, w, padding=1)
        close(y, F.conv2d(x, w, padding=1, groups=32))
        assert y.is_contiguous(memory_format=torch.channels_last)
    print(lib.explain("depthwise_conv2d", x, w, padding=1))


def test_every_stream_in_order(lib):
    """Each call's input is written by a slow kernel on the same stream just before."""
    x, w, b = tensors()
    f, wanted = lib.bind("conv2d", weight=w, bias=b, padding=1), F.conv2d(x * 3, w, b, padding=1)
    f(x)
    torch.cuda.synchronize()
    for _ in range(200):
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            late = torch.zeros_like(x)
            torch.cuda._sleep(200_000)
            late.copy_(x).mul_(3)
            bound, free = f(late), lib.conv2d(late, w, b, padding=1)
        stream.synchronize()
        close(bound, wanted), close(free, wanted)


def test_graphs(lib):
    x, w, b = tensors()
    f = lib.bind("conv2d", weight=w, bias=b, padding=1)
    lib.warmup()
    f(x), lib.conv2d(x, w, b, padding=1)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        bound, free = f(x), lib.conv2d(x, w, b, padding=1)
    for seed in range(20):
        x.copy_(tensors(seed=seed)[0])
        graph.replay()
        torch.cuda.synchronize()
        close(bound, F.conv2d(x, w, b, padding=1)), close(free, bound)


def test_updates_while_other_threads_call(lib):
    x, w, b = tensors()
    f, wrong, done = lib.bind("conv2d", weight=w, bias=b, padding=1), [], threading.Event()
    good = [F.conv2d(x, w * k, b, padding=1) for k in range(3)]

    def work():
        with torch.cuda.stream(torch.cuda.Stream()):
            while not done.is_set():
                y = f(x)
                torch.cuda.current_stream().synchronize()
                if not any(torch.allclose(y, g, rtol=1e-4, atol=1e-4) for g in good):
                    wrong.append(y)

    f(x), torch.cuda.synchronize()
    workers = [threading.Thread(target=work) for _ in range(4)]
    [t.start() for t in workers]
    for k in range(60):
        f.update(weight=w * (k % 3))
    done.set()
    [t.join() for t in workers]
    assert not wrong


def test_torch_compile(lib):
    x, w, b = tensors()
    block = torch.compile(lambda x: torch.ops.convgen_on_device.conv2d(x, w, b, [1], [1]) + 1, fullgraph=True)
    with torch.no_grad():
        close(block(x), F.conv2d(x, w, b, padding=1) + 1)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs a second CUDA device")
def test_a_device_that_is_not_current(lib):
    x, w, b = tensors("cuda:1")
    y = lib.conv2d(x, w, b, padding=1)
    assert y.device == x.device and torch.cuda.current_device() == 0
    close(y, F.conv2d(x, w, b, padding=1))
