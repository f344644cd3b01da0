"""Plain products are found by structure, and computed by PyTorch alone as a part of the race that is no peer."""

import pytest

import convgen
from convgen.bench.contestants import PRODUCTS, offered
from convgen.bench.products import products

pytest.importorskip("torch")

KNOWN = {
    "convnext_block2d:n2,c96,hidden384,h56,w50,k7x7:f32.f32.f32:nhwc": [(5600, 96, 384), (5600, 384, 96)],
    "inverted_residual2d:n1,c16,hidden96,o24,h112,w112,k3x3;stride=2:f32.f32.f32:nchw": [(12544, 16, 96), (3136, 96, 24)],
    "inverted_residual2d:n1,c32,hidden32,o16,h112,w112,k3x3:f32.f32.f32:nhwc": [(12544, 32, 16)],
    "large_kernel_attention2d:n1,c64,h56,w56,k7x7:f32.f32.f32:nchw": [(3136, 64, 64)],
    "separable_block2d:n1,c64,o12,h9,w8,k3x3;padding=1:f32.f32.f32:nhwc:act=relu6,bias": [(72, 64, 12)],
    "inception_depthwise_conv2d:n1,c96,gc12,h56,w56:f32.f32.f32:nchw": [],
    "conv2d:n2,c64,o32,h8,w9,k1x1;stride=2:f32.f32.f32:nchw": [(40, 64, 32)],
    "conv2d:n1,c64,o32,h8,w8,k1x1;groups=4:f32.f32.f32:nchw": [],
    "conv2d:n1,c64,o32,h8,w8,k3x3:f32.f32.f32:nchw": [(36, 576, 32)],
    "partial_conv2d:n1,c64,o128,h128,w128,k5x5;stride=2,padding=2:f32.f32.f32:nchw:bias": [(4096, 1600, 128)],
    "depthwise_conv2d:n1,c64,h8,w8,k3x3:f32.f32.f32:nchw": [],
    "condconv2d:n8,c80,o48,e4,h14,w14,k1x1:f32.f32.f32:nchw": [],
}


@pytest.mark.parametrize("id", KNOWN)
def test_products(id):
    assert products(convgen.workload(id)) == KNOWN[id]


def test_only_fused_blocks_are_taken_apart():
    names = lambda id, peers: [c for c in offered(convgen.workload(id), peers) if c.name.startswith(PRODUCTS)]
    block, *_, layer = (next(i for i in KNOWN if i.startswith(name)) for name in ("convnext", "conv2d"))
    assert len(names(block, ["torch"])) == 3 and not any(c.counts for c in names(block, ["torch"]))
    assert not names(block, ["compile"]) and not names(layer, ["torch"])


@pytest.mark.parametrize("way", ["rows first", "columns first", "packed"])
def test_they_are_computed(way):
    """The same values in every way, in its own memory order."""
    import torch

    from convgen.bench.peers.torch import _product
    x, w = torch.randn(5, 7, generator=(random := torch.Generator().manual_seed(5))), torch.randn(3, 7, generator=random)
    with torch.inference_mode():
        found = _product(way, 5, 7, 3)()
    torch.testing.assert_close(found.t() if way == "columns first" else found, x @ w.t())
