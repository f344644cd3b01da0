"""The CUDA space: how many threads share one block."""

from __future__ import annotations

import math

from convgen.emit import plan as P

from ..knobs import KnobSpace, Tree
from . import matrices


class Leaf(KnobSpace):
    """Knobs of one algorithm's program."""

    def __init__(self, algorithm: str, program, target: dict):
        self.program, self.target = program, target
        self.domains = {"algorithm": [algorithm], "threads": [64, 128, 256]}
        for stage in P.anchors(program):
            tiles = matrices.tiles(program, stage, target)
            if tiles:
                self.domains[f"{stage.name}.tensor"] = [tiles[0], False, *tiles[1:]] if matrices.worthwhile(program, stage, tiles[0]) else [False, *tiles]
        self.feature_names = ["log_flops", "log_bytes", "log_threads"]

    def default(self) -> dict:
        return {k: v[0] for k, v in self.domains.items()} | {"threads": 128}

    def work(self, choice) -> int:
        """Operations that a choice executes."""
        return self.program.flops - matrices.saved(self.program, choice)

    def features(self, choice: dict) -> list:
        return [math.log2(1 + self.program.flops), math.log2(1 + self.program.bytes), math.log2(choice["threads"])]


class Space(Tree):
    leaf = Leaf
    version = 1
