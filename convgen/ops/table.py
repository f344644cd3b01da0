"""The operator table: the explicit list that tests, bench, command line and docs read. A new operator is one declaration and one row here."""

from __future__ import annotations

import difflib

from ..errors import ArgumentError
from . import blocks, conv, depthwise, dynamic, quantized

TABLE = (
    conv.conv1d,
    conv.conv2d,
    conv.conv3d,
    conv.partial_padding_conv2d,
    conv.partial_conv2d,
    conv.conv2d_pixel_shuffle,
    conv.conv_transpose1d,
    conv.conv_transpose2d,
    conv.conv_transpose3d,
    depthwise.depthwise_conv1d,
    depthwise.depthwise_conv2d,
    depthwise.inception_depthwise_conv2d,
    depthwise.dilated_reparam_conv2d,
    depthwise.separable_block2d,
    blocks.convnext_block2d,
    blocks.inverted_residual2d,
    blocks.large_kernel_attention2d,
    dynamic.condconv2d,
    dynamic.involution2d,
    dynamic.ska2d,
    dynamic.tvconv2d,
    dynamic.dynamic_conv1d,
    dynamic.deform_conv2d,
    quantized.quantized_conv2d,
    quantized.quantized_depthwise_conv2d,
)
_BY_NAME = {op.name: op for op in TABLE}


def names() -> list[str]:
    return list(_BY_NAME)


def get(name: str):
    """The Operator of that name; raises ArgumentError that names close matches."""
    if name not in _BY_NAME:
        close = difflib.get_close_matches(name, _BY_NAME, 3)
        raise ArgumentError(f"unknown operator {name!r}" + (f"; did you mean {', '.join(close)}?" if close else f"; known: {', '.join(_BY_NAME)}"))
    return _BY_NAME[name]


def is_catalogued(op) -> bool:
    return _BY_NAME.get(op.name) is op


def baseline(name: str):
    """The PyTorch formulation of a catalogued operator, or None: f(workload, **tensors)."""
    op = _BY_NAME.get(name)
    return op.baseline if op else None
