"""Memory layouts: an order of dims, of which one may be split into blocks of vector lanes, and another into what one lane takes together."""

from __future__ import annotations


class Layout:
    """How a tensor with logical `extents` lies in memory.

    `order`: logical dims, outermost first. `split`: the dim whose blocks of `lanes` move innermost (its outer part keeps its place), or None.
    `inner`: a dim whose blocks of `width`, a divisor of its extent, move further inside than the lanes. Extents may be TVM variables where no dim is split.
    """

    def __init__(self, extents, order=None, split=None, lanes=1, inner=None, width=1):
        self.extents, self.split, self.lanes, self.inner, self.width = list(extents), split, lanes, inner, width
        self.order = list(order) if order is not None else list(range(len(self.extents)))

    @property
    def shape(self) -> list:
        dims = [self.blocks if d == self.split else self.extents[d] // self.width if d == self.inner else self.extents[d] for d in self.order]
        return dims + self._inside(self.lanes, self.width)

    def _inside(self, lanes, width) -> list:
        """The innermost dims, from what stands for the lanes and for a lane's own."""
        return ([lanes] if self.split is not None else []) + ([width] if self.inner is not None else [])

    @property
    def blocks(self) -> int:
        return -(-self.extents[self.split] // self.lanes)

    def index(self, logical) -> list:
        """Physical index of a logical one."""
        physical = [logical[d] // self.lanes if d == self.split else logical[d] // self.width if d == self.inner else logical[d] for d in self.order]
        return physical + self._inside(self.split is not None and logical[self.split] % self.lanes, self.inner is not None and logical[self.inner] % self.width)

    def logical(self, physical) -> list:
        """Logical index of a physical one; along the split dim it may exceed the extent (the last block's fill)."""
        out, lane = [None] * len(self.extents), physical[-1 if self.inner is None else -2]
        for d, v in zip(self.order, physical):
            out[d] = v * self.lanes + lane if d == self.split else v * self.width + physical[-1] if d == self.inner else v
        return out

    @property
    def overhangs(self) -> bool:
        """Whether the last block is only partly used."""
        return self.split is not None and self.extents[self.split] % self.lanes != 0

    def like(self, other) -> bool:
        """Whether equal positions lie in equal places."""
        return (self.shape, self.order, self.split, self.inner) == (other.shape, other.order, other.split, other.inner)

    def tags(self, names) -> list:
        """One (axis name, part) per physical dim; part is "full", "outer" or "lanes"."""
        tags = [(names[d], "outer" if d == self.split else "full") for d in self.order]
        return tags + [(names[self.split], "lanes")] if self.split is not None else tags
