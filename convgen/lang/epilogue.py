"""What may follow an operator's last stage: activation(batch_norm(y + bias) + residual) * gate, each part by flag."""

from __future__ import annotations

from . import expr as E
from .program import bound
from .sampling import BATCH_NORM

TENSORS = ("bias", "bn", "residual", "gate")  # bias [O]; bn [4, O]: scale, shift, mean, variance; residual and gate as large as the output
EPS = 1e-5  # torch.nn.BatchNorm2d's; what another one differs by is added to the variance

ACTIVATIONS = {
    "relu": lambda o, v: o.maximum(v, 0.0),
    "relu6": lambda o, v: o.minimum(o.maximum(v, 0.0), 6.0),
    "sigmoid": lambda o, v: o.sigmoid(v),
    "tanh": lambda o, v: o.tanh(v),
    "silu": lambda o, v: v * o.sigmoid(v),
    "gelu": lambda o, v: v * (o.erf(v * 0.7071067811865476) + 1.0) * 0.5,
    "hardswish": lambda o, v: v * o.minimum(o.maximum(v + 3.0, 0.0), 6.0) * (1.0 / 6.0),
    "hardsigmoid": lambda o, v: o.minimum(o.maximum(v + 3.0, 0.0), 6.0) * (1.0 / 6.0),
    "leaky_relu": lambda o, v: o.maximum(v, v * 0.01),
}


def appended(o, value, present, activation, channel_axis: int):
    """`value` with the tensors that are `present` (of TENSORS) and the activation. `o`: the builder whose output axes it has."""
    last = o._trace.stages[-1] if o._trace.stages else None
    whole = last is not None and value.op == "load" and value.data == (last.name, None)
    if whole and last.combiner in ("max", "min") and (present or activation):
        o._refuse(f"bias, bn, residual, gate and activation follow a linear last stage only, and this one takes a {last.combiner}")
    axes = o._output_axes
    channel = axes[channel_axis] if "bias" in present or "bn" in present else None

    def whole_output(name):
        return o._declare(name, "input", [a.size for a in axes], spatial=o._output_spatial)[tuple(axes)]
    bias = o.param("bias", channel.size)[channel] if "bias" in present else None
    if "bn" in present:
        value = _normalised(o, value, bias, channel, last if whole else None)
    elif bias is not None:
        value = value + bias
    if "residual" in present:
        value = value + whole_output("residual")
    value = o.activation(activation, value)
    return value * whole_output("gate") if "gate" in present else value


def _normalised(o, value, bias, channel, last):
    """Batch norm of `value` + bias: its scale in the weights of `last` where that is a product with some, and one shift."""
    stages = o._trace.stages
    if last is not None:
        stages.pop()  # what is prepared for it comes before it
    bn = o.param("bn", 4, channel.size, values=BATCH_NORM)
    scale = o.stage(bn[0, channel] / o.sqrt(bn[3, channel] + EPS), [channel], name="bn_scale")[channel]
    centre = bn[2, channel] if bias is None else bn[2, channel] - bias
    shift = o.stage(bn[1, channel] - centre * scale, [channel], name="bn_shift")[channel]
    weight = _weight(o, last, channel) if last is not None else None
    if weight is not None:
        own = o._trace.in_order([a for a in [*last.axes, *last.reduce] if a.data in weight.axes()])
        last.body = _swapped(last.body, weight, o.stage(weight * scale, own, name="bn_weight")[tuple(own)])
    if last is not None:
        stages.append(last)
    return value + shift if weight is not None else value * scale + shift


def _weight(o, stage, channel):
    """The factor of a sum of products that is a parameter (or made of parameters) of the output channel, or None."""
    if stage.combiner != "sum" or channel.data not in [a.data for a in stage.axes]:
        return None
    constant = {t.name for t in o._trace.tensors if t.kind == "param"} | {s.name for s in bound(o._trace.tensors, o._trace.stages)}
    fits = lambda e: e.op == "load" and e.data[0] in constant and e.data[1] is None and channel.data in e.axes() and len(e.loads()) == 1
    return next((e for e in E.factors(stage.body) if fits(e)), None)


def _swapped(product, factor, by):
    if product is factor:
        return by
    return E.Expr("*", [_swapped(a, factor, by) for a in product.args]) if product.op == "*" else product


def stated(w) -> list:
    """The tensors of TENSORS that the workload `w` appends; an operator without an epilogue may have a bias of its own."""
    return [t for t in TENSORS if w.op.epilogue and w.flags.get(t)]


def in_torch(w, y, tensors):
    """The same in PyTorch, appended to `y`, for the workload `w`."""
    import torch.nn.functional as F
    shape, given = [1] * y.ndim, stated(w)
    if "bias" in given or "bn" in given:
        shape[w.op.channel_axis] = -1
    if "bias" in given:
        y = y + tensors["bias"].reshape(shape)
    if "bn" in given:
        scale, shift, mean, variance = (v.reshape(shape) for v in tensors["bn"])
        gain = scale / (variance + EPS).sqrt()
        y = y * gain + (shift - mean * gain)
    if "residual" in given:
        y = y + tensors["residual"]
    kind = w.attributes.get("activation") if w.op.epilogue else None
    if kind:
        y = getattr(F, kind)(y) if hasattr(F, kind) else y.sigmoid() if kind == "sigmoid" else y.tanh()
    return y * tensors["gate"] if "gate" in given else y
