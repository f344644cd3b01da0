"""Bound calls: parameters prepared once, swapped atomically, safe to share."""

import copy
import pickle
import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from convgen.errors import ArgumentError, NoKernel

from .test_call import B, LAST, W, WANTED, X, whole


@pytest.fixture
def bound(lib):
    return lib.bind("conv2d", weight=W, padding=1)


def test_bound_call_in_both_formats(bound):
    for x in (X, X.to(memory_format=LAST), X, X.to(memory_format=LAST)):
        y = bound(x)
        assert torch.equal(y, WANTED) and y.stride() == F.conv2d(x, W, padding=1).stride()
    assert bound.nbytes >= W.numel() * 4


def test_several_sizes_with_one_bound_call(bound):
    for n in (1, 2, 7, 2):
        x = whole(n, 4, 5, 5, seed=n)
        assert torch.equal(bound(x), F.conv2d(x, W, padding=1))
    assert torch.equal(bound(X), WANTED)


def test_out(bound):
    for out in (torch.empty_like(WANTED), torch.empty_like(WANTED, memory_format=LAST)):
        for _ in range(2):
            out.fill_(-1)
            assert bound(X, out=out) is out and torch.equal(out, WANTED)


def test_autograd_learns_that_out_was_written(bound):
    x = torch.ones(1, 8, 6, 6, requires_grad=True)
    for _ in range(2):
        saved = torch.ones_like(WANTED)
        product = x * saved
        with torch.no_grad():
            bound(X, out=saved)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            product.sum().backward()


def test_two_inputs_by_position_and_name(lib):
    f = lib.bind("gate2d")
    x, gate = whole(2, 3, 4, 5), whole(2, 3, seed=1)
    for _ in range(2):
        assert torch.equal(f(x, gate), x * gate[:, :, None, None])
        assert torch.equal(f(x, gate=gate), x * gate[:, :, None, None])
    with pytest.raises(ArgumentError, match="gate is required"):
        f(x)
    with pytest.raises(ArgumentError, match="all tensors"):
        f(x, gate.numpy())


def test_numpy(lib):
    f = lib.bind("conv2d", weight=W.numpy(), padding=1)
    y = f(X.numpy())
    assert isinstance(y, np.ndarray) and np.array_equal(y, WANTED.numpy())
    assert torch.equal(f(X), WANTED)


def test_misaligned_and_gapped_inputs(bound):
    bound(X)
    x = torch.empty(X.numel() + 1)[1:].view(X.shape).copy_(X)
    assert torch.equal(bound(x), WANTED)
    assert torch.equal(bound(torch.repeat_interleave(X, 2, -1)[..., ::2]), WANTED)


def test_in_place_changes_are_reported_and_have_no_effect(lib):
    weight = W.clone()
    f = lib.bind("conv2d", weight=weight, padding=1)
    assert f.check() == []
    weight.mul_(2)
    assert f.check() == ["weight"]
    assert torch.equal(f(X), WANTED) and torch.equal(f(X.to(memory_format=LAST)), WANTED)
    f.update(weight=weight)
    assert f.check() == [] and torch.equal(f(X), 2 * WANTED)


def test_update_of_one_parameter(lib):
    f = lib.bind("conv2d", weight=W, bias=B, padding=1)
    f.update(bias=-B)
    assert torch.equal(f(X), F.conv2d(X, W, -B, padding=1))
    with pytest.raises(ArgumentError, match="not with scale"):
        f.update(scale=B)
    with pytest.raises(ArgumentError, match="dtype"):
        f(X.double())


def test_failed_update_changes_nothing(bound):
    with pytest.raises(NoKernel):
        bound.update(weight=whole(9, 4, 3, 3))
    assert torch.equal(bound(X), WANTED)


def test_update_is_atomic_under_calls(lib):
    f = lib.bind("conv2d", weight=W, bias=B, padding=1)
    wanted = [F.conv2d(X, s * W, s * B, padding=1) for s in (1, 2)]
    stop, wrong = threading.Event(), []

    def call():
        while not stop.is_set():
            y = f(X)
            if not any(torch.equal(y, w) for w in wanted):
                wrong.append(y)

    threads = [threading.Thread(target=call) for _ in range(4)]
    [t.start() for t in threads]
    for i in range(100):
        s = 2 - i % 2
        f.update(weight=s * W, bias=s * B)
    stop.set()
    [t.join() for t in threads]
    assert not wrong


def test_bind_refuses_what_can_never_be_served(lib):
    with pytest.raises(NoKernel, match="bind: no kernel of conv2d fits weight float32"):
        lib.bind("conv2d", weight=whole(5, 4, 3, 3), padding=1)
    with pytest.raises(NoKernel, match="padding=2"):
        lib.bind("conv2d", weight=W, padding=2)
    with pytest.raises(ArgumentError, match="x is an input"):
        lib.bind("conv2d", weight=W, x=X)
    with pytest.raises(ArgumentError, match="needs the parameter weight"):
        lib.bind("conv2d", padding=1)


def test_gradients(lib):
    f = lib.bind("conv2d", weight=torch.nn.Parameter(W), padding=1)
    with torch.no_grad():
        f(X), f(X)
    with pytest.raises(RuntimeError, match=r"weight requires grad.*torch\.no_grad"):
        f(X)
    g = lib.bind("conv2d", weight=W, padding=1)
    g(X)
    with pytest.raises(RuntimeError, match=r"torch\.no_grad"):
        g(X.clone().requires_grad_())


def test_deepcopy_is_independent(lib):
    f = lib.bind("conv2d", weight=W, padding=1)
    twin = copy.deepcopy(f)
    twin.update(weight=2 * W)
    assert torch.equal(f(X), WANTED) and torch.equal(twin(X), 2 * WANTED)
    assert torch.equal(copy.copy(f)(X), WANTED)


def test_deepcopy_of_a_module_follows_its_parameters(lib):
    module = torch.nn.Module()
    module.weight = torch.nn.Parameter(W.clone(), requires_grad=False)
    module.call = lib.bind("conv2d", weight=module.weight, padding=1)
    twin = copy.deepcopy(module)
    twin.weight.mul_(3)
    assert twin.call.check() == ["weight"] and module.call.check() == []
    assert torch.equal(twin.call(X), WANTED)


def test_pickling_names_bind(bound):
    with pytest.raises(TypeError, match="lib.bind"):
        pickle.dumps(bound)


def test_dynamic_threads(lib, bound):
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 1):
            torch.set_num_threads(threads)
            assert lib.explain("conv2d", X, W, padding=1).threads == threads
            assert torch.equal(bound(X), WANTED)
    finally:
        torch.set_num_threads(before)


def test_eight_threads_two_operators(lib):
    f = lib.bind("conv2d", weight=W, padding=1)
    square = whole(1, 8, 64, 64)
    wanted_square = (square + 1) * (square + 1).flip(2)
    last = X.to(memory_format=LAST)
    wrong = []

    def work(seed):
        for i in range(200):
            good = torch.equal(f(X if (i + seed) % 2 else last), WANTED)
            if i % 4 == 0:
                good &= torch.equal(lib.square2d(square), wanted_square)
            else:
                good &= torch.equal(lib.conv2d(X, W, padding=1), WANTED)
            if not good:
                wrong.append((seed, i))

    threads = [threading.Thread(target=work, args=(s,)) for s in range(8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert wrong == []
