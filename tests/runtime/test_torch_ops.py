"""Operators as torch.ops: opcheck, torch.compile, torch.export, gradients refused, names kept apart."""

import pytest
import torch
import torch.nn.functional as F

from convgen.errors import ArgumentError, LibraryError, NoKernel
from convgen.runtime import load

from .test_call import B, LAST, W, WANTED, X, whole


@pytest.fixture(scope="module")
def ops(lib):
    return torch.ops.convgen_tested


def test_schema_is_pytorchs(ops):
    assert str(ops.conv2d.default._schema) == (
        "convgen_tested::conv2d(Tensor x, Tensor weight, Tensor? bias=None, int[2] stride=1, int[2] padding=0, int groups=1) -> Tensor")


@pytest.mark.parametrize("padding", [1, [1], [1, 1], [1, 1, 1, 1]])
def test_calls(ops, padding):
    for x in (X, X, X.to(memory_format=LAST)):
        y = ops.conv2d(x, W, None, 1, padding)
        assert torch.equal(y, WANTED) and y.stride() == F.conv2d(x, W, padding=1).stride()
    assert torch.equal(ops.conv2d(X, W, B, padding=padding), F.conv2d(X, W, B, padding=1))


@pytest.mark.parametrize("name, args", [
    ("conv2d", (X, W, None, 1, 1)), ("conv2d", (X.to(memory_format=LAST), W, None, 1, 1)), ("conv2d", (X, W, B, [1, 1], [1, 1])),
    ("gate2d", (whole(2, 3, 4, 5), whole(2, 3))), ("edge2d", (whole(1, 1, 6, 6),)), ("conv2d", (whole(3, 4, 5, 5), W, None, 1, 1)),
])
def test_opcheck(ops, name, args):
    torch.library.opcheck(getattr(ops, name).default, args)


@pytest.mark.parametrize("shape, fmt", [((1, 4, 6, 6), torch.contiguous_format), ((5, 4, 9, 7), LAST), ((2, 4, 5, 5), LAST)])
def test_fake_has_the_real_strides(ops, shape, fmt):
    x = torch.empty(shape, device="meta", memory_format=fmt)
    w = torch.empty(8, 4, 3, 3, device="meta")
    y = ops.conv2d(x, w, None, 1, 1)
    assert y.shape == (shape[0], 8, *shape[2:]) and y.is_contiguous(memory_format=fmt) and y.device.type == "meta"


def test_fake_refuses_wrong_arguments(ops):
    with pytest.raises(ArgumentError, match="dimension 1 of weight"):
        ops.conv2d(torch.empty(1, 4, 6, 6, device="meta"), torch.empty(8, 5, 3, 3, device="meta"))


class Net(torch.nn.Module):
    def forward(self, x, weight):
        return torch.relu(torch.ops.convgen_tested.conv2d(x * 2, weight, None, 1, 1)) + 1


@pytest.mark.parametrize("fmt", [torch.contiguous_format, LAST])
def test_compile(ops, fmt):
    torch._dynamo.reset()
    net = torch.compile(Net(), fullgraph=True, backend="aot_eager")
    x = X.contiguous(memory_format=fmt)
    with torch.no_grad():
        y = net(x, W)
    assert torch.equal(y, torch.relu(2 * WANTED) + 1) and y.is_contiguous(memory_format=fmt)


def test_compile_with_inductor(ops):
    torch._dynamo.reset()
    with torch.no_grad():
        y = torch.compile(Net(), fullgraph=True)(X.to(memory_format=LAST), W)
    assert torch.equal(y, torch.relu(2 * WANTED) + 1)


def test_compile_with_dynamic_batch(ops):
    torch._dynamo.reset()
    net = torch.compile(Net(), fullgraph=True, dynamic=True, backend="aot_eager")
    with torch.no_grad():
        for n in (2, 3, 5):
            x = whole(n, 4, 5, 5, seed=n)
            assert torch.equal(net(x, W), torch.relu(2 * F.conv2d(x, W, padding=1)) + 1)


def test_export(ops, tmp_path):
    batch = torch.export.Dim("n", min=2, max=64)
    program = torch.export.export(Net(), (whole(2, 4, 5, 5), W), dynamic_shapes={"x": {0: batch}, "weight": None})
    assert any("convgen_tested.conv2d" in str(node.target) for node in program.graph.nodes)
    torch.export.save(program, tmp_path / "net.pt2")
    again = torch.export.load(tmp_path / "net.pt2").module()
    x = whole(4, 4, 5, 5)
    assert torch.equal(again(x, W), torch.relu(2 * F.conv2d(x, W, padding=1)) + 1)


def test_gradients_raise_in_eager_and_compiled(ops):
    weight = torch.nn.Parameter(W)
    with pytest.raises(RuntimeError, match=r"torch\.no_grad"):
        ops.conv2d(X, weight, None, 1, 1)
    torch._dynamo.reset()
    with pytest.raises(Exception, match=r"torch\.no_grad"):
        torch.compile(Net(), fullgraph=True, backend="aot_eager")(X, weight)
    with torch.no_grad():
        assert torch.equal(ops.conv2d(X, weight, None, 1, 1), WANTED)
    with torch.inference_mode():
        assert torch.equal(ops.conv2d(X, weight, None, 1, 1), WANTED)


def test_no_kernel_reaches_the_caller(ops):
    with pytest.raises(NoKernel, match="nearest"):
        ops.conv2d(whole(1, 4, 7, 7), W)


def test_vmap_goes_through_the_op(ops):
    batch = torch.stack([X, X + 1])
    y = torch.func.vmap(lambda x: ops.conv2d(x, W, None, 1, 1))(batch)
    assert torch.equal(y, torch.stack([WANTED, F.conv2d(X + 1, W, padding=1)]))


def test_same_content_is_the_same_object(lib, library_path):
    assert load(library_path) is lib
    other = load(library_path, name="tested_too")
    assert other is not lib and torch.equal(torch.ops.convgen_tested_too.conv2d(X, W, None, 1, 1), WANTED)


def test_other_content_under_a_taken_name(lib, kernels, tmp_path):
    from convgen.export.link import link_library
    from tests.kernel_library import SIGNATURES

    target, entries = kernels["x86:avx2"]
    path = link_library({"x86:avx2": (target, entries[:1])}, SIGNATURES, tmp_path / "other.cvg", "tested")
    with pytest.raises(LibraryError, match=r"use load\(path, name=\.\.\.\)"):
        load(path)
    assert load(path, name="renamed").workloads() == [entries[0]["id"]]
