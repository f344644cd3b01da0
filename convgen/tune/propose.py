"""Which choices to try next for one workload: model, neighbours of the best, and a share of pure chance."""

from __future__ import annotations

import random
from typing import Callable

from .model import CostModel
from .records import choice_key

POOL = 256  # random choices that the model ranks per batch
WARM = 16  # trials of a workload by chance alone: before it has seen that much, a model mistakes the default's surroundings for the world
MODEL, NEAR = 0.5, 0.25  # shares of a later batch: the best of the pool by the model, the best neighbours of the fastest; the rest is chance


class Proposer:
    """Untried choices of one space in the order worth trying. `strategy` "random" ignores the model (to show what it is worth).

    `features(choice)` is the model's row for a choice; `seed` and the trials so far determine what comes next.
    """

    def __init__(self, space, model: CostModel, features: Callable[[dict], list[float]], seed, strategy: str = "model"):
        self.space, self.model, self.features, self.strategy = space, model, features, strategy
        self.random = random.Random(f"{seed}")
        self.tried: dict[str, dict] = {}
        self.exhausted = False

    def mark(self, choice: dict) -> None:
        """Never propose this choice again."""
        self.tried[choice_key(choice)] = choice

    def forget(self, choice: dict) -> None:
        """Allow a choice again: it was never really tried."""
        self.tried.pop(choice_key(choice), None)

    def next(self, count: int, ranked: list[dict]) -> list[dict]:
        """Up to `count` new choices; `ranked` are the measured ones, fastest first. Fewer means the space is exhausted."""
        warm = self.strategy == "random" or len(ranked) < WARM
        chance = self._fresh(self.space.candidates(self.random, count if warm else POOL, list(self.tried.values())))
        picked = chance if warm else self._mixed(chance, self._fresh([n for choice in ranked[:3] for n in self.space.neighbours(choice)]), count)
        self.exhausted = not picked
        for choice in picked:
            self.mark(choice)
        return picked

    def _fresh(self, choices: list[dict]) -> list[dict]:
        seen, kept = set(self.tried), []
        for choice in choices:
            key = choice_key(choice)
            if key not in seen and self.space.valid(choice) is None:
                seen.add(key)
                kept.append(choice)
        return kept

    def _mixed(self, chance: list[dict], near: list[dict], count: int) -> list[dict]:
        """A batch: by the model from the pool, by the model from the neighbours, and by chance; chance and neighbours without a model."""
        known = {choice_key(c) for c in near}
        chance = [c for c in chance if choice_key(c) not in known]
        predicted = self.model.predict([self.features(c) for c in chance + near])
        if predicted is None:
            self.random.shuffle(near)
            return [*chance[:count - count // 4], *near][:count]
        by_model = sorted(range(len(chance)), key=lambda i: predicted[i])
        by_near = sorted(range(len(near)), key=lambda i: predicted[len(chance) + i])
        first, second = max(1, round(count * MODEL)), round(count * NEAR)
        picked = [chance[i] for i in by_model[:first]] + [near[i] for i in by_near[:second]]
        rest = [chance[i] for i in sorted(by_model[first:])] + [near[i] for i in by_near[second:]]  # the pool came in random order
        return (picked + rest)[:count]
