"""Which choices to try next for one workload: model, neighbours of the best, and a share of pure chance."""

from __future__ import annotations

import random
from typing import Callable

from .model import CostModel
from .records import choice_key

POOL = 96  # random choices that the model ranks per batch
CHANCE = 0.15  # share of a batch that ignores the model, so that a wrong model cannot lock itself in


class Proposer:
    """Untried choices of one space in the order worth trying. `strategy` "random" ignores the model (to show what it is worth).

    `features(choice)` is the model's row for a choice; `seed` and the trials so far determine what comes next.
    """

    def __init__(self, space, model: CostModel, features: Callable[[dict], list[float]], seed, strategy: str = "model"):
        self.space, self.model, self.features, self.strategy = space, model, features, strategy
        self.random = random.Random(f"{seed}")
        self.tried: dict[str, dict] = {}
        self.exhausted = False
        self.expected_gain = 1.0

    def mark(self, choice: dict) -> None:
        """Never propose this choice again."""
        self.tried[choice_key(choice)] = choice

    def forget(self, choice: dict) -> None:
        """Allow a choice again: it was never really tried."""
        self.tried.pop(choice_key(choice), None)

    def next(self, count: int, ranked: list[dict]) -> list[dict]:
        """Up to `count` new choices; `ranked` are the measured ones, fastest first. Fewer means the space is exhausted."""
        chance = self._fresh(self.space.candidates(self.random, POOL, list(self.tried.values())))
        if self.strategy == "random":
            near: list[dict] = []
        else:
            near = self._fresh([n for choice in ranked[:3] for n in self.space.neighbours(choice)])
        picked = self._order(chance, near, count)[:count]
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

    def _order(self, chance: list[dict], near: list[dict], count: int) -> list[dict]:
        known = {choice_key(c) for c in near}
        chance = [c for c in chance if choice_key(c) not in known]
        predicted = None
        pool = near + chance
        if self.strategy != "random" and pool:
            predicted = self.model.predict([self.features(c) for c in pool])
        if predicted is None:
            self.random.shuffle(near)
            return _interleave(near, chance)
        self.expected_gain = self.model.expected_gain(predicted)
        order = sorted(range(len(pool)), key=lambda i: predicted[i])
        lucky = [i for i in range(len(pool)) if i >= len(near)][:max(1, round(count * CHANCE))] if count > 1 else []
        best = [i for i in order if i not in lucky]
        return [pool[i] for i in best[:count - len(lucky)] + lucky + best[count - len(lucky):]]


def _interleave(first: list, second: list) -> list:
    mixed = []
    for index in range(max(len(first), len(second))):
        mixed += first[index:index + 1] + second[index:index + 1]
    return mixed
