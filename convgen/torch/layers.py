"""From an nn layer and the shape it was called with to a workload, for the layers of torch.nn that the catalogue covers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..errors import ArgumentError

_DIMS = {1: ("L",), 2: ("H", "W"), 3: ("D", "H", "W")}
_WINDOW = {1: ("K",), 2: ("KH", "KW"), 3: ("KD", "KH", "KW")}
_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class Uncovered(Exception):
    """Why a layer has no workload: one clause."""


def is_convolution(module: nn.Module) -> bool:
    """Whether the module is a convolution layer of torch.nn or derived from one (lazy layers turn into theirs when run)."""
    return isinstance(module, (*CONVOLUTIONS, *TRANSPOSED))


def workload(module: nn.Module, x: torch.Tensor, output_size: Any = None):
    """The Workload of one call `module(x)`. Raises Uncovered."""
    rank = module.weight.ndim - 2
    if x.ndim != rank + 2:
        raise Uncovered(f"its input has {x.ndim} dimensions instead of {rank + 2}: inputs without a batch axis are not covered")
    if not x.is_floating_point():
        raise Uncovered(f"its input is {x.dtype}")
    if x.dtype != module.weight.dtype:
        raise Uncovered(f"its input is {x.dtype} and its weight {module.weight.dtype}")
    transposed = isinstance(module, TRANSPOSED)
    depthwise = not transposed and module.groups > 1 and module.groups == module.in_channels
    name = f"depthwise_conv{rank}d" if depthwise else f"conv_transpose{rank}d" if transposed else f"conv{rank}d"
    try:
        operator = _operator(name)
        return operator(**_arguments(operator, module, x, rank, depthwise, transposed, output_size))
    except ArgumentError as error:
        raise Uncovered(" ".join(str(error).split())) from None


def _operator(name: str):
    from ..ops import table
    if name not in table.names():
        raise Uncovered(f"the catalogue has no {name}")
    return table.get(name)


def _arguments(operator, module, x, rank, depthwise, transposed, output_size) -> dict:
    given = {
        "N": x.shape[0], "C": module.in_channels, "kernel": tuple(module.kernel_size), "stride": tuple(module.stride),
        "dilation": tuple(module.dilation), "padding": module.padding, "bias": module.bias is not None,
        "dtype": str(x.dtype), "layout": layout(x),
    }
    given |= dict(zip(_DIMS[rank], x.shape[2:]))
    if depthwise:
        given["M"] = module.out_channels // module.in_channels
    else:
        given |= {"O": module.out_channels, "groups": module.groups}
    if transposed:
        given["output_padding"] = _output_padding(module, x, output_size)
    if module.padding_mode != "zeros":
        given["padding_mode"] = module.padding_mode
    return _only_needed(operator, given)


def _only_needed(operator, given: dict) -> dict:
    """Leave out what equals a default, so that an operator without the attribute still covers the layer."""
    neutral = {"groups": 1, "M": 1, "output_padding": 0, "dilation": 1, "stride": 1}
    known = {*operator.dims, *operator.attributes}
    return {name: value for name, value in given.items() if name in known or not _is(value, neutral.get(name))}


def _is(value, neutral) -> bool:
    return neutral is not None and all(v == neutral for v in (value if isinstance(value, tuple) else (value,)))


def _output_padding(module, x, output_size):
    if output_size is None:
        return tuple(module.output_padding)
    plain = [(length - 1) * s - 2 * p + d * (k - 1) + 1 for length, s, p, d, k in
             zip(x.shape[2:], module.stride, module.padding, module.dilation, module.kernel_size)]
    return tuple(int(wanted) - size for wanted, size in zip(tuple(output_size)[-len(plain):], plain))


def layout(x: torch.Tensor) -> str:
    """The memory format of a tensor; one that is both (C = 1, or one position) counts as channels_first, like a contiguous one."""
    last = _LAST.get(x.ndim)
    return "channels_last" if last and not x.is_contiguous() and x.is_contiguous(memory_format=last) else "channels_first"
