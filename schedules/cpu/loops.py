"""Steps on single loops that every placement takes."""

from __future__ import annotations

from tvm import tirx


def extent(sch, loop) -> int | None:
    """The steps of a loop, or None where they are not known."""
    e = sch.get(loop).extent
    return int(e) if isinstance(e, (int, tirx.IntImm)) else None


def width(steps, lanes, narrow=1) -> int:
    """The widest vector that divides so many steps, or 0: down to a quarter of the float32 lanes. `narrow`: elements in the place of a float32."""
    widths = [lanes * narrow >> i for i in range(narrow.bit_length() + 2)]
    return next((w for w in widths if w > 1 and steps and steps % w == 0), 0)


def vectorize(sch, loop, lanes, narrow=1) -> list:
    """A loop in vectors, where some divide its steps. Returns the loop outside of the vectors, if there is one."""
    steps = extent(sch, loop)
    wide, outside = width(steps, lanes, narrow), []
    if wide and steps > wide:
        *outside, loop = sch.split(loop, [None, wide])
    if wide:
        sch.vectorize(loop)
    return outside


def unroll(sch, loops, most=32):
    """Unroll those of the loops that have few steps."""
    for loop in loops:
        if (extent(sch, loop) or most + 1) <= most:
            sch.unroll(loop)
