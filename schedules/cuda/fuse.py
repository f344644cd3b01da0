"""Which reductions a block of another one may compute for itself, straight into the shared memory it reads them from. Pure Python over access maps.

The consumer's copy of a chunk takes its elements from memory, or computes them: then the producer needs no launch and its results never leave the block. They are
computed as often as blocks meet them: at halos, and by every block along output axes that they do not depend on.
"""

from __future__ import annotations

from dataclasses import dataclass

from convgen.emit import plan as P

from .work import Read, Shape, Work

REPEATED = 2.0  # times that a result may be computed, where no estimate asks for more
_PADDED, _GATHERED, _PLAIN = 8, 40, 2  # instructions per read, as in estimate.seconds
_START = 20  # instructions per element: where it lies


@dataclass
class Fusion:
    """`producer`: the reduction computed inside; `consumer`: whose blocks compute it; `read`: the consumer's read that leads there, through `maps` (names), one after another."""

    producer: Work
    consumer: Work
    read: Read
    maps: list

    @property
    def knob(self) -> str:
        return f"{self.producer.name}.fused"

    def elements(self, shape: Shape, c) -> int:
        """Results of the producer in one copy."""
        return self.read.elements({t.axis: t.size for t in shape.tiles} | self.consumer.depth(c))

    def repeated(self, shape: Shape, c) -> float:
        """How often each result is computed."""
        return shape.blocks * shape.chunks * self.elements(shape, c) / self.producer.points

    def shared(self, shape: Shape) -> bool:
        return any(r is self.read for r, _ in shape.shared)

    @property
    def instructions(self) -> int:
        """Of one result."""
        reads = sum(_PADDED if r.padded else _GATHERED if r.gathered else _PLAIN for r in self.producer.reads)
        return self.producer.terms * (self.producer.operations + reads) + _START

    @property
    def inputs(self) -> int:
        """Elements that the producer reads, once each."""
        return sum(r.elements(self.producer.extents) for r in self.producer.reads)


def found(program, works) -> list:
    """Every Fusion into one of `works`: reductions that nothing else reads, at one place, with plain coefficients (a table's need code of their own per result)."""
    by_name, run = {w.name: w for w in works}, program.run_stages
    fusions = []
    for stage in run:
        if not stage.combiner or P.access.roles(stage).table:
            continue
        at, maps = stage, []
        while True:
            readers = {(s.name, P.key(load)): s for s in run for load in s.body.loads() if load.data[0] == at.name}
            (key, reader), = readers.items() if len(readers) == 1 else [(None, None)]
            if reader is None or reader is run[-1] and reader.combiner is None:
                break
            if reader.combiner is None:
                maps.append(reader.name)
                at = reader
                continue
            w = by_name.get(reader.name)
            read = next((r for r in w.reads if P.key(r.load) == key[1]), None) if w is not None and not w.roles.table else None
            if read is not None and w.shareable[id(read)]:
                producer = by_name.get(stage.name) or Work(program, stage)
                fusions.append(Fusion(producer, w, read, maps))
            break
    return fusions
