"""The CUDA space: per heavy reduction a tile of a block (threads and results per thread on up to three axes), chunks of the reduction, and what is shared.

Constraints (threads, registers, shared memory, unrolled body) prune before anything is compiled; the default is what the estimate likes best.
"""

from __future__ import annotations

import math

from convgen.emit import plan as P
from convgen.lang import access
from convgen.lang.size import tree_of

from ..knobs import KnobSpace, Tree
from . import estimate, fuse, matrices, starts
from .work import Work

_BODY = 2048  # multiply-adds in one unrolled body
_RESULTS = 128  # of one thread
_FAR = 16  # results of one thread that lie apart, each with code of its own
_WASTE = 1.7  # points computed over points wanted
_THREADS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 48, 56, 64, 96, 128, 256)
_EACH = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 28)
_CLIMBS = 3  # how many plain points the default is sought from
_LARGER = 0.9  # of the time in shared memory that every launch has: a default that takes more, and leaves room for fewer blocks, must be worth it
_WARPS = 4  # that a multiprocessor must hold at least, one for each of its schedulers, where there are so many
_FILL = 7 / 8  # of the registers one block may take: a full multiprocessor makes nvcc spill
_DRAWS = 400  # of one reduction, until a valid choice is found
_CHUNKS = (0, 1, 2, 3, 4, 8, 16, 32)


def tuned(program) -> list:
    """Reductions with knobs: the heavy ones, and those with constant coefficients, which only unrolled code can select."""
    heavy = [s.name for s in P.anchors(program)]
    return [s for s in program.run_stages if s.combiner and (s.name in heavy or access.roles(s).table)]


