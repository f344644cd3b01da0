"""Sums of products that an instruction takes several at a time: neighbouring narrow channels of data and weights, added up into one wide lane.

Pure Python over the description; which instruction there is, and where, is the schedules' business.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..lang import access
from ..lang.expr import Expr

# (data dtype, weight dtype) → products per lane of 32 bits.
WIDTHS = {("uint8", "int8"): 4, ("bfloat16", "bfloat16"): 2}


@dataclass(frozen=True)
class Dot:
    """`axis`: the reduced axis whose neighbours are taken together, `width` at a time. `weight` is the parameter of the two reads, and `first` if it stands first."""

    axis: str
    width: int
    data: Expr
    weight: Expr
    first: bool
    dtypes: tuple  # of data and weight
    grouped: bool  # the data's channel is more than the axis


def find(program, stage) -> Dot | None:
    """The dot product that a stage's sum is made of, or None."""
    if stage.combiner != "sum" or stage.body.op != "*" or any(f.op != "load" for f in stage.body.args):
        return None
    reduced = access.roles(stage).channel
    for data, weight in (stage.body.args, stage.body.args[::-1]):
        specs = program.tensor(data.data[0]), program.tensor(weight.data[0])
        if None in specs or specs[0].kind != "input" or specs[1].kind != "param" or (specs[0].dtype, specs[1].dtype) not in WIDTHS:
            continue
        width = WIDTHS[specs[0].dtype, specs[1].dtype]
        for axis in reduced:
            own, of_data = [a for a in weight.args if axis in a.axes()], [a for a in data.args if axis in a.axes()]
            if len(own) != 1 or own[0].op != "axis" or len(of_data) != 1 or any(e.op == "load" for e in of_data[0].walk()):
                continue
            steps = access.on_axis(of_data[0], axis, access.extents(stage)[axis])
            grouped = of_data[0].op != "axis"
            extent = access.extents(stage)[axis]
            if steps is not None and (steps == range(extent)).all() and extent > 1 and not (grouped and extent % width):
                return Dot(axis, width, data, weight, weight is stage.body.args[0], (specs[0].dtype, specs[1].dtype), grouped)
    return None
