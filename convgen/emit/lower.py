"""From a plan to tensor expressions: one PrimFunc for the call, one for preparing the parameters."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import tvm
from tvm import te, tirx

from ..lang import access, expr as E
from ..lang.count import BYTES
from ..lang.ranges import interval, whole
from ..lang.size import tree_of, value_of
from . import border, matrix, vector_math
from . import plan as P
from .launches import size


@dataclass
class Block:
    """What a schedule may know of one block: the roles of its loops, never the operator.

    `loops`: (axis, part) per loop, part "full", "outer" (blocks of the vector axis) or "lanes". `kind`: "reduce", "map", "copy", "finish" (the store stage
    in the layout of the tiles) or "store".
    """

    name: str
    kind: str
    loops: list
    stage: str
    lanes: int
    reduce: list = field(default_factory=list)  # (axis, "window" | "channel" | "table")
    reads: list = field(default_factory=list)  # names of copy blocks made for this one
    producers: list = field(default_factory=list)  # names of earlier stages whose results it reads without a border
    vec: str = ""
    tiles: tuple = (None, None)  # axes of the register tile, innermost first
    sizes: tuple = (1, 1)  # its steps along them
    rows: str | None = None  # the axis whose steps are rows of positions
    turn: object = None  # the plan's Turn of a copy or store between rows of memory and vectors across them
    tested: bool = False  # whether terms are conditional, because some meet nothing but padding
    separate: bool = False  # whether the tiles of a row leave out different terms, so that each needs its own code
    moves: tuple = ()  # axes of the output that it depends on
    batch: tuple = ()  # of the output: the axes that only ever count samples
    narrow: int = 1  # how many elements of what it writes fit where a float32 does
    dot: object = None  # the dot.Dot that its innermost loops are
    data: str = ""  # dtype in which it finds the dot product's data
    matrix: object = None  # the matrix.Product that it is
    runs: tuple = ()  # of such a product: matrix.run_of_data, matrix.run_of_output
    parameters: dict = field(default_factory=dict)  # names of the prepared parameters that it reads, and how many of their elements one instruction may move
    steady: list = field(default_factory=list)  # axes of a map that no gathered position depends on, none where it gathers nothing
    wide: int = 1  # how many elements of a copy one instruction may move
    along: int | None = None  # which of its loops a copy of a stage's result runs along where that has its neighbours in memory
    spread: list = field(default_factory=list)  # how a block of threads lies on its axes (simt.Tile), none where the plan has no such tiles
    share: object = None  # how threads share its sums (simt.Share)
    columns: tuple | None = None  # axes along which its producers can run part by part (plan.columns)


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


class _Lowering:
    def __init__(self, plan, math=vector_math):
        self.plan, self.program, self.math = plan, plan.program, math
        self.batch = te.var("N") if self.program.any_batch else None
        self.tensors, self.border, self.blocks = {}, {}, []
        self.ranges = {}  # axis → (first, last) of the stage at hand
        self.moved = access.moved(self.program)
        for t in self.program.tensors:
            perm = t.permutation(self.program.layout)
            shape = [self._dim(t.trees[d], t.shape[d]) for d in perm]
            self.border[t.name] = (te.placeholder(shape, t.dtype, name=t.name), perm)

    def _dim(self, tree, value):
        return self.batch if self.batch is not None and tree == "N" else value

    def _axis_extent(self, stage, name, value):
        axis = next((a for a in [*stage.axes, *stage.reduce] if a.name == name), None)
        return self.batch if self.batch is not None and axis is not None and tree_of(axis.size) == "N" else value

    # -- expressions ----------------------------------------------------------------------------------------------------
    def value(self, e, axes, read, indexing=False):
        """A TIR expression. `axes`: axis name → index; `read(load, index)`: the element of a tensor; `indexing`: it becomes a position."""
        op = e.op
        if op == "axis":
            return axes[e.data]
        if op == "const":
            return tirx.const(e.data, access.computed(e))
        if op == "size":
            return self._dim(e.data[0], tirx.const(e.data[1], "int32"))
        if op == "load":
            return read(e, [self.value(a, axes, read) for a in e.args])
        if op == "table":  # folds to one constant where the loops are unrolled
            at, chosen = self.value(e.args[0], axes, read), tirx.const(e.data[-1], "float32")
            for i, v in reversed(list(enumerate(e.data[:-1]))):
                chosen = tirx.Select(tirx.EQ(at, tirx.const(i, "int32")), tirx.const(v, "float32"), chosen)
            return chosen
        if op == "single" and e.args[0].op in self.math.ROUNDED:
            return self.math.ROUNDED[e.args[0].op](*(self.value(x, axes, read, indexing) for x in e.args[0].args))
        a = [self.value(x, axes, read, indexing or op == "int") for x in e.args]
        if op == "//" and e.args[0].op in ("+", "-") and (d := E.constant(e.args[1])):
            # TVM 0.27 takes (i % m + k) // d, which fused loops become, for ((i + k) % m) // d; a truncating division it leaves alone
            low = _LEAST if set(e.args[0].axes()) - set(self.ranges) else interval(e.args[0], self.ranges)[0]
            up = 0 if low >= 0 else -(max(low, _LEAST) // d)
            return tirx.truncdiv(a[0] + up * d, a[1]) - up
        if op == "select":
            heavy = any(x.op == "load" for x in e.args[1].walk()) or any(x.op == "load" for x in e.args[2].walk())
            return tirx.if_then_else(*a) if heavy else tirx.Select(*a)
        if op in self.math.FUNCTIONS:
            return self.math.FUNCTIONS[op](a[0])
        if op in ("min", "max") and e.dtype == "float":
            limits = [not x.loads() for x in e.args]
            # A comparison with NaN is false and takes the second operand: relu keeps NaN as PyTorch does, a clamped position stays inside.
            if limits[0] != limits[1] and limits[1] != indexing:
                a.reverse()
        return _OPS[op](*a)

    # -- reads ----------------------------------------------------------------------------------------------------------
    def element(self, name, index, padding, skip=(), fill=None, stored=False):
        """One element of a border tensor or stage result in the dtype of computing, or as it is `stored`, padding included. `index` counts from the first padded position.

        Dims in `skip` are never read at their padding. `fill`: what continues the tensor where that is a parameter's value.
        """
        of = _element if not stored else lambda tensor, at: tensor(*at)
        if name in self.border:
            tensor, perm = self.border[name]
            spec = self.program.tensor(name)
            extents = [self._dim(spec.trees[d], spec.shape[d]) for d in range(len(index))]
            place = lambda i: [i[d] for d in perm]
        else:
            tensor, layout, stage = self.tensors[name]
            extents = [self._dim(tree_of(a.size), value_of(a.size)) for a in stage.axes]
            place = layout.index
        if padding is None:
            return of(tensor, place(index))
        guard, mapped = [], []
        for d, (i, n, pair) in enumerate(zip(index, extents, padding.amounts)):
            lo, hi = (value_of(v) for v in pair)
            if not lo and not hi:
                mapped.append(i)
                continue
            i = i - lo
            if d in skip:
                pass
            elif padding.mode in ("zeros", "value"):
                guard.append(tirx.all(i >= 0, i < n))
            elif padding.mode == "replicate":
                i = te.max(te.min(i, n - 1), 0)
            elif padding.mode == "circular":
                i = tirx.floormod(i, n)
            else:
                i = tirx.Select(i < 0, 0 - i, i)
                i = te.max(tirx.Select(i > n - 1, 2 * (n - 1) - i, i), 0)
            mapped.append(i)
        value = of(tensor, place(mapped))
        return tirx.if_then_else(tirx.all(*guard), value, _zero(value) if fill is None else fill) if guard else value

    def fill(self, p, load):
        """What continues a read beyond its tensor where that is a parameter's value, else None."""
        fill = load.data[1].fill if load.data[1] is not None else None
        return None if fill is None else _element(self.tensors[p.operands[P.key(fill)].name], [0])

    def reader(self, p):
        """How stage `p` reads: through its copies, or straight, clamped where whole tiles reach beyond the data."""
        true = access.extents(p.stage)
        beyond = {n for n in true if p.extents.get(n, true[n]) > true[n]}
        if p.layout.blocks * p.lanes > true[p.vec]:
            beyond.add(p.vec)

        def read(load, index):
            operand = p.operands.get(P.key(load))
            if operand is not None and operand.kind in ("staged", "packed"):
                return _element(self.tensors[operand.name], operand.layout.index([self._coord(c, index) for c in operand.coords]))
            name, padding = load.data
            made = self.plan.stage(name)
            there = {d for d, a in enumerate(load.args) if made is not None and made.stage.combiner is None and a.op == "axis" and made.extents[made.stage.axes[d].name] >= p.extents[a.data] > true[a.data]}
            clamp = {d for d, a in enumerate(load.args) if d not in there and beyond & set(a.axes()) and not any(access.padding(load, d))}
            stored = self.tensors.get(name)
            if (source := self.plan.stage(name)) is not None:  # what tiles of the output lengthen is there
                clamp -= {d for d, a in enumerate(source.stage.axes) if a.name in source.longer}
            if stored is not None and not access.padded(load) and stored[1].split in clamp:  # whole blocks beyond the end: clamp the block, so that lanes stay side by side
                tensor, layout, _ = stored
                clamp.discard(layout.split)
                physical = layout.index([te.min(i, self._extent_of(name, d) - 1) if d in clamp else i for d, i in enumerate(index)])
                at = layout.order.index(layout.split)
                physical[at] = te.min(physical[at], layout.blocks - 1)
                return _element(tensor, physical)
            index = [te.min(i, self._extent_of(name, d) - 1) if d in clamp else i for d, i in enumerate(index)]
            return self.element(name, index, padding, operand.skip if operand else (), self.fill(p, load))
        return read

    def without_padding(self, p, term):
        """`term` of stage `p` if every read that leaves out its padding meets data, else zero: nested conditionals, the outermost dim tested first."""
        tests = []
        for operand in p.operands.values():
            for d in operand.skip:
                at = self.value(operand.load.args[d], self.axes, None) - access.padding(operand.load, d)[0]
                tests.append(tirx.all(at >= 0, at < self._extent_of(operand.source, d)))
        for test in reversed(tests):
            term = tirx.if_then_else(test, term, _zero(term))
        return term

    def _extent_of(self, name, d):
        spec = self.program.tensor(name)
        if spec is not None:
            return self._dim(spec.trees[d], spec.shape[d])
        return value_of(self.program.stage(name).axes[d].size)

    def _coord(self, coord, index):
        return 0 if coord[0] == "one" else self.axes[coord[1]] if coord[0] == "axis" else index[coord[1]] - coord[2]

    def _caller_shape(self, t):
        return [self._dim(tree, size) for _, tree, size in t.memory(self.program.layout)]

    # -- stages ---------------------------------------------------------------------------------------------------------
    def copy(self, operand, p):
        """The staged copy of one read, zero where neither data nor padding reaches."""
        if operand.name in self.tensors:
            return
        layout, load, stage = operand.layout, operand.load, p.stage
        shape_extents = [self.batch if self.batch is not None and i == operand.batch else e for i, e in enumerate(layout.extents)]
        layout.extents = shape_extents
        true = access.extents(stage)
        self.ranges = P.ranges_of(p)
        at = {c[1]: i for i, c in enumerate(operand.coords) if c[0] == "dim"}

        def body(*physical):
            logical = layout.logical(physical)
            axes = {c[1]: v for c, v in zip(operand.coords, logical) if c[0] == "axis"}
            index, guard = [], []
            for d, a in enumerate(load.args):
                i = logical[at[d]] + operand.coords[at[d]][2] if d in at else self.value(a, axes, None)
                index.append(i)
            for name, v in axes.items():
                if name == p.vec and p.layout.blocks * p.lanes > true[name] or p.extents[name] > true[name]:
                    guard.append(v < true[name])
            if layout.split is not None and operand.coords[layout.split][0] == "dim" and layout.overhangs:
                guard.append(logical[layout.split] < layout.extents[layout.split])
            name, padding = load.data
            for d, i in enumerate(index):
                if not any(access.padding(load, d)) and d in at:
                    span = operand.coords[at[d]][2] + operand.layout.extents[at[d]] if not isinstance(operand.layout.extents[at[d]], tirx.Var) else None
                    limit = self._extent_of(name, d)
                    if span is not None and isinstance(limit, int) and span > limit:
                        index[d] = te.min(i, limit - 1)
            as_it_is = p.matrix is not None
            value = self.element(name, index, padding, operand.skip, self.fill(p, load), stored=as_it_is)
            value = value if as_it_is else _stored(value, operand.dtype)
            return tirx.if_then_else(tirx.all(*guard), value, _zero(value)) if guard else value
        self.tensors[operand.name] = te.compute(layout.shape, body, name=operand.name)
        names = [c[1] if c[0] == "axis" else f"{operand.source}.{c[1]}" for c in operand.coords]
        follows = lambda axes: any(axes & set(a.axes()) for a in load.args)
        source = self.tensors[load.data[0]][1].order[-1] if load.data[0] in self.tensors else None
        along = layout.order.index(at[source]) if source in at and layout.split is None else None
        self.blocks.append(Block(operand.name, "copy", layout.tags(names), stage.name, layout.lanes, turn=P.copy_turn(self.program, p, operand), moves=self._moves(stage, follows),
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
                return tirx.if_then_else(self.axes[p.vec] < true[p.vec], value, _zero(value))
            value = self.without_padding(p, self.value(stage.body, self.axes, read))
            return _COMBINE[stage.combiner](value, axis=list(reduced.values())) if stage.combiner else value
        tensor = te.compute(layout.shape, body, name=stage.name)
        self.tensors[stage.name] = (tensor, layout, stage)
        roles = access.roles(stage)
        self.blocks.append(Block(stage.name, "reduce" if stage.combiner else "map", layout.tags(names), stage.name, p.lanes,
                                 [(a.name, roles.of(a.name)) for a in stage.reduce],
                                 [o.name for o in p.operands.values() if o.kind == "staged"],
                                 [o.source for o in p.operands.values() if o.kind == "stage" and not access.padded(o.load)], p.vec, P.tile_axes(self.program, stage, p.vec), p.tile,
                                 (roles.spatial[-2:-1] or [None])[0], tested=any(o.skip for o in p.operands.values()) or self._conditional(p), separate=p.row is not None, moves=self._moves(stage, bool),
                                 dot=p.dot, data=self.data_dtype(p), parameters={o.name: o.wide for o in p.operands.values() if o.kind == "packed"}, spread=p.spread, share=p.share, steady=access.steady(stage),
                                 columns=P.columns(self.program, stage, p.vec)))

    def across(self, p, names, read):
        """A reduction in two steps: every lane of the vectors that it reads for itself, then the lanes."""
        stage, layout, (axis, lanes) = p.stage, p.layout, p.across
        combine, step, lane = _COMBINE[stage.combiner], te.reduce_axis((0, p.extents[axis] // lanes), name=axis), te.reduce_axis((0, lanes), name="lane")

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
        shape = [self._dim(spec.trees[d], spec.shape[d]) for d in perm]
        self.ranges = whole(access.extents(stage))

        def read(load, index):
            operand = plan.store_operands.get(P.key(load)) or (plan.stage(stage.name).operands.get(P.key(load)) if plan.output else None)
            if operand is not None and operand.kind == "packed":
                return _element(self.tensors[operand.name], operand.layout.index([self._coord(c, index) for c in operand.coords]))
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

    def prepare(self):
        """(outputs, module) of the parameter side: bind-time stages, then every packed layout."""
        for stage in self.program.bind_stages:
            names = [a.name for a in stage.axes]
            reduced = {a.name: te.reduce_axis((0, value_of(a.size)), name=a.name) for a in stage.reduce}

            def body(*index):
                axes = dict(zip(names, index)) | reduced
                value = self.value(stage.body, axes, lambda load, i: self.element(load.data[0], i, load.data[1]))
                return _COMBINE[stage.combiner](value, axis=list(reduced.values())) if stage.combiner else value
            layout = P.Layout([value_of(a.size) for a in stage.axes])
            self.tensors[stage.name] = (te.compute(layout.shape, body, name=stage.name), layout, stage)
        made = []
        for operand in self.plan.packed:
            layout, load = operand.layout, operand.load

            def body(*physical):
                logical = layout.logical(physical)
                axes = {c[1]: v for c, v in zip(operand.coords, logical) if c[0] == "axis"}
                index = [self.value(a, axes, None) for a in load.args]
                guard, inside = [], []
                for d, i in enumerate(index):
                    limit = self._extent_of(load.data[0], d)
                    span = interval(load.args[d], {c[1]: (0, (layout.blocks * layout.lanes if k == layout.split else e) - 1)
                                                   for k, (c, e) in enumerate(zip(operand.coords, layout.extents)) if c[0] == "axis"})
                    if span[1] >= limit:
                        guard.append(i < limit)
                    inside.append(i)
                stage_extent = self.true_extents[operand.name]
                for k, (c, v) in enumerate(zip(operand.coords, logical)):
                    whole = layout.blocks * layout.lanes if k == layout.split else layout.extents[k]
                    if c[0] == "axis" and whole > stage_extent[c[1]]:
                        guard.append(v < stage_extent[c[1]])
                value = self.element(load.data[0], inside, load.data[1]).astype(operand.dtype)
                return tirx.if_then_else(tirx.all(*guard), value, _zero(value)) if guard else value
            made.append(te.compute(layout.shape, body, name=operand.name))
        return made

    def result(self, symbol) -> Lowered:
        plan, program = self.plan, self.program
        self.true_extents = {}
        for p in plan.stages:
            for o in p.operands.values():
                self.true_extents[o.name] = access.extents(p.stage)
        for p in plan.stages:
            if p.store is not None:
                for o in plan.store_operands.values():
                    self.true_extents[o.name] = access.extents(p.store)
        packed = self.prepare()
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
        blocks = _needed(self.blocks, out)
        return Lowered(module(run, f"{symbol}_run"), module(noted(prepare, prepare_args), f"{symbol}_prepare") if prepare is not None else None, args, prepare_args, blocks)

    def _arg(self, t):
        memory = t.memory(self.program.layout)
        perm = [d for d, _, _ in memory]
        shape = ["N" if self.batch is not None and tree == "N" else size for _, tree, size in memory]
        return {"name": t.name, "kind": t.kind, "shape": shape, "perm": perm if perm != sorted(perm) else None, "dtype": t.dtype}

    def _packed_arg(self, o):
        return {"name": o.name, "kind": "packed", "shape": [int(v) for v in o.layout.shape], "perm": None, "dtype": o.dtype}


def _needed(blocks, out):
    """The blocks that became part of the function: where a condition never holds, nothing reads what lies behind it."""
    names, left = set(), [out]
    while left:
        tensor = left.pop()
        if tensor.op.name not in names:
            names.add(tensor.op.name)
            left.extend(tensor.op.input_tensors)
    keep = lambda found: [n for n in found if n in names]
    return [replace(b, reads=keep(b.reads), producers=keep(b.producers)) for b in blocks if b.name in names]


def _element(tensor, index):
    """An element in the dtype of computing: integers in int32, other values in float32."""
    value, stored = tensor(*index), str(tensor.dtype)
    if stored == "uint16":  # the bits of a bfloat16
        return tirx.reinterpret("float32", value.astype("uint32") << 16)
    wide = "int32" if stored in E.INTEGERS else "float32"
    return value if stored == wide else value.astype(wide)


def _stored(value, dtype):
    """A value of computing as a copy keeps it."""
    return (tirx.reinterpret("uint32", value) >> 16).astype(dtype) if dtype == "uint16" else value.astype(dtype)


def _zero(value):
    return tirx.const(0, str(value.ty))


_LEAST = -(1 << 20)  # below every index whose axes are not known
_COMBINE = {"sum": te.sum, "max": te.max, "min": te.min}
_OPS = {
    "+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "/": lambda a, b: a / b, "//": tirx.floordiv, "%": tirx.floormod,
    "min": te.min, "max": te.max, "==": lambda a, b: a.equal(b) if hasattr(a, "equal") else tirx.EQ(a, b), "!=": lambda a, b: tirx.NE(a, b), "<": lambda a, b: a < b, "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b, ">=": lambda a, b: a >= b, "and": tirx.all, "or": tirx.any, "not": lambda a: tirx.Not(a), "neg": lambda a: 0 - a,
    "abs": te.abs, "sqrt": te.sqrt, "floor": te.floor, "round": tirx.nearbyint, "single": lambda a: a, "float": lambda a: a.astype("float32"), "int": lambda a: a.astype("int32"),
}


def lower(plan, symbol: str, math=vector_math) -> Lowered:
    """TE and PrimFuncs of a plan. `symbol` is the prefix of the exported names; `math` says how functions are written (vector_math, device_math)."""
    return _Lowering(plan, math).result(symbol)
