"""Result files: one JSON line per finished step with a checksum, appended whole; what is torn or damaged is skipped and counted."""

from __future__ import annotations

import errno
import json
import os
import zlib


def _checksum(body: dict) -> str:
    return "%08x" % zlib.crc32(json.dumps(body, sort_keys=True, separators=(",", ":")).encode())


def encode(entry: dict) -> bytes:
    """The line of an entry, with its end."""
    return (json.dumps({**entry, "crc": _checksum(entry)}, separators=(",", ":")) + "\n").encode()


def decode(line: bytes) -> dict:
    """The entry of a line; ValueError with the reason if it is damaged."""
    try:
        entry = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        raise ValueError("it is not complete JSON") from None
    if not isinstance(entry, dict) or entry.pop("crc", None) != _checksum(entry):
        raise ValueError("its checksum does not match")
    return entry


def read(path) -> tuple:
    """(entries, [(line number, reason)] of unusable lines). A missing file has neither."""
    entries, problems = [], []
    if not os.path.exists(path):
        return entries, problems
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    entries.append(decode(line))
                except ValueError as error:
                    problems.append((number, str(error)))
    return entries, problems


def append(path, entry: dict) -> None:
    """Add one line by a single write that is on disk when this returns; a torn line before it stays by itself."""
    data = encode(entry)
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            data = b"\n" + data
        if os.write(descriptor, data) < len(data):
            os.ftruncate(descriptor, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
