"""From a plan to tensor expressions: one PrimFunc for the call, one for preparing the parameters."""

from __future__ import annotations

from dataclasses import dataclass

import tvm
from tvm import te, tirx

from ..lang import access, expr as E
from ..lang.count import BYTES
from ..lang.ranges import whole
from ..lang.size import tree_of
from . import border, matrix, packing, tiling, turns, vector_math
from . import plan as P
from .blocks import Block, needed
from .launches import size
from .reads import Reads
from .values import COMBINE, element_of, stored_as, zero


@dataclass
class Lowered:
    """`run` and `prepare` (or None) as IRModules, their argument lists, and the blocks of `run` in order. Callers' shapes are noted on both (border.restored)."""

    run: object
    prepare: object
    args: list
    prepare_args: list
    blocks: list

    @property
    def shapes(self) -> list:
        """Of everything that one call reads, writes or keeps for itself, before loops shrink it: ints, or size expressions of an open batch."""
        f = self.run["main"]
        return [[size(n) for n in b.shape] for b in (*f.params, *f.body.block.alloc_buffers)]


class _Lowering(Reads):
    def __init__(self, plan, math=vector_math):
        super().__init__(plan, math)
        self.blocks, self.moved = [], access.moved(plan.program)

    def copy(self, operand, p):
        """The staged copy of one read, zero where neither data nor padding reaches."""
        if operand.name in self.tensors:
            return
        layout, load, stage = operand.layout, operand.load, p.stage
        layout.extents = [self.batch if self.batch is not None and i == operand.batch else e for i, e in enumerate(layout.extents)]
        true, as_it_is, (name, padding) = access.extents(stage), p.matrix is not None, load.data
        self.ranges = P.ranges_of(p)
        at = {c[1]: i for i, c in enumerate(operand.coords) if c[0] == "dim"}

        def position(d, logical, axes):
            if d not in at:
                return self.value(load.args[d], axes, None)
            start, length, limit = operand.coords[at[d]][2], layout.extents[at[d]], self.extent_of(name, d)
            reaches = isinstance(length, int) and isinstance(limit, int) and start + length > limit
            return te.min(logical[at[d]] + start, limit - 1) if reaches and not any(access.padding(load, d)) else logical[at[d]] + start

        def body(*physical):
            logical = layout.logical(physical)
            axes = {c[1]: v for c, v in zip(operand.coords, logical) if c[0] == "axis"}
            guard = [v < true[a] for a, v in axes.items() if a == p.vec and p.layout.blocks * p.lanes > true[a] or p.extents[a] > true[a]]
            if layout.overhangs and operand.coords[layout.split][0] == "dim":
                guard.append(logical[layout.split] < layout.extents[layout.split])
            value = self.element(name, [position(d, logical, axes) for d in range(len(load.args))], padding, operand.skip, self.fill(p, load), stored=as_it_is)
            value = value if as_it_is else stored_as(value, operand.dtype)
            return tirx.if_then_else(tirx.all(*guard), value, zero(value)) if guard else value
        self.tensors[operand.name] = te.compute(layout.shape, body, name=operand.name)
        names = [c[1] if c[0] == "axis" else f"{operand.source}.{c[1]}" for c in operand.coords]
        follows = lambda axes: any(axes & set(a.axes()) for a in load.args)
        source = self.tensors[name][1].order[-1] if name in self.tensors else None
        along = layout.order.index(at[source]) if source in at and layout.split is None else None
        self.blocks.append(Block(operand.name, "copy", layout.tags(names), stage.name, layout.lanes, turn=turns.of_copy(self.program, p, operand), moves=self._moves(stage, follows),
                                 narrow=4 // BYTES[operand.dtype], wide=operand.wide, along=along))

    def stage(self, p):
        """One run-time stage in its layout."""
        stage, layout = p.stage, p.layout
        for operand in p.operands.values():
            if operand.kind == "staged":
                self.copy(operand, p)
        names = [a.name for a in stage.axes]
        layout.extents = [self._axis_extent(stage, n, e) for n, e in zip(names, layout.extents)]
        reduced = {a.name: te.reduce_axis((0, p.extents[a.name]), name=a.name) for a in stage.reduce}
        if p.matrix is not None:
            return self.product(p)
        read = self.reader(p)
        true = access.extents(stage)
        self.ranges = P.ranges_of(p)
        if p.across is not None:
            return self.across(p, names, read)

        def body(*physical):
            logical = layout.logical(physical)
            self.axes = dict(zip(names, logical)) | reduced
            if not stage.combiner and layout.overhangs:  # a map's last block must not read what is not there
                value = self.value(stage.body, self.axes, read)
                return tirx.if_then_else(self.axes[p.vec] < true[p.vec], value, zero(value))
            value = self.without_padding(p, self.value(stage.body, self.axes, read))
            return COMBINE[stage.combiner](value, axis=list(reduced.values())) if stage.combiner else value
        tensor = te.compute(layout.shape, body, name=stage.name)
        self.tensors[stage.name] = (tensor, layout, stage)
        self.blocks.append(self._block(p))

    def _block(self, p) -> Block:
        """What a schedule may know of a stage."""
        stage, roles, operands = p.stage, access.roles(p.stage), p.operands.values()
        return Block(
            stage.name, "reduce" if stage.combiner else "map", p.layout.tags([a.name for a in stage.axes]), stage.name, p.lanes, vec=p.vec,
            reduce=[(a.name, roles.of(a.name)) for a in stage.reduce],
            reads=[o.name for o in operands if o.kind == "staged"],
            producers=[o.source for o in operands if o.kind == "stage" and not access.padded(o.load)],
            parameters={o.name: o.wide for o in operands if o.kind == "packed"},
            tiles=tiling.tile_axes(self.program, stage, p.vec), sizes=p.tile, rows=(roles.spatial[-2:-1] or [None])[0], columns=tiling.columns(self.program, stage, p.vec),
            tested=any(o.skip for o in operands) or self._conditional(p), separate=p.row is not None, moves=self._moves(stage, bool), steady=access.steady(stage),
            dot=p.dot, data=self.data_dtype(p), spread=p.spread, share=p.share, slide=tiling.slide(self.program, stage, p.vec), finishes=self._finishes(p))

    def across(self, p, names, read):
        """A reduction in two steps: every lane of the vectors that it reads for itself, then the lanes."""
        stage, layout, (axis, lanes) = p.stage, p.layout, p.across
        combine, step, lane = COMBINE[stage.combiner], te.reduce_axis((0, p.extents[axis] // lanes), name=axis), te.reduce_axis((0, lanes), name="lane")

        def part(*at):
            self.axes = dict(zip(names, at)) | {axis: step * lanes + at[-1]}
            return combine(self.value(stage.body, self.axes, read), axis=step)
        parts = te.compute([*layout.extents, lanes], part, name=f"{stage.name}_lanes")
        self.tensors[stage.name] = (te.compute(layout.shape, lambda *at: combine(parts(*layout.logical(at), lane), axis=lane), name=stage.name), layout, stage)
        moves = self._moves(stage, bool)
        self.blocks += [Block(parts.op.name, "lanes", [*((n, "full") for n in names), (axis, "lanes")], stage.name, lanes, moves=moves),
                        Block(stage.name, "across", layout.tags(names), stage.name, lanes, reads=[parts.op.name], moves=moves)]

    def product(self, p):
        """A stage as a product of matrices."""
        data, weights = (p.operands[P.key(load)] for load in (p.matrix.data, p.matrix.weight))
        terms = te.reduce_axis((0, weights.layout.shape[0]), name="terms")
        wide = lambda operand, index: self.tensors[operand.name](*index).astype("float32")
        body = lambda *at: te.sum(wide(data, data.layout.split_up([*at[:-1], terms])) * wide(weights, [terms, at[-1]]), axis=terms)
        self.tensors[p.stage.name] = (te.compute(p.layout.shape, body, name=p.stage.name), p.layout, p.stage)
        self.blocks.append(Block(p.stage.name, "matrix", p.layout.tags([a.name for a in p.stage.axes]), p.stage.name, 1, reads=[o.name for o in p.operands.values() if o.kind == "staged"],
                                 moves=self._moves(p.stage, bool), matrix=p.matrix, runs=(matrix.run_of_data(self.program, p.stage, p.matrix), matrix.run_of_output(self.program, p.stage, p.matrix))))

    def _finishes(self, p) -> str:
        """The sum that a map finishes, where both have one layout of whole vectors: TVM cannot follow a condition on lanes from the one to the other."""
        source = self.plan.stage(access.finishes(self.program, p.stage))
        alike = source is not None and not p.layout.overhangs and source.across is None and source.matrix is None and source.layout.like(p.layout)
        return source.stage.name if alike else ""

    @staticmethod
    def _conditional(p) -> bool:
        """Whether a stage's terms are zero under a condition that all lanes share."""
        body = p.stage.body
        return p.stage.combiner == "sum" and body.op == "select" and E.is_const(body.args[2], 0.0) and p.vec not in body.args[0].axes() and bool(body.args[1].loads())

    def data_dtype(self, p):
        """In what dtype a stage finds the data of its dot product."""
        operand = p.operands[P.key(p.dot.data)] if p.dot is not None else None
        return "" if operand is None else operand.dtype if operand.kind == "staged" else p.dot.dtypes[0]

    def output(self):
        """The output tensor: the last tiles through the epilogue, or a map of its own."""
        spec, plan = self.program.output, self.plan
        perm = spec.permutation(self.program.layout)
        back = [perm.index(d) for d in range(len(perm))]
        anchor = next((p for p in plan.stages if p.is_output), None)
        stage = plan.output or anchor.store or anchor.stage
        names = [a.name for a in stage.axes]
        shape = [self.dim(spec.trees[d], spec.shape[d]) for d in perm]
        self.ranges = whole(access.extents(stage))

        def read(load, index):
            operand = plan.store_operands.get(P.key(load)) or (plan.stage(stage.name).operands.get(P.key(load)) if plan.output else None)
            if operand is not None and operand.kind == "packed":
                return element_of(self.tensors[operand.name], operand.layout.index([self._coord(c, index) for c in operand.coords]))
            return self.element(load.data[0], index, load.data[1], fill=self.fill(plan.stage(stage.name), load) if plan.output else None)

        finished = anchor.stage.name if anchor else None
        if plan.turn and stage is anchor.store:
            def finish(*physical):
                self.axes = dict(zip(names, anchor.layout.logical(physical)))
                return self.value(stage.body, self.axes, read)
            finished = "finish"
            self.tensors[finished] = (te.compute(anchor.layout.shape, finish, name=finished), anchor.layout, anchor.stage)
            self.blocks.append(Block(finished, "finish", anchor.layout.tags(names), anchor.stage.name, anchor.lanes, moves=tuple(names)))

        def body(*physical):
            logical = [physical[b] for b in back]
            self.axes = dict(zip(names, logical))
            if anchor is not None and (plan.turn or stage is anchor.stage):
                value = self.element(finished, logical, None)
            else:
                value = self.value(stage.body, self.axes, read)
            return value if str(value.ty) == spec.dtype else value.astype(spec.dtype)
        tensor = te.compute(shape, body, name="out")
        tags = [(names[d], "full") for d in perm]
        p = anchor or plan.stage(stage.name)
        batch = tuple(a.name for a in stage.axes if tree_of(a.size) == "N")
        self.blocks.append(Block("out", "store" if anchor else "map", tags, p.stage.name, p.lanes, vec=p.vec, turn=plan.turn, batch=batch))
        return tensor

    def _moves(self, stage, follows) -> tuple:
        """Axes of the output that something of `stage` depends on; `follows(axes of the stage)` says whether it does."""
        return tuple(a for a, axes in self.moved.get(stage.name, {}).items() if follows(axes))

    def _axis_extent(self, stage, name, value):
        axis = next((a for a in [*stage.axes, *stage.reduce] if a.name == name), None)
        return self.batch if self.batch is not None and axis is not None and tree_of(axis.size) == "N" else value

    def result(self, symbol) -> Lowered:
        plan, program = self.plan, self.program
        packed = packing.packed(self, plan)
        for o, t in zip(plan.packed, packed):
            self.tensors[o.name] = te.placeholder(t.shape, o.dtype, name=o.name)
        placeholders = [self.tensors[o.name] for o in plan.packed]
        for p in plan.stages:
            if p.stage is not plan.output:
                self.stage(p)
            else:
                for operand in p.operands.values():
                    if operand.kind == "staged":
                        self.copy(operand, p)
        out = self.output()
        inputs = [t for t in program.tensors if t.kind == "input"]
        params = [t for t in program.tensors if t.kind == "param"]
        run = te.create_prim_func([*(self.border[t.name][0] for t in inputs), *placeholders, out])
        args = [self._arg(t) for t in inputs] + [self._packed_arg(o) for o in plan.packed] + [self._arg(program.output)]
        prepare = prepare_args = None
        if packed:
            prepare = te.create_prim_func([*(self.border[t.name][0] for t in params), *packed])
            prepare_args = [self._arg(t) for t in params] + [self._packed_arg(o) for o in plan.packed]
        module = lambda f, name: tvm.IRModule({"main": f.with_attr("global_symbol", name)})
        merged = {t.name: self._caller_shape(t) for t in [*program.tensors, program.output] if t.parts is not None}
        noted = lambda f, given: border.noted(f, [merged.get(a["name"]) if a["kind"] != "packed" else None for a in given])
        run = noted(run, args)
        blocks = needed(self.blocks, out)
        return Lowered(module(run, f"{symbol}_run"), module(noted(prepare, prepare_args), f"{symbol}_prepare") if prepare is not None else None, args, prepare_args, blocks)

    def _caller_shape(self, t):
        return [self.dim(tree, size) for _, tree, size in t.memory(self.program.layout)]

    def _arg(self, t):
        memory = t.memory(self.program.layout)
        perm = [d for d, _, _ in memory]
        shape = ["N" if self.batch is not None and tree == "N" else size for _, tree, size in memory]
        return {"name": t.name, "kind": t.kind, "shape": shape, "perm": perm if perm != sorted(perm) else None, "dtype": t.dtype}

    def _packed_arg(self, o):
        return {"name": o.name, "kind": "packed", "shape": [int(v) for v in o.layout.shape], "perm": None, "dtype": o.dtype}


def lower(plan, symbol: str, math=vector_math) -> Lowered:
    """TE and PrimFuncs of a plan. `symbol` is the prefix of the exported names; `math` says how functions are written (vector_math, device_math)."""
    return _Lowering(plan, math).result(symbol)
