"""PyTorch in eager mode and compiled: every formulation of the operator, and the layer that users write."""

from __future__ import annotations

import torch
from torch import nn

from ...lang import Prepared
from ...lang.epilogue import TENSORS, in_torch, stated
from ...lang.sampling import to_numpy
from ..case import Case, NotOffered, Ready

_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}
LAYER = "layer"  # stands for the nn.Conv2d (or its kin) of an ordinary convolution


class Formulation(nn.Module):
    """A declared formulation with its parameters folded, so that a compiler sees them as constants."""

    def __init__(self, case: Case, label: str):
        super().__init__()
        self.workload, self.names = case.workload, list(case.inputs)
        given = dict(case.tensors)
        after = {k: given.pop(k) for k in stated(self.workload)}
        form = self.workload.op.formulations[label]
        self.run = form.run if isinstance(form, Prepared) else form
        ready = form.prepare(self.workload, **given) if isinstance(form, Prepared) else given
        self.constants = [n for n in ready if n not in self.names]
        for n in self.constants:  # packed weights and numbers stay what they are
            plain = isinstance(ready[n], torch.Tensor) and ready[n].layout is torch.strided
            setattr(self, f"p_{n}", nn.Parameter(ready[n], requires_grad=False) if plain else ready[n])
        self.after = [k for k in after if k not in self.names]
        for k in self.after:
            self.register_parameter(f"after_{k}", nn.Parameter(after[k], requires_grad=False))  # a folded form may have a bias of its own

    def forward(self, *inputs):
        named = dict(zip(self.names, inputs))
        after = {k: named.pop(k) for k in TENSORS if k in named} | {k: getattr(self, f"after_{k}") for k in self.after}
        y = self.run(self.workload, **named, **{n: getattr(self, f"p_{n}") for n in self.constants})
        return in_torch(self.workload, y, after)


class Layer(nn.Module):
    """The layer of torch.nn that a model holds where the workload is an ordinary convolution, bias and batch norm inside."""

    def __init__(self, case: Case):
        super().__init__()
        c, w = case.convolution(), case.workload
        weight = c["weight"]
        rank = weight.ndim - 2
        uneven = any(lo != hi for lo, hi in c["padding"])
        if uneven and c["transposed"]:
            raise NotOffered("torch.nn has no transposed layer with uneven padding")
        self.pad = [p for pair in reversed(c["padding"]) for p in pair] if uneven else None
        kind = getattr(nn, f"Conv{'Transpose' if c['transposed'] else ''}{rank}d")
        more = {"output_padding": c["output_padding"]} if c["transposed"] else {}
        ins = weight.shape[0] if c["transposed"] else weight.shape[1] * c["groups"]
        outs = weight.shape[1] * c["groups"] if c["transposed"] else weight.shape[0]
        self.conv = kind(ins, outs, tuple(weight.shape[2:]), stride=c["stride"], padding=0 if uneven else tuple(lo for lo, _ in c["padding"]),
                         dilation=c["dilation"], groups=c["groups"], bias=c["bias"] is not None, dtype=weight.dtype, **more)
        self.conv.weight.data.copy_(weight)
        if c["bias"] is not None:
            self.conv.bias.data.copy_(c["bias"])
        self.extra = [n for n in case.inputs if n != "x"]
        self.activation = w.attributes.get("activation") if w.op.epilogue else None

    def forward(self, x, *extra):
        given = dict(zip(self.extra, extra))
        y = self.conv(nn.functional.pad(x, self.pad) if self.pad else x)
        y = _activated(y + given["residual"] if "residual" in given else y, self.activation)
        return y * given["gate"] if "gate" in given else y


def _activated(y, name):
    if not name:
        return y
    return getattr(nn.functional, name)(y) if hasattr(nn.functional, name) else getattr(torch, name)(y)


def _module(case: Case, form: str) -> nn.Module:
    return (Layer(case) if form == LAYER else Formulation(case, form)).eval()


def _converted(case: Case, module, other: bool):
    """(call on the inputs, parameters in the memory format that will be computed in). With `other`, x and the result are converted each time."""
    last = (case.workload.layout == "channels_last") != other
    x = next(iter(case.inputs.values()))
    wanted = _FORMATS.get(x.ndim) if last else torch.contiguous_format
    if wanted is None:
        if other:
            raise NotOffered(f"PyTorch has no channels_last format for {x.ndim} dimensions")
        return module
    if last:
        for p in module.parameters():
            if p.ndim == x.ndim:
                p.data = p.data.contiguous(memory_format=wanted)
    if not other:
        return module
    back = torch.contiguous_format if last else _FORMATS[x.ndim]

    def call(first, *rest):
        return module(first.contiguous(memory_format=wanted), *rest).contiguous(memory_format=back)
    return call


def eager(case: Case, form: str, other: bool = False) -> Ready:
    """One formulation in eager mode. other: computed in the other memory format, conversions of x and of the result counted."""
    torch.set_num_threads(case.threads)
    call, inputs = _converted(case, _module(case, form), other), list(case.inputs.values())
    return Ready(lambda: call(*inputs), to_numpy)


def compiled(case: Case, form: str, frozen: bool = False, other: bool = False) -> Ready:
    """One formulation through torch.compile; frozen: with parameters as constants, which lets it repack them once."""
    import torch._inductor.config as config
    torch.set_num_threads(case.threads)
    config.freezing = frozen
    inputs = list(case.inputs.values())
    call = torch.compile(_converted(case, _module(case, form), other), dynamic=False)
    with torch.inference_mode():
        call(*inputs)
    return Ready(lambda: call(*inputs), to_numpy)


def multiplied(case: Case, sizes, way: str) -> Ready:
    """Plain matrix products of the given sizes (rows, summed, columns), one after the other: no result of the workload, but a part of its work.

    way: "rows first" and "columns first" are the memory orders of data and results, "packed" has the weights repacked ahead by MKL, as torch.compile does with frozen ones.
    """
    torch.set_num_threads(case.threads)
    calls = [_product(way, *size) for size in sizes]
    return Ready(lambda: [call() for call in calls], None)


def _product(way: str, rows: int, summed: int, columns: int):
    random = torch.Generator().manual_seed(rows)
    x, w = torch.randn(rows, summed, generator=random), torch.randn(columns, summed, generator=random)
    if way == "rows first":
        return lambda: nn.functional.linear(x, w)
    if way == "columns first":
        flat = x.t().contiguous()
        return lambda: torch.mm(w, flat)
    if not torch.backends.mkl.is_available():
        raise NotOffered("this PyTorch has no MKL")
    packed = torch.ops.mkl._mkl_reorder_linear_weight(w, rows)
    return lambda: torch.ops.mkl._mkl_linear(x, packed, w, None, rows)
