"""Which workloads a network runs: hooks on its convolution layers during one forward pass."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import nn

from . import layers


class Layers(dict):
    """{module path: Workload} in the order of the first call.

    `.calls`: {module path: how often it ran}; `.skipped`: {module path: reason} of convolution layers that no operator covers.
    """

    def __init__(self):
        super().__init__()
        self.calls: dict[str, int] = {}
        self.skipped: dict[str, str] = {}


def workloads(model: nn.Module, *example_args: Any) -> Layers:
    """Workloads of the convolution layers of `model`, by module path, as `model(*example_args)` calls them.

    The layout of a workload is the memory format of the input that reaches the layer. Conv1d/2d/3d and their transposed forms are
    covered, a convolution with one group per channel as depthwise; calls of `torch.nn.functional` are not seen. Further shapes of a
    layer that is called with several stand under `path#2`, `path#3`, ...; a layer never called is stated in `.skipped`. The
    model runs once, in evaluation mode without gradients, and is left as it was.
    """
    found, calls = Layers(), {}
    names = {module: name for name, module in model.named_modules() if layers.is_convolution(module)}

    def seen(module, args, kwargs, _output):
        x = args[0] if args else kwargs["input"]
        calls.setdefault(names[module], []).append(_describe(module, x, args[1] if len(args) > 1 else kwargs.get("output_size")))

    modes = {module: module.training for module in model.modules()}
    hooks = [module.register_forward_hook(seen, with_kwargs=True) for module in names]
    try:
        model.eval()
        with torch.no_grad():
            model(*example_args)
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
    for name, described in calls.items():
        _enter(found, name, described)
    for name in names.values():
        if name not in calls:
            found.skipped[name] = "it was not called in the forward pass"
    return found


def _describe(module, x, output_size):
    """The layer's Workload, or the reason why it has none."""
    try:
        return layers.workload(module, x, output_size)
    except layers.Uncovered as reason:
        return str(reason)


def _enter(found: Layers, name: str, described: list) -> None:
    for number, (entry, calls) in enumerate(Counter(described).items(), 1):
        path = name if number == 1 else f"{name}#{number}"
        if isinstance(entry, str):
            found.skipped[path] = entry
        else:
            found[path], found.calls[path] = entry, calls
