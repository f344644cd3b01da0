"""The ARM space."""

from __future__ import annotations

from ..cpu import space
from ..knobs import Tree
from . import dot


class Leaf(space.Leaf):
    """Knobs of one algorithm on ARM."""

    instructions = dot


class Space(Tree):
    """Algorithms first, then each algorithm's knobs."""

    version = 1
    leaf = Leaf
    unfolds = True
