"""Temporary folders that carry their owner's process number, so that those of killed processes can be found and removed."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

_swept = False


def scratch_folder(kind: str) -> str:
    """A fresh folder `convgen-<kind>-<pid>-...`; the first call of a process removes what dead processes of this user left."""
    global _swept
    if not _swept:
        _swept = True
        sweep(tempfile.gettempdir())
    return tempfile.mkdtemp(prefix=f"convgen-{kind}-{os.getpid()}-")


def sweep(root: str) -> None:
    """Remove folders below `root` that belong to processes which are gone."""
    for folder in Path(root).glob("convgen-*-*-*"):
        owner = re.fullmatch(r"convgen-[a-z]+-(\d+)-\w+", folder.name)
        try:
            if owner and folder.stat().st_uid == os.getuid() and not Path("/proc", owner[1]).exists() and Path("/proc/self").exists():
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue  # somebody else removed it meanwhile