class Leaf(KnobSpace):
    """Knobs of every tuned reduction of one algorithm's program, prefixed by the stage's name."""

    def __init__(self, algorithm: str, program, target: dict):
        self.program, self.target, self.limits = program, target, target["limits"]
        heavy = tuned(program)
        self.works = [Work(program, s) for s in heavy]
        self.domains, self._plain, self._rare = {"algorithm": [algorithm]}, {}, {}
        for w in self.works:
            self._add(w)
        _, store = P.epilogue_of(program)
        self.maps = [s for s in program.run_stages[:-1] if s.combiner is None and s is not store]
        for s in self.maps:
            self.domains[f"{s.name}.inline"] = [True, False]
        inlined = {s.name for s in self.maps}
        self.fusions = [f for f in fuse.found(program, self.works) if inlined.issuperset(f.maps)]
        for f in self.fusions:
            self.domains[f.knob] = [False, True]
        self.plain_sums = [w for s in program.run_stages if s.combiner and s not in heavy if len((w := Work(program, s)).splits()) > 1 and not w.roles.table]
        for w in self.plain_sums:
            self.domains[f"{w.name}.split"] = w.splits()
        self.feature_names = ["log_flops", "log_bytes", "launches", "log_estimate", *(f"{i}.{f}" for i in range(2) for f in _FEATURES)]

    # -- domains --------------------------------------------------------------------------------------------------------
    def _add(self, w):
        d, name = self.domains, w.name
        for slot, axis in w.slots.items():
            if axis is None:
                continue
            n, step = w.extents[axis], access.period(w.stage, axis)
            batch = w.program.any_batch and any(a.name == axis and tree_of(a.size) == "N" for a in w.stage.axes)
            d[f"{name}.{slot}.threads"] = [t for t in _THREADS if t < 2 * n] if not batch else [1]
            d[f"{name}.{slot}.each"] = [step] if step else [e for e in _EACH if e <= n] if not batch else [1]
        channel = w.extents[w.chunked] if w.chunked else 0
        d[f"{name}.chunk"] = [c for c in _CHUNKS if c == 0 or c < channel and channel % c == 0]
        d[f"{name}.data"] = ["shared", "direct"] if any(w.shareable[id(r)] for r in w.reads if not r.constant) else ["direct"]
        d[f"{name}.weights"] = ["shared", "direct"] if any(r.constant for r in w.reads) else ["direct"]
        if len(w.splits()) > 1:
            d[f"{name}.split"] = w.splits()
        d[f"{name}.unroll"] = list(range(min(3, len(w.roles.window) + len(w.roles.channel)) + 1))
        tensor = matrices.tiles(self.program, w.stage, self.target)
        if tensor:
            d[f"{name}.tensor"] = [tensor[0], False, *tensor[1:]] if matrices.worthwhile(self.program, w.stage, tensor[0]) else [False, *tensor]

    # -- constraints ----------------------------------------------------------------------------------------------------
    def constraint(self, c) -> str | None:
        return next((reason for w in self.works if (reason := self._wrong(w, c))), None) or next((reason for f in self.fusions if c[f.knob] and (reason := self._apart(f, c))), None)

    def _apart(self, f, c) -> str | None:
        """Why one reduction is not to be computed by the blocks of another, or None."""
        producer, consumer = f.producer.name, f.consumer.name
        if f.consumer.knob(c, "fused"):
            return f"{consumer} has no blocks of its own that could compute {producer}"
        if any(not c[f"{m}.inline"] for m in f.maps):
            return f"what lies between {producer} and {consumer} is not computed where it is read"
        if f.producer in self.works and any(c[n] != v for n, v in self._best(f.producer).items()):
            return f"{producer} has no tile of its own, and its other knobs keep their defaults"
        if f.producer not in self.works and c.get(f"{producer}.split", 1) > 1:
            return f"{producer} has no threads of its own that could share its sums"
        if f.consumer.knob(c, "tensor") or not f.shared(shape := f.consumer.shape(c)):
            return f"{consumer} does not read {producer} from shared memory"
        if f.repeated(shape, c) > fuse.REPEATED and not self._gain(f, c) > 0:
            return f"{producer} would be computed {f.repeated(shape, c):.1f} times"
        return None

    def _gain(self, f, c) -> float:
        """Seconds that a fusion of a choice saves."""
        return self.seconds(c | {f.knob: False}) - self.seconds(c)

    def _fed(self, w, c) -> tuple:
        """The fusions of a choice into one reduction."""
        return tuple(f for f in self.fusions if f.consumer is w and c.get(f.knob))

    def _knobs(self, w) -> list:
        """Names of the knobs that shape a reduction."""
        return [n for n in self.domains if n.startswith(f"{w.name}.") and not n.endswith(".fused")]

    def _wrong(self, w, c) -> str | None:
        """Why the knobs of one reduction are not to be compiled, or None."""
        if w.knob(c, "tensor"):
            return None if all(c[n] == v for n, v in self._best(w).items() if n != f"{w.name}.tensor") else "beside a tile of the tensor cores the other knobs mean nothing and keep their defaults"
        shape, limits = w.shape(c), self.limits
        if shape.threads > limits["threads_per_block"]:
            return f"{shape.threads} threads, a block has at most {limits['threads_per_block']}"
        if shape.threads < min(limits["warp"], math.prod(w.extents[a] for a in w.used.values()) // 4):
            return f"{shape.threads} threads leave lanes of a warp idle"
        if w.divided and w.depth(c)[w.divided] % shape.split:
            return f"{w.depth(c)[w.divided]} terms do not fall into {shape.split} equal parts"
        if shape.results > _RESULTS:
            return f"{shape.results} results of one thread, at most {_RESULTS}"
        if math.prod(t.each // t.near for t in shape.tiles) > _FAR:
            return "too many results of one thread lie apart"
        needed = estimate.registers(w, shape, c)
        if needed > limits["registers_per_thread"]:
            return f"about {needed} registers, a thread has {limits['registers_per_thread']}"
        if estimate.allocated(w, shape, c, limits) > limits["registers_per_sm"] * _FILL:
            return f"about {needed} registers in {shape.threads} threads, a multiprocessor has {limits['registers_per_sm']}"
        if estimate.shared_bytes(shape) > limits["shared_per_block"]:
            return f"{estimate.shared_bytes(shape)} bytes of shared memory, a block has {limits['shared_per_block']}"
        warps = -(-shape.threads // limits["warp"])
        held = estimate.resident(w, shape, c, limits) * warps
        if held < min(_WARPS, shape.blocks * warps):
            return f"a multiprocessor would hold {held} warps, fewer than its {_WARPS} schedulers need"
        if shape.body * shape.results * w.operations > _BODY and (w.knob(c, "unroll") or w.roles.table) and not self._fixed(w, shape):
            return f"unrolled body of {shape.body * shape.results * w.operations} operations"
        if shape.waste > _WASTE and self._avoidable(w, shape):
            return f"tiles compute {shape.waste:.1f} times the results wanted"
        if w.knob(c, "data") == "shared" and not any(not r.constant for r, _ in shape.shared):
            return "no two threads of a block read the same data"
        if w.knob(c, "chunk") and not shape.shared:
            return "chunks are of use for shared memory alone"
        return None

    @staticmethod
    def _fixed(w, shape):
        return bool(w.roles.table) and not w.roles.window and not w.roles.channel

    @staticmethod
    def _avoidable(w, shape):
        """Whether smaller tiles would waste less: not where every tile is one thread's or the whole axis."""
        return any(t.size >= 2 * w.extents[t.axis] or t.each > 1 and not access.period(w.stage, t.axis) for t in shape.tiles)

    def draw(self, rng) -> dict:
        """One random choice; reductions do not constrain each other, so each is drawn until it is valid. Then half of the fusions, where any tile allows them."""
        c = {"algorithm": self.domains["algorithm"][0]}
        for w in self.works:
            c |= self._drawn(w, rng)
        c |= {f"{s.name}.inline": rng.choice([True, False]) for s in self.maps} | {f.knob: False for f in self.fusions}
        c |= {n: rng.choice(self.domains[n]) for n in (f"{w.name}.split" for w in self.plain_sums)}
        for f in self.fusions:
            if rng.choice([True, False]):
                c = self._drawn_inside(f, c, rng) or c
        return c

    def _drawn_inside(self, f, c, rng) -> dict | None:
        """A valid choice with one more fusion and a random tile of its consumer, the best one where none is found; None where that is not valid either."""
        w = f.consumer
        given = {n: v for n, v in {f"{w.name}.data": "shared", f"{w.name}.tensor": False}.items() if n in self.domains}
        for i in range(_DRAWS + 1):
            tile = self._any(w, rng) | given if i < _DRAWS else self._best(w, (f,))
            if self._wrong(w, tile) is None and self.constraint(joined := self._joined(f, c, tile)) is None:
                return joined
        return None

    def _any(self, w, rng) -> dict:
        """Random knobs of one reduction, valid or not; in half of them threads share no sums, which leaves room for all else."""
        c, split = {n: rng.choice(self.domains[n]) for n in self._knobs(w)}, f"{w.name}.split"
        return c | {split: self.domains[split][0]} if split in c and rng.random() < 0.5 else c

    def _drawn(self, w, rng) -> dict:
        """Random valid knobs of one reduction; where hardly any are valid, the best or a step away from it."""
        for _ in range(_DRAWS if w.name not in self._rare else 0):
            drawn = self._any(w, rng)
            if drawn.get(f"{w.name}.tensor"):
                drawn = self._best(w) | {f"{w.name}.tensor": drawn[f"{w.name}.tensor"]}
            if self._wrong(w, drawn) is None:
                return drawn
        if w.name not in self._rare:
            best = self._best(w)
            self._rare[w.name] = [best, *(c for c in (*self._near(self._knobs(w), best), *self._pairs(w, best)) if self._wrong(w, c) is None)]
        return rng.choice(self._rare[w.name])

    def _joined(self, f, c, tile) -> dict:
        """A choice with one more fusion, the consumer's knobs being `tile`."""
        alone = self._best(f.producer) if f.producer in self.works else {n: 1 for n in [f"{f.producer.name}.split"] if n in self.domains}
        return c | alone | tile | {f"{m}.inline": True for m in f.maps} | {f.knob: True}

    # -- default --------------------------------------------------------------------------------------------------------
    def default(self) -> dict:
        c = {"algorithm": self.domains["algorithm"][0]}
        for w in self.works:
            c |= self._best(w)
            if f"{w.name}.tensor" in self.domains:
                c[f"{w.name}.tensor"] = self.domains[f"{w.name}.tensor"][0]
        for w in self.plain_sums:
            c[f"{w.name}.split"] = min(w.splits(), key=lambda n: estimate.plain_seconds(self.program, w.stage, self.target, n))
        for s in self.maps:
            c[f"{s.name}.inline"] = self._inlined(s) or estimate.inline_seconds(self.program, s, self.works, c, self.target) < estimate.plain_seconds(self.program, s, self.target)
        return self._fused(c | {f.knob: False for f in self.fusions})

    def _fused(self, c) -> dict:
        """A choice with the fusions that the estimate likes: what gains most first."""
        while True:
            joined = [self._joined(f, c, self._best(f.consumer, (*self._fed(f.consumer, c), f))) for f in self.fusions if not c[f.knob]]
            best = min((j for j in joined if self.constraint(j) is None), key=self.seconds, default=c)
            if not self.seconds(best) < self.seconds(c):
                return c
            c = best

    def _inlined(self, stage) -> bool:
        """Whether only stages without knobs that reduce nothing read a stage: then nothing is computed twice."""
        readers = [s for s in self.program.run_stages if any(l.data[0] == stage.name for l in s.body.loads())]
        return all(s.combiner is None for s in readers) and all(P.access.extents(s).keys() and math.prod(s.shape) <= math.prod(stage.shape) for s in readers)

    def _best(self, w, fed=()) -> dict:
        """The knobs of one reduction with the least estimated time: from the best of plain points on, step by step while that helps. `fed`: the fusions into it."""
        of = (w.name, *(f.knob for f in fed))
        if of in self._plain:
            return self._plain[of]
        names, known = self._knobs(w), {}

        def cost(c, most=self.limits["shared_static"]):
            key = tuple([c[n] for n in names])
            if key not in known:
                shape = w.shape(c)
                possible = self._wrong(w, c) is None and all(f.shared(shape) for f in fed)
                known[key] = estimate.seconds(w, shape, c, self.target, fed) if possible else math.inf, estimate.shared_bytes(shape)
            return known[key][0] if known[key][1] <= most else math.inf

        def climbed(c, cost):
            while True:
                best = min((*self._near(names, c), *self._pairs(w, c)), key=cost, default=c)
                if not cost(best) < 0.999 * cost(c):
                    return c
                c = best
        best = min([climbed(c, cost) for c in sorted(starts.points(w, self.domains), key=cost)[:_CLIMBS]], key=cost)
        every = lambda c: cost(c, math.inf)
        larger = climbed(best, every)
        self._plain[of] = larger if every(larger) < _LARGER * cost(best) else best
        return self._plain[of]

    def _near(self, names, c):
        for name in names:
            if name.endswith(".tensor"):
                continue
            values = self.domains[name]
            at = values.index(c[name])
            yield from (c | {name: v} for v in values[max(0, at - 2):at] + values[at + 1:at + 3])

    def _pairs(self, w, c):
        """Steps of two knobs: from threads to results of one thread and back, from one axis to another."""
        parts = [n for n in self.domains if n.startswith(f"{w.name}.") and n.rpartition(".")[2] in ("threads", "each", "split")]
        for a in parts:
            i = self.domains[a].index(c[a])
            for b in parts:
                j = self.domains[b].index(c[b])
                if a != b and i + 1 < len(self.domains[a]) and j > 0:
                    yield c | {a: self.domains[a][i + 1], b: self.domains[b][j - 1]}

    # -- cost -----------------------------------------------------------------------------------------------------------
    def work(self, c) -> float:
        """Operations that a choice executes."""
        times = {w.name: w.shape(c).waste for w in self.works} | {f.producer.name: f.repeated(f.consumer.shape(c), c) for f in self.fusions if c.get(f.knob)}
        return sum(s.flops * times.get(s.name, 1) for s in self.program.run_stages) - matrices.saved(self.program, c)

    def seconds(self, c) -> float:
        """Estimated time of one call."""
        apart = [w for w in self.works if not w.knob(c, "fused")]
        return sum(estimate.seconds(w, w.shape(c), c, self.target, self._fed(w, c)) / (matrices.RATE if w.knob(c, "tensor") else 1) for w in apart) + sum(self._rest(c))

    def _rest(self, c):
        """Seconds of the stages without knobs: memory and a launch each, or what computing them anew costs."""
        _, store = P.epilogue_of(self.program)
        names = {w.name for w in self.works}
        for s in self.program.run_stages:
            if c.get(f"{s.name}.inline"):
                yield estimate.inline_seconds(self.program, s, self.works, c, self.target)
            elif s.name not in names and s is not store and not c.get(f"{s.name}.fused"):
                yield estimate.plain_seconds(self.program, s, self.target, c.get(f"{s.name}.split", 1))

    def features(self, c) -> list:
        row = [math.log(self.program.flops + 1), math.log(self.program.bytes + 1), len(self.program.run_stages) - sum(c[f.knob] for f in self.fusions), math.log(self.seconds(c))]
        heaviest = sorted(self.works, key=lambda w: -w.stage.flops)
        for i in range(2):
            row += self._features(heaviest[i], c) if i < len(heaviest) else [0.0] * len(_FEATURES)
        return [float(v) for v in row]

    def _features(self, w, c):
        shape, limits = w.shape(c), self.limits
        held = estimate.resident(w, shape, c, limits)
        occupancy = held * shape.threads / limits["threads_per_sm"]
        shared = estimate.shared_bytes(shape)
        block = {t.axis: t.size for t in shape.tiles} | {a.name: w.extents[a.name] for a in w.stage.reduce}
        moved = 4 * sum(r.elements(block) for r in w.reads)
        beside = next((t.threads * t.near for t in shape.tiles if t.axis == w.last), 1)
        return [math.log(w.points), math.log(w.terms), math.log(shape.threads), math.log(shape.split), math.log(shape.results), math.log(shape.blocks), shape.waste, math.log(shape.chunks), math.log(shape.body),
                estimate.registers(w, shape, c), shared, held, occupancy, shape.blocks / (limits["sms"] * max(1, held)), math.log(2 * math.prod(t.size for t in shape.tiles) * w.terms / moved),
                min(8, beside), len(shape.shared), len(shape.direct), math.log(estimate.seconds(w, shape, c, self.target, self._fed(w, c)))]


_FEATURES = ["points", "terms", "threads", "split", "results", "blocks", "waste", "chunks", "body", "registers", "shared", "resident", "occupancy", "waves", "intensity", "coalesced",
             "copies", "direct", "estimate"]


class Space(Tree):
    """Algorithms first, then each algorithm's knobs."""

    version = 3
    leaf = Leaf
    unfolds = True

    def defaults(self) -> list:
        """The default of every algorithm, the least estimated time first."""
        found = [(leaf, leaf.default()) for leaf in self.leaves.values()]
        return [choice for leaf, choice in sorted(found, key=lambda pair: pair[0].seconds(pair[1]))]
