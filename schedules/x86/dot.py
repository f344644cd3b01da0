"""The dot product instructions of x86 as tensor intrinsics: VPDPBUSD (four u8 x s8 into int32) and VDPBF16PS (two bfloat16 into float32).

Sources: Intel's instruction set reference; LLVM's IntrinsicsX86.td. VPDPBUSD keeps its four products and their sum in full (VPMADDUBSW, its predecessor,
saturates at int16). VDPBF16PS rounds to nearest even after each product is added, without denormals.
"""

from __future__ import annotations

from convgen.emit import dot
from convgen.lang import access

# (data dtype, weight dtype) → {lanes: cpuinfo flags, any set of which will do}
FEATURES = {
    ("uint8", "int8"): {16: ({"avx512_vnni"},), 8: ({"avx512_vnni", "avx512vl"}, {"avx_vnni"})},
    ("bfloat16", "bfloat16"): {16: ({"avx512_bf16"},), 8: ({"avx512_bf16", "avx512vl"},)},
}


def lanes(dtypes: tuple, target: dict) -> list:
    """Vector lengths, in lanes of 32 bits, for which a target has the instruction."""
    has = set(target["features"])
    return [n for n, sets in FEATURES.get(dtypes, {}).items() if 32 * n <= target["vector_bits"] and any(s <= has for s in sets)]


def rate(program, target: dict) -> int:
    """How many times the float32 rate a target has for the sums of a program: a lane of these instructions starts as often as a multiply-add."""
    found = [dot.find(program, s) for s in access.specialised(program).run_stages]
    return max((d.width for d in found if d is not None and lanes(d.dtypes, target)), default=1)
