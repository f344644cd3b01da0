"""Where convgen keeps things on disk: the compiled cache and the tuning records."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Iterable

from .errors import ArgumentError

PACKAGE = Path(__file__).resolve().parent


def checkout_root() -> Path | None:
    """Folder of the source checkout that this package runs from, or None when it was installed as a wheel."""
    root = PACKAGE.parent
    return root if (root / "pyproject.toml").is_file() and (root / "tuning_logs").is_dir() else None


def cache_dir() -> Path:
    """Folder of compiled kernels: `$CONVGEN_CACHE`, else `$XDG_CACHE_HOME/convgen`, else `~/.cache/convgen` (not created here)."""
    chosen = os.environ.get("CONVGEN_CACHE")
    return Path(chosen).expanduser() if chosen else _home("XDG_CACHE_HOME", ".cache") / "convgen"


def user_logs() -> Path:
    """Folder of this user's tuning records: `$XDG_DATA_HOME/convgen/tuning_logs`, else below `~/.local/share`."""
    return _home("XDG_DATA_HOME", ".local/share") / "convgen" / "tuning_logs"


def shipped_logs() -> Path:
    """Folder of the records that came with the package (read only): inside the wheel, or the checkout's own."""
    root = checkout_root()
    return root / "tuning_logs" if root else PACKAGE / "tuning_logs"


def checkout_logs(directory: str | os.PathLike | None = None) -> Path | None:
    """`tuning_logs` of the convgen checkout whose root is `directory` (default: the current one), or None."""
    root = Path(directory or os.curdir).resolve()
    inside = (root / "pyproject.toml").is_file() and (root / "convgen" / "errors.py").is_file()
    return root / "tuning_logs" if inside else None


def log_roots(logs: str | os.PathLike | Iterable[str | os.PathLike] | None = None) -> list[Path]:
    """Folders that tuning records are read from, in the order of precedence.

    `logs` (one folder or several), then `$CONVGEN_LOGS` (':'-separated), `./tuning_logs` in a checkout, the user's store, the
    shipped records. A folder that stands twice is kept once, at its first place; missing folders are listed too.
    """
    given: list[str | os.PathLike] = []
    if logs is not None:
        if not isinstance(logs, (str, os.PathLike, Iterable)):
            raise ArgumentError(f"logs must be a folder or several, got {logs!r}")
        given += [logs] if isinstance(logs, (str, os.PathLike)) else list(logs)
    given += [part for part in os.environ.get("CONVGEN_LOGS", "").split(":") if part]
    roots = [Path(folder).expanduser() for folder in given]
    here = checkout_logs()
    roots += [here] if here else []
    roots += [user_logs(), shipped_logs()]
    seen: set[Path] = set()
    return [root for root in roots if not (root.resolve() in seen or seen.add(root.resolve()))]


def write_root(logs: str | os.PathLike | Iterable[str | os.PathLike] | None = None) -> Path:
    """Folder that new records are written to: the first of `log_roots` that is not the installed package's own.

    In a checkout `./tuning_logs` is a source folder and may be written; inside an installed package it may not.
    """
    installed = PACKAGE / "tuning_logs"
    return next(root for root in log_roots(logs) if root.resolve() != installed)


def _home(variable: str, fallback: str) -> Path:
    base = os.environ.get(variable)
    return Path(base) if base and os.path.isabs(base) else Path.home() / fallback
