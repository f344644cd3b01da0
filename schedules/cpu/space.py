"""The space of processors with vectors: per heavy reduction a vector axis, a register tile, an order of the reduction, and where data is staged."""

from __future__ import annotations

import math

from convgen.emit import borders, dot, plan as P
from convgen.lang import access
from convgen.lang.cuts import tiles_of

from ..knobs import KnobSpace
from ..placement import Cuts
from . import cutting, default, domains, features, limits
from .anchor import Anchor

_IN_FLIGHT = 8  # multiply-adds that start before the first one ends


class Leaf(KnobSpace):
    """Knobs of every anchor of one algorithm's program, prefixed by the stage's name. A family's own leaf names its dot product instructions."""

    instructions: object  # a module with lanes(dtypes, target), the vector lengths for which a target has an instruction
    reuse = 1.5  # multiply-adds per vector or number read from which on a dense tile gains no more
    side_by_side = 2  # vectors in a dense tile that cost nothing beside their registers
    numbers = 1  # that a register holds for multiply-adds with vectors
    slides = False  # whether untuned code has a register tile slide over the rows that it has loaded
    picks = False  # whether untuned code picks vectors from rows that a window moves along by more than one position
    feature_names = features.NAMES

    def __init__(self, algorithm: str, program, target: dict):
        self.program, self.target = program, target
        self.lanes, self.registers = target["lanes"]["float32"], target["vector_registers"]
        self.cuts = Cuts(program, self.lanes)
        self.anchors = {s.name: Anchor.of(s) for s in P.anchors(program)}
        self.domains = {"algorithm": [algorithm]} | {f"cut.{a}": [0, *sizes] for a, sizes in self.cuts.sizes.items()}
        self._insides, self._own = {}, {}
        for name, anchor in self.anchors.items():  # one after the other: the next one asks how the results of those before may lie
            self._own[name] = {f"{name}.{knob}": values for knob, values in domains.of(self, anchor).items()}
            self.domains |= self._own[name]

    # -- what a family may say otherwise --------------------------------------------------------------------------------
    def drawback(self, anchor, axis) -> float:
        """What takes away from the merit of an axis to vectorise, which is at most 5 and 1 per read."""
        return 0.0

    def readable(self, s) -> bool:
        """Whether a dense stage may just as well read its numbers as they are stored."""
        return True

    # -- the space ------------------------------------------------------------------------------------------------------
    def inside(self, s, tiles) -> tuple:
        """(extents of one tile, axes that move with it) of a stage; its own extents and none where it stays outside."""
        key = s.name, *tiles.items()
        if key not in self._insides:
            need = self.cuts.needs(tiles).get(s.name)
            self._insides[key] = access.extents(s) | (need or {}), set() if need is None else set().union(*(self.cuts.moved[s.name][a] for a in tiles))
        return self._insides[key]

    def constraint(self, c) -> str | None:
        return limits.reason(self, c)

    def draw(self, rng) -> dict:
        """Anchor by anchor, so that one anchor's constraints do not throw away what the others drew."""
        c = super().draw(rng)
        tiles = tiles_of(c)
        for name, own in self._own.items():
            for _ in range(60):
                if limits.of_anchor(self, name, tiles, c) is None:
                    break
                c |= {k: rng.choice(values) for k, values in own.items()}
        return c

    def default(self) -> dict:
        """A decent point without measuring."""
        return default.default(self)

    def features(self, c) -> list:
        """Numbers a cost model can rank by; the same length for every workload."""
        return features.of(self, c)

    # -- what a choice costs --------------------------------------------------------------------------------------------
    def left_out(self, s, c) -> float:
        """The share of a stage's terms that a choice leaves out."""
        return borders.in_padding(self.program, s, lambda load: borders.skipped(self.program, s, load, c)) if c[f"{s.name}.padding"] == "skip" else 0.0

    def work(self, c) -> int:
        """Operations that a choice executes, terms that a condition makes zero included; those that one lane of an instruction does together count as one multiply-add."""
        every = {s.name: 2 * math.prod(access.extents(s).values()) for s in self.program.run_stages if s.combiner}
        together = lambda s: dot.find(self.program, s).width if c.get(f"{s.name}.dot") else 1
        done = {name: (1 - self.left_out(anchor.stage, c)) / together(anchor.stage) for name, anchor in self.anchors.items()}
        return int(sum(n * done.get(name, 1) for name, n in every.items()))

    def waits(self, c) -> int:
        """Dense tiles of few sums: until a multiply-add has ended, the next one of its sum cannot start."""
        dense = [(a.stage, math.prod(c[f"{a.name}.{k}"] for k in ("tile1", "tile2", "vectors"))) for a in self.anchors.values() if a.dense and not c.get(f"{a.name}.dot")]
        return int(sum(2 * math.prod(access.extents(s).values()) * (_IN_FLIGHT / sums - 1) for s, sums in dense if sums < _IN_FLIGHT))

    def spilled(self, c) -> int:
        """Bytes that the last cache cannot hold: intermediate results, written to memory and read again, and prepared parameters that tiles read anew."""
        tiles = tiles_of(c)
        held = self.cuts.bytes(tiles) * (self.target["threads"] if tiles else 1)
        again = self.cuts.streamed(tiles) - self.cuts.fixed_bytes({}) if cutting.fetched(self) else 0
        return again + (2 * max(0, held - self.target["l3"]) if self.target["l3"] else 0)
