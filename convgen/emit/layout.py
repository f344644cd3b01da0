"""Memory layouts: an order of dims, one of which may be split into blocks of vector lanes with the lanes innermost."""

from __future__ import annotations


class Layout:
    """How a tensor with logical `extents` lies in memory.

    `order`: logical dims, outermost first. `split`: the dim whose blocks of `lanes` move innermost (its outer part keeps its place), or None.
    Extents may be TVM variables where no dim is split.
    """

    def __init__(self, extents, order=None, split=None, lanes=1):
        self.extents, self.split, self.lanes = list(extents), split, lanes
        self.order = list(order) if order is not None else list(range(len(self.extents)))

    @property
    def shape(self) -> list:
        dims = [self.blocks if d == self.split else self.extents[d] for d in self.order]
        return dims + [self.lanes] if self.split is not None else dims

    @property
    def blocks(self) -> int:
        return -(-self.extents[self.split] // self.lanes)

    def index(self, logical) -> list:
        """Physical index of a logical one."""
        physical = [logical[d] // self.lanes if d == self.split else logical[d] for d in self.order]
        return physical + [logical[self.split] % self.lanes] if self.split is not None else physical

    def logical(self, physical) -> list:
        """Logical index of a physical one; along the split dim it may exceed the extent (the last block's fill)."""
        out = [None] * len(self.extents)
        for d, v in zip(self.order, physical):
            out[d] = v * self.lanes + physical[-1] if d == self.split else v
        return out

    @property
    def overhangs(self) -> bool:
        """Whether the last block is only partly used."""
        return self.split is not None and self.extents[self.split] % self.lanes != 0

    def tags(self, names) -> list:
        """One (axis name, part) per physical dim; part is "full", "outer" or "lanes"."""
        tags = [(names[d], "outer" if d == self.split else "full") for d in self.order]
        return tags + [(names[self.split], "lanes")] if self.split is not None else tags
