"""Parameters as kernels take them: computed and laid out once, when they are bound."""

from __future__ import annotations

from tvm import te, tirx

from ..lang import access
from ..lang.ranges import interval
from ..lang.size import value_of
from .layout import Layout
from .values import COMBINE, zero


def packed(values, plan) -> list:
    """The packed parameters of a plan as tensors. `values`: a Values of its program, which is given the stages that run when parameters are bound."""
    for stage in plan.program.bind_stages:
        _bound(values, stage)
    extents = {o.name: access.extents(p.stage) for p in plan.stages for o in p.operands.values()}
    extents |= {o.name: access.extents(p.store) for p in plan.stages if p.store is not None for o in plan.store_operands.values()}
    return [_packed(values, operand, extents[operand.name]) for operand in plan.packed]


def _bound(values, stage):
    names = [a.name for a in stage.axes]
    reduced = {a.name: te.reduce_axis((0, value_of(a.size)), name=a.name) for a in stage.reduce}

    def body(*index):
        value = values.value(stage.body, dict(zip(names, index)) | reduced, lambda load, i: values.element(load.data[0], i, load.data[1]))
        return COMBINE[stage.combiner](value, axis=list(reduced.values())) if stage.combiner else value
    layout = Layout([value_of(a.size) for a in stage.axes])
    values.tensors[stage.name] = (te.compute(layout.shape, body, name=stage.name), layout, stage)


def _packed(values, operand, extents):
    """One parameter in its layout, zero where neither data nor padding reaches. `extents`: of the axes of the stage that reads it."""
    layout, load = operand.layout, operand.load
    lengths = {c[1]: layout.blocks * layout.lanes if k == layout.split else layout.extents[k] for k, c in enumerate(operand.coords) if c[0] == "axis"}

    def body(*physical):
        axes = {c[1]: v for c, v in zip(operand.coords, layout.logical(physical)) if c[0] == "axis"}
        index, guard = [values.value(a, axes, None) for a in load.args], []
        for d, i in enumerate(index):
            limit = values.extent_of(load.data[0], d)
            if interval(load.args[d], {name: (0, n - 1) for name, n in lengths.items()})[1] >= limit:
                guard.append(i < limit)
        guard += [v < extents[name] for name, v in axes.items() if lengths[name] > extents[name]]
        value = values.element(load.data[0], index, load.data[1]).astype(operand.dtype)
        return tirx.if_then_else(tirx.all(*guard), value, zero(value)) if guard else value
    return te.compute(layout.shape, body, name=operand.name)
