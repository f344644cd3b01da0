"""Tuning records: one self-contained JSON line per candidate that was tried, in `<root>/<target family>/<operator>.jsonl`.

Appending is one write under a lock; putting other lines in the place of some (`rewrite`) takes the same lock; reading takes none, skips what it cannot understand,
and says so once per file. Records hold knobs, no code; every knob is checked against the space again before it is used.
"""

from __future__ import annotations

import json
import logging
import os
import re
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterable, Iterator

try:
    import fcntl
except ImportError:  # not POSIX: appends are still single writes
    fcntl = None

from ..files import replaced

log = logging.getLogger("convgen")

FORMAT = 1
LONGEST_LINE = 1 << 16
# What every line must hold, and what a measured one holds besides.
_KEYS = {"format": int, "operator": str, "workload": str, "description": str, "target": str, "family": str, "space": int,
         "choice": dict, "kind": str}
_MEASURED = {"median_us": (int, float), "spread_us": (int, float), "repeats": int, "verified": str}


def dumps(record: dict) -> str:
    """One line without its end: sorted keys and a checksum, so that a flipped bit is noticed."""
    body = {k: v for k, v in record.items() if k != "crc"}
    return json.dumps({**body, "crc": _checksum(body)}, separators=(",", ":"), allow_nan=False)


def loads(line: str) -> dict:
    """The record of a line; ValueError with the reason if it is damaged, foreign or of a later format."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("it is not complete JSON") from None
    if not isinstance(record, dict):
        raise ValueError("it is not a record")
    if record.get("format") != FORMAT:
        raise ValueError(f"its format is {record.get('format')!r}, this release reads {FORMAT}")
    crc = record.pop("crc", None)
    try:
        if crc != _checksum(record):
            raise ValueError("its checksum does not match")
    except (TypeError, OverflowError, UnicodeError):
        raise ValueError("its checksum does not match") from None
    wanted = {**_KEYS, **(_MEASURED if record.get("kind") == "ok" else {})}
    for key, kind in wanted.items():
        if not isinstance(record.get(key), kind) or isinstance(record[key], bool):
            raise ValueError(f"its key {key!r} is missing or of the wrong type")
    return record


def _checksum(body: dict) -> str:
    return "%08x" % zlib.crc32(json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False).encode())


def choice_key(choice: dict) -> str:
    """Canonical text of a choice, for comparing choices."""
    return json.dumps(choice, sort_keys=True, separators=(",", ":"))


def file_of(root: str | os.PathLike, family: str, operator: str) -> Path:
    """The log file of an operator; names are reduced to harmless characters."""
    return Path(root) / _plain(family) / f"{_plain(operator)}.jsonl"


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name).lstrip(".") or "_"


def read(path: str | os.PathLike, problems: list | None = None) -> list[dict]:
    """Records of one file in order. Never raises for what the file holds.

    Unusable lines are skipped with one warning for the file; `problems` (if given) collects (line number, reason).
    """
    found, bad = [], []
    try:
        with open(path, "rb") as file:
            for number, raw in enumerate(_lines(file), 1):
                if raw is None:
                    bad.append((number, f"it is longer than {LONGEST_LINE} bytes"))
                    continue
                if not raw.strip():
                    continue
                try:
                    found.append(loads(raw.decode("utf-8")))
                except ValueError as error:  # UnicodeDecodeError included
                    bad.append((number, "it is not text" if isinstance(error, UnicodeDecodeError) else str(error)))
    except FileNotFoundError:
        return []
    except OSError as error:
        bad.append((0, f"the file cannot be read: {error.strerror}"))
    if bad:
        number, reason = bad[0]
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        log.warning("%s line %d was skipped: %s%s", path, number, reason, more)
        if problems is not None:
            problems += bad
    return found


def _lines(file) -> Iterator[bytes | None]:
    """Lines of a file, None for one that is too long to be a record."""
    while True:
        line = file.readline(LONGEST_LINE)
        if not line:
            return
        if line.endswith(b"\n") or len(line) < LONGEST_LINE:
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(LONGEST_LINE)
        yield None


def append(path: str | os.PathLike, record: dict) -> None:
    """Add one line: whole or not at all, also with several writers and on a full disk. Raises OSError if it cannot."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = dumps(record).encode() + b"\n"
    if len(data) > LONGEST_LINE:
        raise ValueError(f"a record of {len(data)} bytes is longer than {LONGEST_LINE}")
    with _opened(path) as descriptor:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            data = b"\n" + data  # somebody's line is torn: leave it, and do not become part of it
        _write_whole(descriptor, data, size)
        os.fsync(descriptor)


