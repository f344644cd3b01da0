"""Named knobs with finite domains: sampling, neighbours and size, for any target's space."""

from __future__ import annotations

import math

from convgen import algorithms
from convgen.lang import access, count
from convgen.lang.merge import merged
from convgen.lang.program import Program
from convgen.lang.unfold import unfolded


BALANCE = 8  # operations that take as long as moving one byte: decides between fewer multiplications and larger transformed kernels
_HIDDEN = 2 / 3  # part of the shorter of the two that passes during the longer one


def overlapped(work, traffic):
    """Time of two things that overlap: each hides most of the other."""
    shorter, longer = sorted((work, traffic))
    return longer + (1 - _HIDDEN) * shorter


def _cost(leaf, choice) -> float:
    """Time in operations: those that a choice really executes and its traffic with memory."""
    return overlapped(leaf.work(choice) + leaf.waits(choice), BALANCE * (count.least_bytes(leaf.program) + leaf.spilled(choice)))


class KnobSpace:
    """A product of finite domains under constraints. Subclasses fill `domains` and define `constraint`, `default`, `work` and `features`.

    A choice is a flat JSON dict, knob name → value, with "algorithm" beside the knobs.
    """

    domains: dict

    def valid(self, choice: dict) -> str | None:
        """None for a choice that may be compiled, else the reason why not."""
        if set(choice) != set(self.domains):
            return "the knobs are not those of this space"
        for name, values in self.domains.items():
            if choice[name] not in values:
                return f"{name} must be one of {values}, got {choice[name]!r}"
        return self.constraint(choice)

    def constraint(self, choice: dict) -> str | None:
        return None

    def waits(self, choice: dict) -> int:
        """Operations that could be done while those of a choice wait for each other."""
        return 0

    def spilled(self, choice: dict) -> int:
        """Bytes that a choice moves between stages through memory, beside the least traffic of its program."""
        return 0

    def draw(self, rng) -> dict:
        """One random choice, constraints not yet checked."""
        return {k: rng.choice(v) for k, v in self.domains.items()}

    @property
    def size(self) -> int:
        """Number of points before constraints."""
        return math.prod(len(v) for v in self.domains.values())

    def candidates(self, rng, n: int, seen=()) -> list:
        """Up to n new valid choices in random order. `rng`: random.Random; `seen`: choices not to repeat."""
        known, found = {self.key(c) for c in seen}, []
        for _ in range(max(200, 60 * n)):
            if len(found) >= n:
                break
            c = self.draw(rng)
            if self.key(c) not in known and self.constraint(c) is None:
                known.add(self.key(c))
                found.append(c)
        return found

    def neighbours(self, choice: dict) -> list:
        """Valid choices that differ in one knob, the nearest values first."""
        found = []
        for name, values in self.domains.items():
            at = values.index(choice[name]) if choice[name] in values else 0
            for i in sorted(range(len(values)), key=lambda i: abs(i - at)):
                c = choice | {name: values[i]}
                if i != at and self.constraint(c) is None:
                    found.append(c)
        return found

    @staticmethod
    def key(choice: dict) -> str:
        return repr(sorted(choice.items()))


class Tree:
    """The space of one workload: algorithm by algorithm a KnobSpace over the rewritten program. Subclasses name the `leaf` class and the `version`."""

    leaf: type
    version: int
    unfolds = False  # whether output axes that a sum has as two (steps and phases) become two

    def __init__(self, description: dict, target: dict):
        programs = algorithms.variants(Program.from_json(description))
        form = lambda p: merged(unfolded(access.specialised(p)) if self.unfolds else access.specialised(p))
        self.leaves = {name: self.leaf(name, form(p), target) for name, p in programs.items()}

    @property
    def feature_names(self) -> list:
        return next(iter(self.leaves.values())).feature_names

    @property
    def size(self) -> int:
        return sum(l.size for l in self.leaves.values())

    def default(self) -> dict:
        """Without measuring: the algorithm of least estimated cost, at its own default."""
        return self.defaults()[0]

    def defaults(self) -> list:
        """The default of every algorithm, the least estimated cost first."""
        found = [(leaf, leaf.default()) for leaf in self.leaves.values()]
        return [choice for leaf, choice in sorted(found, key=lambda pair: _cost(*pair))]

    def program(self, choice: dict):
        """The rewritten, specialised program, its axes merged, that a choice schedules."""
        return self.leaves[choice["algorithm"]].program

    def valid(self, choice: dict) -> str | None:
        leaf = self.leaves.get(choice.get("algorithm"))
        return f"algorithm must be one of {list(self.leaves)}, got {choice.get('algorithm')!r}" if leaf is None else leaf.valid(choice)

    def candidates(self, rng, n: int, seen=()) -> list:
        """Up to n new valid choices: first the default of every algorithm, then random ones from all algorithms alike."""
        known = {KnobSpace.key(c) for c in seen}
        first = [c for c in self.defaults() if KnobSpace.key(c) not in known]
        leaves = list(self.leaves.values())
        found = [c for leaf in leaves for c in leaf.candidates(rng, -(-n // len(leaves)), [*seen, *first])]
        rng.shuffle(found)
        return [*first, *found][:n]

    def neighbours(self, choice: dict) -> list:
        return self.leaves[choice["algorithm"]].neighbours(choice)

    def features(self, choice: dict) -> list:
        return self.leaves[choice["algorithm"]].features(choice)
