"""A description as tensor expressions without any choice: one computation per stage, every padded tensor a stage of its own, for schedulers of others."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import te

from ..lang import access
from ..lang.size import value_of
from .layout import Layout
from .values import COMBINE, Values


@dataclass
class Plain:
    """`run` computes the output, its last argument, from inputs and constants; `prepare` (or None) those constants that are no parameters, from all parameters.

    Both are PrimFuncs. Arguments are (name, shape, dtype) in their order, shapes in the order in memory. `constants`: which of run's arguments never change.
    """

    run: object
    run_args: list
    prepare: object
    prepare_args: list
    prepared: int  # how many of prepare_args are its inputs
    constants: list


def plain(program) -> Plain:
    """The plain form of a Program. Raises ValueError where its batch is open."""
    if program.any_batch:
        raise ValueError("its batch is open")
    program = access.specialised(program)
    lowering, inputs, params = _Plain(program), [], []
    for t in program.tensors:
        (params if t.kind == "param" else inputs).append(t.name)
    bound = program.bind_stages
    for stage in bound:
        lowering.compute(stage)
    read = {e.data[0] for s in program.run_stages for e in s.body.loads()}
    made = [s.name for s in bound if s.name in read]
    prepare_args = [*(lowering.border[n][0] for n in params), *(lowering.tensors[n][0] for n in made)]
    prepare = te.create_prim_func(prepare_args) if made else None
    for name in made:
        tensor, layout, stage = lowering.tensors[name]
        lowering.tensors[name] = te.placeholder(tensor.shape, "float32", name=name), layout, stage
    lowering.padded.clear()
    for stage in program.run_stages:
        lowering.compute(stage)
    constants = [n for n in params if n in read] + made
    run_args = [*(lowering.border[n][0] for n in inputs), *(lowering.border[n][0] if n in params else lowering.tensors[n][0] for n in constants), lowering.stored()]
    return Plain(te.create_prim_func(run_args), _facts([*inputs, *constants, "out"], run_args), prepare, _facts([*params, *made], prepare_args), len(params),
                 list(range(len(inputs), len(inputs) + len(constants))))


def _facts(names, tensors) -> list:
    return [(name, [int(n) for n in t.shape], str(t.dtype)) for name, t in zip(names, tensors)]


class _Plain(Values):
    """Border tensors, their padded copies, and stages that have the output's axes, in the memory order of the workload; other stages as they are written."""

    def __init__(self, program):
        super().__init__(program)
        self.padded: dict = {}
        self.order = program.output.permutation(program.layout)
        self.axes_of_output = [a.name for a in program.stages[-1].axes]

    def compute(self, stage) -> None:
        names = [a.name for a in stage.axes]
        reduced = {a.name: te.reduce_axis((0, value_of(a.size)), name=a.name) for a in stage.reduce}
        for load in stage.body.loads():
            self.pad(load)

        def body(*index):
            value = self.value(stage.body, dict(zip(names, index)) | reduced, self.read)
            return COMBINE[stage.combiner](value, axis=list(reduced.values())) if stage.combiner else value
        layout = Layout([value_of(a.size) for a in stage.axes], self.order if names == self.axes_of_output else None)
        self.tensors[stage.name] = (te.compute(layout.shape, lambda *physical: body(*layout.logical(physical)), name=stage.name), layout, stage)

    def pad(self, load) -> None:
        """A tensor's padded copy."""
        name, padding = load.data
        if padding is not None and self.key(load) not in self.padded:
            spec = self.program.tensor(name)
            extents = [e + sum(map(value_of, pair)) for e, pair in zip((spec or self.program.stage(name)).shape, padding.amounts)]
            layout = Layout(extents, spec.permutation(self.program.layout) if spec else self.tensors[name][1].order)
            copy = te.compute(layout.shape, lambda *physical: self.element(name, layout.logical(physical), padding), name=f"{name}_padded{len(self.padded) or ''}")
            self.padded[self.key(load)] = copy, layout

    @staticmethod
    def key(load):
        name, padding = load.data
        return name, str(padding.to_json())

    def read(self, load, index):
        if load.data[1] is None:
            return self.element(load.data[0], index, None)
        copy, layout = self.padded[self.key(load)]
        return copy(*layout.index(index))

    def stored(self):
        """The last stage, in the output's dtype."""
        spec, tensor = self.program.output, self.tensors[self.program.stages[-1].name][0]
        return tensor if spec.dtype == "float32" else te.compute(tensor.shape, lambda *index: tensor(*index).astype(spec.dtype), name="stored")
