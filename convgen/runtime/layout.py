"""Memory formats. Tensors keep their logical shape; a format says in which order the dimensions lie in memory.

`channels_first` is row-major. `channels_last` puts the spatial dimensions before the channels: (dim 0, spatial..., the rest).
Strides of dimensions of size 1 mean nothing and are ignored, so C = 1 (or one pixel) is both formats at once.
All functions work on int and torch.SymInt; strides count elements.
"""

from __future__ import annotations

from typing import Sequence

CHANNELS_FIRST, CHANNELS_LAST = "channels_first", "channels_last"
FORMATS = (CHANNELS_FIRST, CHANNELS_LAST)


def order(rank: int, spatial: Sequence[int], fmt: str) -> tuple[int, ...]:
    """Logical dimensions from the outermost to the innermost in memory."""
    if fmt == CHANNELS_FIRST or not spatial:
        return tuple(range(rank))
    rest = [d for d in range(1, rank) if d not in spatial]
    return (0, *spatial, *rest)


def strides_of(shape: Sequence[int], perm: Sequence[int]) -> tuple:
    """Strides of a compact tensor whose memory order is `perm`."""
    strides = [1] * len(shape)
    step = 1
    for dim in reversed(perm):
        strides[dim] = step
        step = step * shape[dim]
    return tuple(strides)


def compact(shape: Sequence[int], strides: Sequence[int], perm: Sequence[int]) -> bool:
    """Whether the tensor fills its memory without gaps in the order `perm`."""
    step = 1
    for dim in reversed(perm):
        if shape[dim] != 1:
            if strides[dim] != step:
                return False
            step = step * shape[dim]
    return True


def formats(shape, strides, spatial) -> tuple[str, ...]:
    """The formats that a tensor has: none (it must be copied), one, or both."""
    return tuple(f for f in FORMATS if compact(shape, strides, order(len(shape), spatial, f)))


def preferred(shape, strides, spatial, offered: Sequence[str] = FORMATS) -> str:
    """The format of a call, which is that of its output.

    `offered` are the formats that the library holds for the operator: a tensor that is both takes the only one offered, else
    channels_first. A tensor with gaps is copied, into channels_last if its channels lie closest together, else channels_first; one
    whose channels are one and the same (`gray.expand(-1, 3, -1, -1)`) into channels_first, as in PyTorch.
    """
    present = formats(shape, strides, spatial)
    if len(present) == 1:
        return present[0]
    if present:
        return offered[0] if len(offered) == 1 else CHANNELS_FIRST
    rest = [d for d in range(1, len(shape)) if d not in spatial and shape[d] != 1]
    pixels = [d for d in spatial if shape[d] != 1]
    if rest and pixels and all(0 < strides[c] < strides[s] for c in rest for s in pixels):
        return CHANNELS_LAST
    return CHANNELS_FIRST
