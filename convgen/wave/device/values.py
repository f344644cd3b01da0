"""Numbers that host and device draw alike: bytes of SHAKE-128 mapped through tables, by operations that run at C speed without numpy."""

from __future__ import annotations

import hashlib

STREAM = 1 << 26  # bytes per call of the hash, so that a tensor costs little beside its own memory


def stream(key: str, count: int) -> bytes:
    """`count` bytes that depend on nothing but the key."""
    whole = [hashlib.shake_128(f"{key}:{start}".encode()).digest(min(STREAM, count - start)) for start in range(0, count, STREAM)]
    return b"".join(whole)


def drawn(spec: dict) -> bytes:
    """A tensor's storage. `spec` (JSON) holds

    count, width   elements, and bytes of each
    key            names the random streams
    levels         hex: 256 equally likely values of `width` bytes each
    noise          how many of an element's lowest bytes are random instead (0 or more)
    keep           thresholds t: an element survives each with probability t/256, else it is level 0
    """
    count, width, key = spec["count"], spec["width"], spec["key"]
    index = stream(key + "/level", count)
    for number, threshold in enumerate(spec["keep"]):
        mask = stream(f"{key}/keep{number}", count).translate(bytes(255 if i < threshold else 0 for i in range(256)))
        index = (int.from_bytes(index, "little") & int.from_bytes(mask, "little")).to_bytes(count, "little")
    table, out = bytes.fromhex(spec["levels"]), bytearray(count * width)
    for place in range(width):
        out[place::width] = stream(f"{key}/noise{place}", count) if place < spec["noise"] else index.translate(table[place::width])
    return bytes(out)
