"""Files that are replaced as a whole: who reads one finds what it held before or what it holds then."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Iterator


@contextmanager
def replaced(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A file to write beside `path`, which takes its place when the block ends; where the block raises, nothing has changed. Raises OSError as writing does."""
    path = Path(os.path.realpath(path))  # a link goes on pointing to it
    partial = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with open(partial, "wb") as file:
            yield file
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
