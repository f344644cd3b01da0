"""The loops of one sum: those over the output outside, those over its terms, and the register tile inside."""

from __future__ import annotations

from convgen.emit import banded

from . import loops as L


class Nest:
    """One sum's loops: split and in order outside, then `settle`d in order altogether.

    `outer`: those over the output, outermost first; of these `vectors` counts blocks of vectors, `tiles` the register tiles along their first axis (or None), and
    `of` has one per axis, as it was before bands were cut. `terms`: those over the terms, outermost first. `inner`: those of the register tile by name.
    `row`: the axes, steps and phases, that make the output's rows where phases take turns, else none. `parts`: the loops over terms that run around a band, or None.
    """

    def __init__(self, sch, b, finish, store, choice, tiled):
        """`b`, `finish`, `store`: the lowering's Blocks of the sum and of what follows it, or None. `tiled`: whether a tile of the output surrounds all."""
        self.sch, self.b, self.finish, self.store, self.tiled = sch, b, finish, store, tiled
        self.choice = choice
        self.block = sch.get_sblock(b.name)
        self.row = [axis for axis, _ in store.loops[-2:]] if store is not None and store.turn is not None and store.turn.phases > 1 else []
        loops = sch.get_loops(self.block)[int(tiled):]
        self.reduction = [(loop, axis, role) for loop, (axis, role) in zip(loops[len(b.loops):], b.reduce)]
        self.dense = any(role == "channel" and L.extent(sch, loop) != 1 for loop, _, role in self.reduction)
        self.parts, self._around = None, []
        self._split_output(loops[:len(b.loops)])
        self._split_terms()
        self._arrange()

    def knob(self, name, default=None):
        """The choice's value; sums that are little work have no knobs."""
        return self.choice.get(f"{self.b.stage}.{name}", default)

    # -- over the output ------------------------------------------------------------------------------------------------
    def _split_output(self, loops):
        """Cut the register tile out of the loops over the output."""
        sch, b = self.sch, self.b
        self.outer, self.inner, self.of, self.tiles = [], {}, {}, None
        for loop, (axis, part) in zip(loops, b.loops):
            if part == "lanes":
                self.inner["lanes"] = loop
                continue
            if part == "outer":
                if self.knob("vectors", 1) > 1:
                    loop, self.inner["vectors"] = sch.split(loop, [None, self.knob("vectors")])
                self.vectors = loop
            elif axis == b.tiles[0]:
                loop, self.inner["tile1"] = sch.split(loop, [None, b.sizes[0]])
                self.tiles = loop
            elif axis == b.tiles[1]:
                loop, self.inner["tile2"] = sch.split(loop, [None, b.sizes[1]])
            self.of[axis] = loop
            self.outer.append(loop)

    def _arrange(self):
        """Bring the loops over the output in order."""
        outer = self.outer
        if self.knob("order", "vector") == "position":
            outer.append(outer.pop(outer.index(self.vectors)))
        elif self.tiles is not None and self.row[:1] != [self.b.vec] and "channel" in {role for _, role in self.b.reduce} and outer.index(self.tiles) < outer.index(self.vectors):
            outer.insert(outer.index(self.tiles), outer.pop(outer.index(self.vectors)))  # the vectors' operand stays in cache while the tiles pass
        if bands := banded.tiles(self.b.stage, self.choice):  # tiles in so many bands, each of which meets all vectors, while their operand stays in cache
            band, inside = self.sch.split(self.tiles, [bands, None])
            outer[outer.index(self.tiles)] = self.tiles = inside
            outer.insert(outer.index(self.vectors), band)

    # -- over the terms -------------------------------------------------------------------------------------------------
    def _split_terms(self):
        """Cut blocks of channels and what an instruction takes together out of the loops over the terms."""
        sch, b = self.sch, self.b
        self._slide, self._blocks, self._by_role = None, [], {"channel": [], "window": [], "table": []}
        for loop, axis, role in self.reduction:
            if role == "channel":
                size, steps = self.knob("block", 0), L.extent(sch, loop)
                if size and steps > size and steps % size == 0:
                    block, loop = sch.split(loop, [None, size])
                    self._blocks.append(block)
                if b.dot is not None and axis == b.dot.axis:
                    loop, self.inner["dot"] = sch.split(loop, [None, b.dot.width])
            self._by_role[role].append(loop)
            self._slide = loop if axis == b.slide else self._slide

    def around(self, parts, loops):
        """Have `parts`, loops over terms, run around `loops` over the output, which leave the outer loops."""
        self.parts, self._around = parts, loops

    # -- all ------------------------------------------------------------------------------------------------------------
    def settle(self):
        """Bring all loops in order, unroll the register tile and have its lanes in vectors."""
        sch, inner, parts = self.sch, self.inner, self.parts or []
        channel, window, table = ([l for l in loops if l not in parts] for loops in self._by_role.values())
        order = self.knob("inner", "channel")
        if order == "slide":
            window.sort(key=lambda loop: loop is self._slide)
        self.terms = [*parts, *self._blocks, *(window + channel if order == "channel" else channel + window), *table]
        grown = [*parts, *self._blocks] if self._around else []  # the terms by which all of a band's sums grow together
        # a multiply-add takes its broadcast operand from memory, the dot product instruction from a register: used up at once, it occupies only one
        tile = [inner[n] for n in (("tile2", "tile1", "vectors") if self.b.dot is not None else ("tile2", "vectors", "tile1")) if n in inner]
        lanes = [inner[n] for n in ("lanes", "dot") if n in inner]
        terms = [l for l in self.terms if l not in grown]
        if order == "slide" and terms and terms[-1] is self._slide:
            tile.append(terms.pop())  # step by step, the tile keeps no more than a window of what it meets
        sch.reorder(*self.outer, *grown, *self._around, *terms, *tile, *lanes)
        unrolled = window[-self.knob("unroll"):] if self.knob("unroll", 0) else []
        if self.b.separate and len(self.outer) > 2 and self.outer[-1] is self.tiles:
            unrolled.append(self.tiles)
        for loop in [*table, *tile, *unrolled]:  # a table's numbers become constants
            sch.unroll(loop)
        if "dot" not in inner:
            sch.vectorize(inner["lanes"])
