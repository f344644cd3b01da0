"""The plan of a kernel: for every stage its vector axis and layout, for every read whether it is direct, staged or packed.

Pure Python over the description and a choice of knobs; no TVM, no target, no operator name. Schedule spaces use it to count bytes
before anything is compiled, the lowering builds exactly what it says.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ..lang import access, cuts, expr as E
from ..lang.count import BYTES
from ..lang.ranges import interval
from ..lang.size import tree_of, value_of
from . import banded, borders, dot, matrix, turns
from .layout import Layout
from .tiling import columns, is_batch, reduce_order, tile_axes, tile_sizes, vector_kinds


@dataclass
class Operand:
    """How one read reaches its data. `coords` are the dims of the staged or packed copy: ("dim", d, first), ("axis", name) or ("one",).

    `dtype`: of the copy. Integers, and what a dot product takes, are copied as they are stored, other values as float32.
    """

    load: E.Expr
    kind: str  # "raw", "stage" (an earlier stage's result), "staged" (copied per call), "packed" (prepared when bound)
    name: str = ""
    coords: list = field(default_factory=list)
    layout: Layout | None = None
    batch: int | None = None  # the coord that is the batch
    skip: tuple = ()  # padded dims at which whole terms are left out, instead of reading zeros
    dtype: str = "float32"
    wide: int = 1  # so many elements of a staged copy are neighbours at their source, too, and begin at multiples of as many

    @property
    def source(self) -> str:
        return self.load.data[0]


@dataclass
class StagePlan:
    """One run-time stage: vector axis and lanes, extents rounded up to whole tiles, layout of its result, operands by read."""

    stage: object
    vec: str
    lanes: int
    extents: dict
    layout: Layout
    operands: dict = field(default_factory=dict)
    dot: object = None  # the dot.Dot that one instruction computes
    matrix: object = None  # the matrix.Product that it is computed as
    store: object = None  # the map stage (or None for a plain copy) that writes the output from this stage's tiles
    is_output: bool = False
    row: str | None = None  # the axis whose tiles leave out different terms and get code of their own
    tile: tuple = (1, 1)  # steps of the register tile along its axes
    longer: dict = field(default_factory=dict)  # axes that last longer than the stage does, so that tiles of the output are whole
    spread: list = field(default_factory=list)  # where threads have results of their own: the simt.Tiles of a block
    share: object = None  # where threads share a sum: the simt.Share
    across: tuple | None = None  # (reduced axis, lanes) of a sum over what lies in vectors along that axis: every lane sums its own, and the lanes are added up

    def operand(self, load) -> Operand:
        return self.operands[key(load)]


@dataclass
class Plan:
    program: object
    stages: list
    packed: list  # Operands to prepare, in argument order
    store_operands: dict  # reads of the store stage, by key
    output: object  # the map stage that writes the output on its own, or None if the last reduction's tiles are stored
    turn: object = None  # how the anchor's vectors become the output's rows: the store stage then keeps the vectors, and a plain copy follows

    def stage(self, name):
        return next((s for s in self.stages if s.stage.name == name), None)


def key(load) -> str:
    """Reads with equal keys share one copy."""
    return repr(E.to_json(load))


def anchors(program) -> list:
    """The reductions worth tuning: those that hold at least a twentieth of the work."""
    run = [s for s in program.run_stages if s.combiner]
    total = sum(s.flops for s in program.run_stages)
    return [s for s in run if s.flops * 20 >= total]


def epilogue_of(program):
    """(anchor, store): the reduction whose tiles become the output, and the map stage in between; (None, None) if the output is another kind of map."""
    last = program.run_stages[-1]
    if last.combiner:
        return last, None
    loads = last.body.loads()
    names = [a.name for a in last.axes]
    for load in loads:
        source = program.stage(load.data[0])
        if source is None or source.combiner is None or source not in program.run_stages:
            continue
        aligned = load.data[1] is None and [a.data if a.op == "axis" else None for a in load.args] == names and [a.name for a in source.axes] == names
        readers = [s for s in program.run_stages if any(e.data[0] == source.name for e in s.body.loads())]
        once = [e for e in loads if e.data[0] == source.name]
        if aligned and readers == [last] and all(key(e) == key(load) for e in once):
            return source, last
    return None, None


def make(program, choice: dict, lanes: int) -> Plan:
    """The plan that a choice means. `lanes`: float32 vector lanes of the target, for stages without knobs of their own."""
    run = program.run_stages
    anchor, store = epilogue_of(program)
    emitted = [s for s in run if s is not store]
    packed, plans = {}, {}
    longer = cuts.lengths(program, cuts.tiles_of(choice))
    for stage in reversed(emitted):
        if choice.get(f"{stage.name}.tensor"):
            plans[stage.name] = as_matrices(program, stage, choice, store=store if stage is anchor else None, is_output=stage is anchor)
            continue
        vec, width = _vector(program, stage, choice, plans, lanes)
        ext, sizes = access.extents(stage) | longer.get(stage.name, {}), (1, 1)
        product = dot.find(program, stage) if choice.get(f"{stage.name}.dot") else None
        if product is not None:
            ext[product.axis] = -(-ext[product.axis] // product.width) * product.width
        if stage.combiner:
            sizes = tile_sizes(program, stage, vec, choice)
            for axis, tile in zip(tile_axes(program, stage, vec), sizes):
                if axis is not None:
                    ext[axis] = -(-ext[axis] // tile) * tile
            if steps := banded.columns(stage.name, choice):
                rows = columns(program, stage, vec)[0]
                ext[rows] = -(-ext[rows] // steps) * steps
            blocks = -(-ext[vec] // width)
            tv = choice.get(f"{stage.name}.vectors", 1)
            vec_extent = -(-blocks // tv) * tv * width if tv > 1 else ext[vec]
        else:
            for p in (p for p in plans.values() if banded.columns(p.stage.name, choice)):  # the last band is as long as all others
                for load in (l for l in p.stage.body.loads() if l.data[0] == stage.name):
                    rows = columns(program, p.stage, p.vec)[0]
                    ext |= {a.name: p.extents[rows] for a, index in zip(stage.axes, load.args) if index.op == "axis" and index.data == rows}
            vec_extent = ext[vec]
        names = [a.name for a in stage.axes]
        layout = Layout([vec_extent if n == vec else ext[n] for n in names], None, names.index(vec), width)
        plans[stage.name] = StagePlan(stage, vec, width, ext, layout, dot=product, store=store if stage is anchor else None, is_output=stage is anchor, tile=sizes, longer=longer.get(stage.name, {}))
    order = [plans[s.name] for s in emitted]
    for p in order:
        if f"{p.stage.name}.vec" not in choice and not p.is_output and (across := _across(p, plans)):
            p.across, p.lanes = across, 1
            p.layout = Layout(p.layout.extents, None, p.layout.split, 1)
        for load in p.stage.body.loads():
            k = key(load)
            if p.matrix is not None:
                packed |= {o.name: o for o in p.operands.values() if o.kind == "packed"}
            elif k not in p.operands:
                p.operands[k] = _operand(program, p, load, choice, plans, len(p.operands))
                if p.operands[k].kind == "packed":
                    packed[p.operands[k].name] = p.operands[k]
                fill = load.data[1].fill if load.data[1] is not None else None
                if fill is not None and key(fill) not in p.operands:
                    p.operands[key(fill)] = _packed(program, fill, [], None, 1, f"{p.stage.name}_fill", {})
                    packed[f"{p.stage.name}_fill"] = p.operands[key(fill)]
        p.row = borders.row_axis(program, p.stage, choice) if any(o.skip for o in p.operands.values()) else None
    store_operands = {}
    output = None
    if anchor is None:
        output = emitted[-1]
    if store is not None:
        for load in store.body.loads():
            if load.data[0] in program.constants:
                op = _packed(program, load, [a for a in _axis_order(store, load, None)], None, 1, f"store_{load.data[0]}", access.extents(store))
                store_operands[key(load)] = packed[op.name] = op
            else:
                store_operands[key(load)] = Operand(load, "stage" if program.stage(load.data[0]) else "raw")
    turn = turns.of_store(program, plans[anchor.name], store_operands) if anchor is not None and plans[anchor.name].matrix is None else None
    return Plan(program, order, list(packed.values()), store_operands, output, turn)


def as_matrices(program, stage, choice, **output) -> StagePlan:
    """The plan of a stage that is computed as a product of matrices: its data staged, its weights packed as such."""
    product = matrix.find(program, stage)
    layouts = matrix.layouts(program, stage, product, matrix.Tile.of(choice[f"{stage.name}.tensor"]))
    axes, extents = matrix.axes_of(product), access.extents(stage)
    for names, layout in zip(axes, layouts):
        extents |= dict(zip(names, layout.extents))
    made = [Operand(load, kind, f"{stage.name}_{load.data[0]}", [("axis", a) for a in names], layout, dtype=product.dtype)
            for load, kind, names, layout in zip((product.data, product.weight), ("staged", "packed"), axes, layouts)]
    made[0].batch = 0 if product.batch else None
    return StagePlan(stage, product.columns[-1], 1, extents, layouts[2], {key(o.load): o for o in made}, matrix=product, **output)


def _vector(program, stage, choice, plans, lanes):
    """Vector axis and lanes: a knob, or what the first reader wants, or the last axis."""
    if f"{stage.name}.vec" in choice:
        return choice[f"{stage.name}.vec"], choice[f"{stage.name}.lanes"]
    ext = access.extents(stage)
    names = [a.name for a in stage.axes]
    want = None
    for p in plans.values():
        for load in p.stage.body.loads():
            if load.data[0] != stage.name:
                continue
            kinds = vector_kinds(load, p.vec, p.extents, p.lanes)
            if "plain" in kinds and want is None:
                want = names[kinds.index("plain")]
            elif want is None:
                channel = set(access.roles(p.stage).channel)
                mixed = [(ext[names[d]], d) for d, a in enumerate(load.args) if channel & set(a.axes())]
                if mixed:
                    want = names[max(mixed)[1]]
    if want is None:  # no reader cares: keep the vectors of the stage it reads
        want = _inherited(program, stage, choice)
    if want is None or is_batch(program, stage, want):
        want = names[-1]
    width = lanes
    while width > 1 and width // 2 >= ext[want]:
        width //= 2
    return want, width


def _across(p: StagePlan, plans) -> tuple | None:
    """(reduced axis, lanes) if all that a reduction over one axis reads along it are earlier results with whole vectors there, else None."""
    stage, lanes = p.stage, set()
    if not stage.combiner or len(stage.reduce) != 1 or access.roles(stage).of(stage.reduce[0].name) != "channel":
        return None
    axis, extent = stage.reduce[0].name, value_of(stage.reduce[0].size)
    for load in stage.body.loads():
        along = [d for d, index in enumerate(load.args) if axis in index.axes()]
        if not along:
            continue
        source = plans.get(load.data[0])
        if source is None or along != [source.layout.split] or load.args[along[0]].op != "axis" or access.padded(load):
            return None
        lanes.add(source.lanes)
    width = lanes.pop() if len(lanes) == 1 else 1
    return (axis, width) if width > 1 and extent % width == 0 else None


def _inherited(program, stage, choice):
    """The axis along which what a stage reads lies in vectors, or None."""
    for load in stage.body.loads():
        source = program.stage(load.data[0])
        if source is not None:
            follow = choice.get(f"{source.name}.vec") or _inherited(program, source, choice)
            at = [a.name for a in source.axes].index(follow) if follow is not None else None
            if at is not None and load.args[at].op == "axis" and load.args[at].data in [a.name for a in stage.axes]:
                return load.args[at].data
    return None


def _axis_order(stage, load, order):
    """Axes that a read depends on: output axes in order, then reduced axes in loop order."""
    used = set().union(*(set(a.axes()) for a in load.args)) if load.args else set()
    reduced = order if order is not None else [a.name for a in stage.reduce]
    return [a.name for a in stage.axes if a.name in used] + [n for n in reduced if n in used]


def _packed(program, load, axes, vec, lanes, name, extents, product=None):
    coords = [("axis", a) for a in axes] or [("one",)]
    split = axes.index(vec) if vec in axes else None
    inner = (axes.index(product.axis), product.width) if product is not None and product.axis in axes else (None, 1)
    return Operand(load, "packed", name, coords, Layout([extents[a] for a in axes] or [1], None, split, lanes, *inner), dtype=_copied(program, load, product))


def _copied(program, load, product=None) -> str:
    return access.element_dtype(program, load) if load.dtype == "int" or product is not None else "float32"


def _staged_dtype(program, load, product) -> str:
    """As _copied; but a temporary of bfloat16 has to be one of its bits, for TVM would make it one of float32."""
    dtype = _copied(program, load, product)
    return "uint16" if dtype == "bfloat16" else dtype


_MOVING = ("plain", "window", "run", "other")  # kinds of an index that change from lane to lane


def _operand(program, p: StagePlan, load, choice, plans, number) -> Operand:
    """How stage `p` reaches one read: prepared when bound, an earlier result, a copy made for it, or straight from memory."""
    kinds = vector_kinds(load, p.vec, access.extents(p.stage), p.lanes)
    label = f"{p.stage.name}_{load.data[0]}{number or ''}"
    if load.data[0] in program.constants:
        return _parameter(program, p, load, kinds, choice, label)
    source = plans.get(load.data[0])
    skip = borders.skipped(program, p.stage, load, choice)
    padded = any(d not in skip for d in access.padded(load))
    if source is not None and not padded and not skip:
        return Operand(load, "stage")
    spec = program.tensor(load.data[0])
    moving = [d for d, k in enumerate(kinds) if k in _MOVING]
    innermost = spec.permutation(program.layout)[-1] if spec else source.layout.order[-1]
    if choice.get(f"{p.stage.name}.padding") == "inline" and source is not None and source.lanes == p.lanes and not cuts.tiles_of(choice):
        innermost = source.layout.split  # a border around an earlier result's vectors needs no copy
    if any(e.op == "load" for a in load.args for e in a.walk()):
        if spec is not None and len(moving) == 1 and moving != [innermost] and kinds[moving[0]] == "plain" and not program.any_batch:
            # gathered positions: one copy with the vector axis innermost serves every position
            coords = [("dim", d, 0) for d in range(len(load.args))]
            order = [d for d in spec.permutation(program.layout) if d != moving[0]] + moving
            return Operand(load, "staged", f"{p.stage.name}_{load.data[0]}_last", coords, Layout(spec.shape, order), dtype=_copied(program, load))
    elif p.stage.combiner is not None:
        ranges = ranges_of(p)
        spans = [interval(a, ranges) for a in load.args]
        true = access.extents(p.stage)[p.vec]
        # vectors of a tile that lie beyond the end as a whole read the last one again
        whole = p.layout.blocks * p.lanes == true or spec is not None and kinds[innermost] == "plain" and true % p.lanes == 0
        in_a_row = moving == [innermost] and whole and not (kinds[innermost] == "window" and any(access.padding(load, innermost)))
        contiguous = "other" not in kinds and (not moving or in_a_row)
        inline = choice.get(f"{p.stage.name}.padding", "stage") == "inline"
        blocked = choice.get(f"{p.stage.name}.pack") == "blocked" and not moving
        beyond = p.dot is not None and p.extents[p.dot.axis] > access.extents(p.stage)[p.dot.axis]
        if all(map(math.isfinite, sum(spans, ()))) and (padded and not inline or blocked or beyond or not contiguous):
            shape = spec.shape if spec else source.stage.shape
            for d in skip:  # the copy holds the data alone
                before = access.padding(load, d)[0]
                spans[d] = (before, before + shape[d] - 1)
            operand = _staged(program, p, load, kinds, spans, choice, label, spec, source)
            operand.skip = skip
            return operand
    return Operand(load, "raw" if source is None else "stage", skip=skip)


def _parameter(program, p, load, kinds, choice, label) -> Operand:
    """A parameter in loop order, its vectors side by side where the read changes from lane to lane."""
    moving = any(k in _MOVING for k in kinds)
    extents = dict(p.extents)
    if moving and p.stage.combiner:
        extents[p.vec] = p.layout.blocks * p.lanes
    order = reduce_order(program, p.stage, choice)
    if banded.columns(p.stage.name, choice):  # what is produced one by one is outside all others
        taps = columns(program, p.stage, p.vec)[1]
        order = [*taps, *(n for n in order if n not in taps)]
    axes = _axis_order(p.stage, load, order)
    return _packed(program, load, axes, p.vec if moving else None, p.lanes, label, extents, p.dot)


def ranges_of(p: StagePlan) -> dict:
    """Axis → (first, last) of a stage's loops, whole tiles and vectors counted."""
    ranges = {n: (0, e - 1) for n, e in p.extents.items()}
    if p.layout.split is not None:
        ranges[p.vec] = (0, p.layout.blocks * p.lanes - 1)
    return ranges