def rewrite(path: str | os.PathLike, fresh: dict[bytes, bytes]) -> None:
    """Put lines in the place of others, all or none. `fresh`: line → line, without their ends; all other lines stay, also those appended meanwhile."""
    with _opened(Path(path)) as descriptor:
        lines = os.pread(descriptor, os.fstat(descriptor).st_size, 0).split(b"\n")
        with replaced(path) as file:
            file.write(b"\n".join(fresh.get(line, line) for line in lines))
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Descriptor of the log file at `path` (made if there is none), to read and append, under its lock."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            with _locked(descriptor):
                if _is_at(path, descriptor):
                    yield descriptor
                    return
        finally:
            os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether an open file is still the one at `path`: while we waited for its lock, a rewritten one may have taken its place."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _write_whole(descriptor: int, data: bytes, size: int) -> None:
    written = 0
    try:
        written = os.write(descriptor, data)
        if written < len(data):
            os.write(descriptor, data[written:])  # raises the reason (disk full, file too large)
    except OSError:
        if os.fstat(descriptor).st_size > size:
            os.ftruncate(descriptor, size)  # only our own bytes, still under the lock
        raise


@contextmanager
def _locked(descriptor: int):
    """Exclusive lock of the file; on file systems without locks the single write must do."""
    held = False
    if fcntl is not None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            held = True
        except OSError as error:
            log.debug("no lock: %s", error)
    try:
        yield
    finally:
        if held:
            fcntl.flock(descriptor, fcntl.LOCK_UN)


class Store:
    """The record folders in order of precedence, and the one that new records go to.

    `roots` are read first to last; `write_to` (None: keep in memory only). When writing fails, one warning is given and the
    records of this run stay usable in memory.
    """

    def __init__(self, roots: Iterable[str | os.PathLike], write_to: str | os.PathLike | None = None):
        self.roots = [Path(r) for r in roots]
        self.write_to = Path(write_to) if write_to is not None else None
        self._files: dict[Path, tuple[Any, list[dict]]] = {}
        self._memory: list[dict] = []

    @staticmethod
    def open(logs: str | os.PathLike | Iterable | bool | None = None) -> "Store":
        """The folders of contract §3: `logs`, $CONVGEN_LOGS, the checkout's, the user's, the shipped ones. False: none of them, and new records are kept in memory."""
        from ..paths import log_roots, write_root

        if logs is False:
            return Store([])
        return Store(log_roots(logs), write_root(logs))

    def add(self, record: dict) -> bool:
        """Append a record; False if it could only be kept in memory."""
        record = {"format": FORMAT, **record}
        if self.write_to is not None:
            try:
                append(file_of(self.write_to, record["family"], record["operator"]), record)
                return True
            except OSError as error:
                log.warning("records cannot be saved in %s: %s; this run keeps them in memory only", self.write_to,
                            error.strerror or error)
                self.write_to = None
        self._memory.append(record)
        return False

    def records(self, family: str, operator: str) -> list[list[dict]]:
        """Records of an operator, one list per folder in order of precedence (memory first)."""
        groups = [[r for r in self._memory if r["family"] == family and r["operator"] == operator]]
        for root in self.roots:
            groups.append(self._cached(file_of(root, family, operator)))
        return [group for group in groups if group]

    def _cached(self, path: Path) -> list[dict]:
        try:
            state = path.stat()
            stamp = (state.st_mtime_ns, state.st_size, state.st_ino)
        except OSError:
            stamp = None
        known = self._files.get(path)
        if known is None or known[0] != stamp:
            known = self._files[path] = (stamp, read(path))
        return known[1]

    def files(self) -> list[Path]:
        """Every log file of every folder."""
        return [path for root in self.roots if root.is_dir() for path in sorted(root.glob("*/*.jsonl"))]
