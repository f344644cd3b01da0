"""Which untried choice looks fastest: gradient-boosted trees on knob and roofline features, warm-started from other workloads.

The model learns log(time / best time of its workload), so that shapes of very different size teach each other.
"""

from __future__ import annotations

import logging
import math
from typing import Sequence

log = logging.getLogger("convgen")

FEWEST = 8  # samples of all workloads together below which a fitted model is worse than a sane order


def workload_features(flops: float, least_bytes: float, dims: dict) -> list[float]:
    """Roofline features that tell shapes apart: work, traffic, their ratio, and every dim, in doublings."""
    work, traffic = math.log2(flops + 1), math.log2(least_bytes + 1)
    return [work, traffic, work - traffic, *(math.log2(max(1, int(dims[name]))) for name in sorted(dims))]


class CostModel:
    """Predicts how far a choice is from its workload's best. `seed` makes fits reproducible.

    Rows of one space only: all rows have the same length, and rows of another length are left out.
    """

    def __init__(self, seed: int = 0):
        self.seed = seed
        self._groups: dict[str, list[tuple[list[float], float]]] = {}
        self._booster = None
        self._fitted = -1
        self._missing = False

    def add(self, group: str, features: Sequence[float], microseconds: float) -> None:
        """A measured choice of a workload (`group` is its id)."""
        self._groups.setdefault(group, []).append((list(features), microseconds))

    @property
    def samples(self) -> int:
        """Measured choices of all workloads."""
        return sum(len(rows) for rows in self._groups.values())

    def predict(self, rows: Sequence[Sequence[float]]) -> list[float] | None:
        """log(time / best of the workload) per row, lower is faster; None while there is too little to learn from."""
        if not rows or self.samples < FEWEST or not self._fit(len(rows[0])):
            return None
        import numpy as np
        import xgboost

        return [float(v) for v in self._booster.predict(xgboost.DMatrix(np.asarray(rows, np.float32)))]

    def _fit(self, width: int) -> bool:
        if self._fitted == self.samples:
            return self._booster is not None
        self._fitted = self.samples
        try:
            import numpy as np
            import xgboost
        except ImportError:
            if not self._missing:
                log.warning("xgboost is not installed: candidates are tried in plain order (pip install convgen[tune])")
            self._missing = True
            return False
        rows, goals, weights = [], [], []
        for group in self._groups.values():
            fitting = [(f, t) for f, t in group if len(f) == width]
            if not fitting:
                continue
            best = min(t for _, t in fitting)
            for features, microseconds in fitting:
                distance = math.log(microseconds / best)
                rows.append(features)
                goals.append(min(distance, 3.0))  # twenty times slower or fifty: both merely bad
                weights.append(math.exp(-distance))  # the order among the fast ones is what matters
        if len(rows) < FEWEST:
            self._booster = None
            return False
        data = xgboost.DMatrix(np.asarray(rows, np.float32), label=goals, weight=weights)
        settings = {"objective": "reg:squarederror", "max_depth": 6, "eta": 0.2, "min_child_weight": 0.1, "subsample": 0.9,
                    "lambda": 0.5, "nthread": 1, "seed": self.seed, "verbosity": 0}
        self._booster = xgboost.train(settings, data, num_boost_round=60)
        return True
