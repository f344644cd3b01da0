"""The x86 space."""

from __future__ import annotations

from ..cpu import space
from ..knobs import Tree
from . import dot


class Leaf(space.Leaf):
    """Knobs of one algorithm on x86."""

    instructions = dot


class Space(Tree):
    """Algorithms first, then each algorithm's knobs."""

    version = 5
    leaf = Leaf
    unfolds = True