def _staged(program, p, load, kinds, spans, choice, label, spec, source_stage) -> Operand:
    stage = p.stage
    order = spec.permutation(program.layout) if spec else source_stage.layout.order
    coords, extents, last, split, lanes, batch = [], [], None, None, 1, None
    blocks_extent = p.layout.blocks * p.lanes
    for d in order:
        if kinds[d] in ("plain", "other"):
            for a in load.args[d].axes():
                if ("axis", a) not in coords:
                    coords.append(("axis", a))
                    extents.append(blocks_extent if a == p.vec else p.extents[a])
            continue
        lo, hi = spans[d]
        if kinds[d] == "window":
            last = len(coords)
        if kinds[d] == "run":
            split, lanes, lo = len(coords), p.lanes, lo - lo % p.lanes
        if program.any_batch and (spec.trees[d] if spec else tree_of(source_stage.stage.axes[d].size)) == "N":
            batch = len(coords)
        coords.append(("dim", d, lo))
        extents.append(hi - lo + 1)
    placed = list(range(len(coords)))
    if ("axis", p.vec) in coords:
        split, lanes = coords.index(("axis", p.vec)), p.lanes
        if program.any_batch:
            batch = next((i for i, c in enumerate(coords) if c[0] == "axis" and is_batch(program, stage, c[1])), batch)
    elif last is not None:
        placed = [i for i in placed if i != last] + [last]
    elif choice.get(f"{stage.name}.pack") == "blocked":
        channel = set(access.roles(stage).channel)
        # a window over one position counts as channel, too: where it runs backwards TVM cannot follow it through blocks
        forward = lambda index: (access.linear(index) or ({},))[0].get(next(iter(channel & set(index.axes())), None), 1) == 1
        inner = [i for i, c in enumerate(coords) if c[0] == "dim" and channel & set(load.args[c[1]].axes()) and forward(load.args[c[1]])]
        if inner:
            widest = max(inner, key=lambda i: extents[i])
            block = choice.get(f"{stage.name}.block", 0) or extents[widest]
            split, lanes = widest, min(block, extents[widest])
    return Operand(load, "staged", label, coords, Layout(extents, placed, split, lanes), batch, dtype=_staged_dtype(program, load, p.dot))


def staged(plan: Plan) -> dict:
    """Temporary → bytes: intermediate results and staged copies, as if each had memory of its own."""
    sizes = {}
    for p in plan.stages:
        if not p.is_output and p.stage is not plan.output:
            sizes[p.stage.name] = 4 * math.prod(p.layout.shape)
        sizes |= {o.name: BYTES[o.dtype] * math.prod(o.layout.shape) for o in p.operands.values() if o.kind == "staged"}
    return sizes


def staged_bytes(plan: Plan) -> int:
    """Bytes of all of them."""
    return sum(staged(plan).values())
