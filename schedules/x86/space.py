"""The x86 space."""

from __future__ import annotations

import math

from convgen.lang import access

from ..cpu import space
from ..knobs import Tree
from . import dot

_PLANE = 64  # positions of a plane of a few lines of memory
_MANY = 512  # outputs for which copying it is little work


class Leaf(space.Leaf):
    """Knobs of one algorithm on x86."""

    instructions = dot

    @property
    def picks(self) -> bool:
        """Not where registers are few: the tile that scores best for such vectors, seven rows by two outputs, is slower there than turning results."""
        return self.registers > 16

    @property
    def slides(self) -> bool:
        """With few registers the window's rows leave too few of them to the sums; a tuned choice may still do it."""
        return self.registers > 16

    def readable(self, s) -> bool:
        """Tiles read pieces of lines, another for every channel, where planes are a few lines; a copy for many outputs gathers them for little work."""
        ext = access.extents(s)
        if access.roles(s).window:
            return True
        for l in s.body.loads():
            spec, used = self.program.tensor(l.data[0]), {a for i in l.args for a in i.axes()}
            if spec is not None and spec.kind == "input" and self.program.layout == "channels_first":
                positions, outputs = (math.prod(ext[a.name] for a in s.axes if (a.name in used) == inside) for inside in (True, False))
                if positions <= _PLANE and outputs >= _MANY:
                    return False
        return True


class Space(Tree):
    """Algorithms first, then each algorithm's knobs."""

    version = 5
    leaf = Leaf
    unfolds = True
