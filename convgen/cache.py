"""Compiled kernels on disk: folders by key, each complete or absent, the least recently used removed when there are too many.

Every process may read and write at once: a folder is made beside its place and renamed into it.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Callable

from . import paths

LIMIT = 1 << 30  # bytes; a kernel takes about 50 kB
ABANDONED = 24 * 3600  # seconds after which an unfinished folder belongs to nobody

_log = logging.getLogger("convgen")
_fallback: Path | None = None


def entry(key: str, make: Callable[[Path], None]) -> Path:
    """Folder of `key`. Where it is missing, `make(folder)` fills a fresh one; what it raises passes through and leaves nothing."""
    root = _root()
    folder = root / key[:2] / key
    if folder.is_dir():
        _touch(folder)
        return folder
    fresh = Path(tempfile.mkdtemp(prefix="making-", dir=root))
    try:
        make(fresh)
        folder.parent.mkdir(exist_ok=True)
        try:
            fresh.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster, and its folder is as good
                raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    trim(LIMIT, keep=folder)
    return folder


def discard(key: str) -> None:
    """Forget one entry, for example a damaged one."""
    _remove(_root() / key[:2] / key)


def size() -> tuple[int, int]:
    """(number of entries, bytes) in the cache folder."""
    entries = _entries(paths.cache_dir() / "kernels")
    return len(entries), sum(_bytes(folder) for folder in entries)


def clear() -> int:
    """Remove every entry; returns how many there were. What other processes are making now is left to them."""
    entries = _entries(paths.cache_dir() / "kernels")
    for folder in entries:
        _remove(folder)
    return len(entries)


def trim(limit: int, keep: Path | None = None) -> None:
    """Remove entries, least recently used first, until at most `limit` bytes remain; `keep` stays."""
    for left in (*_root().glob("making-*"), *_root().glob("removed-*")):  # by processes that were killed
        if _used(left) < time.time() - ABANDONED:
            shutil.rmtree(left, ignore_errors=True)
    entries = [(_used(folder), _bytes(folder), folder) for folder in _entries(_root())]
    total = sum(taken for _, taken, _ in entries)
    for _, taken, folder in sorted(entries, key=lambda row: row[0]):
        if total <= limit:
            return
        if folder != keep:
            _remove(folder)
            total -= taken


def _root() -> Path:
    """The cache folder, or one of this process alone where the home cannot be written (with one warning)."""
    global _fallback
    root = paths.cache_dir() / "kernels"
    try:
        root.mkdir(parents=True, exist_ok=True)
        if os.access(root, os.W_OK):
            return root
    except OSError:
        pass
    if _fallback is None:
        _fallback = Path(tempfile.mkdtemp(prefix="convgen-cache-"))
        atexit.register(shutil.rmtree, _fallback, ignore_errors=True)
        _log.warning("cannot write %s, compiled kernels are kept in %s for this process only", root, _fallback)
    return _fallback


def _entries(root: Path) -> list[Path]:
    return [folder for group in root.glob("??") for folder in group.iterdir() if folder.is_dir()] if root.is_dir() else []


def _used(folder: Path) -> float:
    """When a folder was used last; now, if another process removed it meanwhile or is at it."""
    try:
        return folder.stat().st_mtime
    except OSError:
        return time.time()


def _bytes(folder: Path) -> int:
    total = 0
    try:
        for file in folder.rglob("*"):
            total += file.stat().st_size
    except OSError:  # another process removed it meanwhile
        pass
    return total


def _remove(folder: Path) -> None:
    """Rename, then delete: a reader finds the entry whole or not at all."""
    try:
        grave = Path(tempfile.mkdtemp(prefix="removed-", dir=folder.parent.parent))
    except OSError:
        return
    try:
        folder.rename(grave / "entry")
    except OSError:  # another process was faster
        pass
    shutil.rmtree(grave, ignore_errors=True)


def _touch(folder: Path) -> None:
    try:
        os.utime(folder)
    except OSError:
        pass
