"""Sums of products as a product of matrices: data (positions × terms) by weights (terms × output channels), for units that multiply 16 × 16 tiles.

Which stage is one follows from access maps. Its three operands then lie as matrices whose rows and columns merge several axes, filled up with zeros to whole tiles.
Pure Python over the description; which units there are, and the loops, are the schedules' business.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..lang import access
from ..lang.expr import Expr
from ..lang.size import tree_of

EDGE = 16  # rows, columns and terms of the tile that one instruction multiplies
_VECTOR = 8  # elements of 16 bits that one thread moves at once
DTYPES = ("float16", "bfloat16")  # of both factors; sums are float32


@dataclass(frozen=True)
class Product:
    """`batch`: open batch axes, one product each; `rows`: other output axes of the data, `columns` those of the weights, `terms` the reduced axes, channels last."""

    batch: tuple
    rows: tuple
    columns: tuple
    terms: tuple
    data: Expr
    weight: Expr
    dtype: str

    def sizes(self, stage) -> tuple:
        """(rows, columns, terms) as numbers."""
        extents = access.extents(stage)
        return tuple(math.prod(extents[a] for a in axes) for axes in (self.rows, self.columns, self.terms))


def find(program, stage) -> Product | None:
    """The product of matrices that a stage's sum is, or None: every output axis belongs to one factor alone, every reduced axis to both."""
    if stage.combiner != "sum" or stage.body.op != "*" or any(f.op != "load" for f in stage.body.args):
        return None
    for data, weight in (stage.body.args, stage.body.args[::-1]):
        specs = program.tensor(data.data[0]), program.tensor(weight.data[0])
        if None in specs or (specs[0].kind, specs[1].kind) != ("input", "param") or specs[0].dtype != specs[1].dtype or specs[0].dtype not in DTYPES:
            continue
        of_data, of_weight = _axes(data), _axes(weight)
        extents = access.extents(stage)
        moving = [n for n, e in extents.items() if e > 1]
        reduced = [a.name for a in stage.reduce]
        if of_data is None or of_weight is None or any(n in of_data and n in of_weight for n in moving if n not in reduced) or any(n not in of_data or n not in of_weight for n in reduced if n in moving):
            continue  # a group's channel is an axis of both; a position that both know needs a product of its own
        if any(n not in of_data and n not in of_weight for n in moving):
            continue
        roles = access.roles(stage)
        open_batch = tuple(a.name for a in stage.axes if program.any_batch and tree_of(a.size) == "N")
        last = lambda names: tuple(sorted(names, key=moving.__contains__))  # what has steps counts fastest
        columns = last(a.name for a in stage.axes if a.name in of_weight and a.name not in open_batch)
        rows = last(a.name for a in stage.axes if a.name not in (*columns, *open_batch))
        terms = last((*roles.window, *roles.channel))
        if columns and rows and len(terms) == len(reduced):
            return Product(open_batch, rows, columns, terms, data, weight, specs[0].dtype)
    return None


def _axes(load):
    """The axes that a read depends on, or None where a tensor's value is among its indices."""
    return None if any(e.op == "load" for a in load.args for e in a.walk()) else {n for a in load.args for n in a.axes()}


def run_of_data(program, stage, product: Product) -> tuple:
    """(dim, width): along which dim of the data's matrix its memory runs, 0 rows or 1 terms, and how many neighbours there always lie side by side, at most 8."""
    spec = program.tensor(product.data.data[0])
    inner = spec.permutation(program.layout)[-1]
    index, extents = product.data.args[inner], access.extents(stage)
    along = int(not set(index.axes()) & {n for n in product.rows if extents[n] > 1})
    last = (product.rows, product.terms)[along][-1]
    alone = index.op == "axis" and index.data == last and not any(access.padding(product.data, inner))
    return along, math.gcd(spec.shape[inner], extents[last], _VECTOR) if alone else 1


