"""The dot product instructions of ARM as tensor intrinsics: SDOT and USDOT, four products of bytes into each int32.

Source: Arm Architecture Reference Manual (DDI 0487), FEAT_DotProd and FEAT_I8MM. Both keep products and sum in full. SDOT takes signed bytes only: unsigned data
is moved by 128 and what that takes away, 128 times the weights, is given back.
"""

from __future__ import annotations

from convgen.emit import dot
from convgen.lang import access

# (data dtype, weight dtype) → {lanes: cpuinfo flags, any set of which will do}
FEATURES = {("uint8", "int8"): {4: ({"asimddp"}, {"i8mm"})}}


def lanes(dtypes: tuple, target: dict) -> list:
    """Vector lengths, in lanes of 32 bits, for which a target has the instruction."""
    has = set(target["features"])
    return [n for n, sets in FEATURES.get(dtypes, {}).items() if any(s <= has for s in sets)]


def rate(program, target: dict) -> int:
    """How many times the float32 rate a target has for the sums of a program: SDOT needs an addition beside it for unsigned data."""
    found = [dot.find(program, s) for s in access.specialised(program).run_stages]
    best = max((d.width for d in found if d is not None and lanes(d.dtypes, target)), default=1)
    return best if "i8mm" in target["features"] else max(1, best // 2)
