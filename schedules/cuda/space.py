"""The CUDA space: how many threads share one block."""

from __future__ import annotations

import math

from ..knobs import KnobSpace, Tree


class Leaf(KnobSpace):
    """Knobs of one algorithm's program."""

    def __init__(self, algorithm: str, program, target: dict):
        self.program, self.target = program, target
        self.domains = {"algorithm": [algorithm], "threads": [64, 128, 256]}
        self.feature_names = ["log_flops", "log_bytes", "log_threads"]

    def default(self) -> dict:
        return {k: v[0] for k, v in self.domains.items()} | {"threads": 128}

    def work(self, choice) -> int:
        """Operations that a choice executes."""
        return self.program.flops

    def features(self, choice: dict) -> list:
        return [math.log2(1 + self.program.flops), math.log2(1 + self.program.bytes), math.log2(choice["threads"])]


class Space(Tree):
    leaf = Leaf
    version = 1
