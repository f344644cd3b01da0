"""Is an output right? Against references that are small: a hash of the exact result, or positions and sums with bounds.

Exact results (small integers) are compared in full. Of float results, chosen positions are compared one by one and all elements in sums
of blocks, each with the error that rounding explains.
"""

from __future__ import annotations

import hashlib
import math
import struct
from array import array

_UNSIGNED = {2: "H", 4: "I", 8: "Q"}
_FLOATS = ("float64", "float32", "float16", "bfloat16")
SHARES = 16  # parts of an exact output that have a hash of their own, to say where it is wrong


def canonical(data: bytes, dtype: str) -> bytes:
    """The same numbers with -0 written as 0."""
    if dtype not in _FLOATS:
        return data
    width = {"float64": 8, "float32": 4}.get(dtype, 2)
    raw, negative = array(_UNSIGNED[width]), 1 << (8 * width - 1)
    raw.frombytes(data)
    return array(raw.typecode, [0 if v == negative else v for v in raw]).tobytes() if negative in raw else data


def shares(data: bytes, width: int) -> list:
    """[(first element, end, hash)] of about SHARES parts of an output."""
    count = len(data) // width
    step = max(1, -(-count // SHARES))
    return [(i, min(i + step, count), hashlib.sha256(data[i * width:(i + step) * width]).hexdigest()[:8]) for i in range(0, count, step)]


def numbers(data: bytes, dtype: str):
    """Storage of a float dtype as a sequence of floats."""
    if dtype == "float16":
        return array("d", struct.unpack("<%de" % (len(data) // 2), data))
    if dtype == "bfloat16":
        wide = bytearray(2 * len(data))
        wide[2::4], wide[3::4] = data[0::2], data[1::2]
        data, dtype = bytes(wide), "float32"
    values = array("d" if dtype == "float64" else "f")
    values.frombytes(data)
    return values


def exact(data: bytes, case: dict):
    """None, or why an output is not the exact result that `case` (sha256, shares, dtype, width) describes."""
    data = canonical(data, case["dtype"])
    if hashlib.sha256(data).hexdigest() == case["sha256"]:
        return None
    found = shares(data, case["width"])
    wrong = [mine for mine, right in zip(found, case["shares"]) if mine[2] != right]
    first, end = wrong[0][:2] if wrong else (0, len(data) // case["width"])
    reason = "%d of %d parts of the output differ from the exact result, the first is elements %d to %d" % (len(wrong), len(found), first, end - 1)
    return reason + unwritten(data, case["dtype"])


def unwritten(data: bytes, dtype: str) -> str:
    """How many elements are no numbers, as words to add to a reason."""
    missing = sum(1 for v in numbers(data, dtype) if v != v) if dtype in _FLOATS else 0
    return "; %d elements were not written or are not numbers" % missing if missing else ""


class Reference:
    """A float reference. `case` (JSON) says how many positions and blocks its packed `data` holds: positions (uint32), their expected values
    (float64) and bounds (float32), sums of every `block` consecutive elements (float64) and the sums' bounds (float32).
    """

    def __init__(self, case: dict, data: bytes):
        self.case, place = case, 0
        p, b = case["positions"], case["blocks"]
        for name, code, count in (("where", "I", p), ("expected", "d", p), ("bound", "f", p), ("sums", "d", b), ("sum_bound", "f", b)):
            values = array(code)
            values.frombytes(data[place:place + count * values.itemsize])
            place += count * values.itemsize
            setattr(self, name, values)

    def compare(self, data: bytes, norm: bool):
        """(worst error over its bound, reason of failure or None). `norm` bounds the relative L2 error instead of each element's."""
        case = self.case
        values = numbers(data, case["dtype"])
        errors = [abs(values[i] - e) for i, e in zip(self.where, self.expected)]
        if norm:
            size = math.sqrt(sum(e * e for e in self.expected))
            ratio = math.sqrt(sum(e * e for e in errors)) / max(size, 1e-30) / case["norm"]
            worst = max(range(len(errors)), key=lambda i: errors[i], default=None)
        else:
            ratios = [e / max(b, 1e-45) for e, b in zip(errors, self.bound)]
            ratio = max(ratios, default=0.0)
            worst = max(range(len(ratios)), key=lambda i: ratios[i], default=None)
        if any(e != e for e in errors) or not ratio <= 1:
            bad = next((i for i, e in enumerate(errors) if e != e), worst)
            return math.inf if ratio != ratio else ratio, "error is %.3g times its bound at element %d: expected %.8g, got %.8g%s" % (
                ratio, self.where[bad], self.expected[bad], values[self.where[bad]], unwritten(data, case["dtype"]))
        block = case["block"]
        for number, (expected, bound) in enumerate(zip(self.sums, self.sum_bound)):
            error = abs(sum(values[number * block:(number + 1) * block]) - expected)
            if not error <= (case["norm_sum"] if norm else bound):
                last = min((number + 1) * block, len(values)) - 1
                return math.inf, "the sum of elements %d to %d is wrong by %.3g%s" % (number * block, last, error, unwritten(data, case["dtype"]))
        return ratio, None
