"""A reduction with knobs, as the modules of this room hand it on."""

from __future__ import annotations

import math
from typing import NamedTuple

from convgen.lang import access


class Anchor(NamedTuple):
    """`ext`: steps of its axes; in one tile of the output, where it runs inside such tiles."""

    stage: object
    ext: dict
    roles: access.Roles

    @staticmethod
    def of(stage) -> "Anchor":
        return Anchor(stage, access.extents(stage), access.roles(stage))

    @property
    def name(self) -> str:
        return self.stage.name

    @property
    def dense(self) -> bool:
        """Whether it sums over channels."""
        return any(self.ext[a] > 1 for a in self.roles.channel)

    def nbytes(self, axes) -> int:
        """Bytes of a number for every step of these axes."""
        return 4 * math.prod(self.ext[a] for a in axes)

    def bytes_along(self, axis) -> int:
        """Bytes of what all terms read along one axis of the output: of vectors the weights, of tiles the data."""
        return self.nbytes([axis, *(a.name for a in self.stage.reduce)])

    def both(self, vec: str) -> bool:
        """Whether all operands move with vectors along rows, so that none is one number for all lanes."""
        return vec in self.roles.spatial and all(any(vec in i.axes() for i in load.args) for load in self.stage.body.loads())
