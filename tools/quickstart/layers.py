"""The three layers of the quickstart, and their tensors made from a photograph's feature maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

import numpy as np

import photo


def ordinary(w, x: np.ndarray) -> dict[str, np.ndarray]:
    """Feature maps as the input, and the operator's usual random parameters."""
    return {name: np.asarray(value, np.float32) for name, value in w.sample(seed=0).items()} | {"x": x}


def generated(w, x: np.ndarray) -> dict[str, np.ndarray]:
    """Feature maps, and per pixel the kernels that Involution's generator makes of them: reduce to a quarter, rectify, span.

    weight [N, G, KH, KW, P, Q]; stride 1. Source: arXiv:2103.06255, equation 6, with random matrices.
    """
    n, c, p, q = x.shape
    taps = [w.dims[d] for d in ("G", "KH", "KW")]
    rng = np.random.default_rng(1)
    reduce = rng.standard_normal((c // 4, c)) / np.sqrt(c)
    span = rng.standard_normal((int(np.prod(taps)), c // 4)) / np.sqrt(c // 4)
    kernels = np.einsum("kc,nchw->nkhw", span, np.maximum(np.einsum("kc,nchw->nkhw", reduce, x), 0))
    return {"x": x, "weight": kernels.reshape(n, *taps, p, q).astype(np.float32)}


@dataclass(frozen=True)
class Layer:
    """A published layer: title for tables, workload id, and f(workload, maps) -> arrays by tensor name."""

    title: str
    workload: str
    tensors: Callable = ordinary


# channels_last, because that is the format in which PyTorch itself is fastest at most of these.
LAYERS = (
    Layer("ResNet 3x3", "conv2d:n1,c64,o64,h56,w56,k3x3;padding=1:f32.f32.f32:nhwc"),
    Layer("RepLKNet 31x31", "depthwise_conv2d:n1,c128,h56,w56,k31x31;padding=15:f32.f32.f32:nhwc"),
    Layer("Involution 7x7", "involution2d:n1,c64,g4,h56,w56,k7x7;padding=3:f32.f32.f32:nhwc", generated),
)


def inputs(layer: Layer, image: np.ndarray) -> dict[str, np.ndarray]:
    """Every tensor of a layer for this image, logical shapes in row-major memory."""
    import convgen
    w = convgen.workload(layer.workload)
    return layer.tensors(w, photo.lift(image, w.dims["C"], w.dims["H"]))