def run_of_output(program, stage, product: Product) -> tuple:
    """The same of the output and the matrix of sums: dim 0 rows or 1 columns."""
    axes, extents = [a.name for a in stage.axes], access.extents(stage)
    moving = lambda names: [n for n in names if extents[n] > 1]
    memory = moving(axes[d] for d in program.output.permutation(program.layout))
    along = int(not memory or memory[-1] in product.columns)
    run = 1
    for name, wanted in zip(reversed(memory), reversed(moving((product.rows, product.columns)[along]))):
        if name != wanted:
            break
        run *= extents[name]
    return along, math.gcd(run, _VECTOR // 2)  # as many as float32 sums fit a thread's widest read


class Merged:
    """A layout whose every dim in memory is a group of logical dims, the last one fastest, filled up to `sizes`. The interface of layout.Layout.

    `extents`: of the logical dims; the first dim of each group counts what is filled up, so that an index beyond the data is seen there.
    `vector`: (dim in memory, width): its neighbours, so many at a time, are a dim of their own, the innermost, while they are made: tests of an index are then the same for all.
    """

    split = inner = None
    lanes, width, overhangs = 1, 1, False

    def __init__(self, extents, groups, sizes, vector=(0, 1)):
        self.groups, self.sizes, self.extents, self.vector = groups, sizes, list(extents), vector
        for group, size in zip(groups, sizes):
            if size is not None:
                self.extents[group[0]] = -(-size // math.prod(extents[d] for d in group[1:]))

    @property
    def order(self) -> list:
        return [d for group in self.groups for d in group]

    @property
    def shape(self) -> list:
        sizes = [self.extents[group[0]] if size is None else size for group, size in zip(self.groups, self.sizes)]
        return self.split_up(sizes)

    def split_up(self, index) -> list:
        """An index, or the shape, of the matrix as it is made."""
        dim, width = self.vector
        if width == 1:
            return list(index)
        whole = isinstance(index[dim], int) and index[dim] == self.sizes[dim]
        return [*index[:dim], index[dim] // width, *index[dim + 1:], width if whole else index[dim] % width]

    def index(self, logical) -> list:
        """Physical index of a logical one."""
        found = []
        for group in self.groups:
            at = logical[group[0]]
            for d in group[1:]:
                at = at * self.extents[d] + logical[d]
            found.append(at)
        return found

    def logical(self, physical) -> list:
        """Logical index of a physical one; along the first dim of a group it may exceed the data."""
        out, (dim, width) = [None] * len(self.extents), self.vector
        for j, (group, at) in enumerate(zip(self.groups, physical)):
            extents = {d: self.extents[d] for d in group}
            if j == dim and width > 1:
                extents[group[-1]] //= width
            for d in reversed(group[1:]):
                out[d], at = at % extents[d], at // extents[d]
            out[group[0]] = at
            if j == dim and width > 1:
                out[group[-1]] = out[group[-1]] * width + physical[-1]
        return out

    def tags(self, names) -> list:
        """One (axis name, part) per dim in memory; merged dims have no name of their own."""
        return [("_".join(names[d] for d in group), "full") for group in self.groups]


@dataclass(frozen=True)
class Tile:
    """What one block computes: rows × columns, terms at a time, by `down` × `across` warps; `ahead`: the next terms are on their way meanwhile."""

    rows: int
    columns: int
    terms: int
    down: int
    across: int
    ahead: bool = False

    @staticmethod
    def of(text: str) -> "Tile":
        """From a knob's value, for example "64x64x32/2x2/ahead"."""
        block, warps, *more = text.split("/")
        return Tile(*map(int, block.split("x")), *map(int, warps.split("x")), more == ["ahead"])

    def __str__(self):
        return f"{self.rows}x{self.columns}x{self.terms}/{self.down}x{self.across}" + "/ahead" * self.ahead


def layouts(program, stage, product: Product, tile: Tile) -> tuple:
    """(data, weights, sums) as Merged layouts. Logical dims: of data batch, rows and terms, of weights columns and terms, of sums the stage's axes."""
    extents = access.extents(stage)
    up = lambda n, step: -(-n // step) * step
    rows, columns, terms = (up(n, step) for n, step in zip(product.sizes(stage), (tile.rows, tile.columns, tile.terms)))

    def merged(axes, *groups, vector=(0, 1)):
        return Merged([extents[a] for a in axes], [[axes.index(n) for n in names] for names, _ in groups], [size for _, size in groups], vector)
    batch = [((n,), None) for n in product.batch]
    along, width = run_of_data(program, stage, product)
    return (merged([*product.batch, *product.rows, *product.terms], *batch, (product.rows, rows), (product.terms, terms), vector=(len(batch) + along, width)),
            merged([*product.columns, *product.terms], (product.terms, terms), (product.columns, columns)),
            merged([a.name for a in stage.axes], *batch, (product.rows, rows), (product.columns, columns)))


def axes_of(product: Product) -> tuple:
    """The logical dims of data and weights, by axis, as `layouts` has them."""
    return [*product.batch, *product.rows, *product.terms], [*product.columns, *product.terms]
