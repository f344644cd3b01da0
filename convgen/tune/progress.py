"""Progress of tuning on a terminal (one line, updated) or in a log (a plain line every ten seconds)."""

from __future__ import annotations

import shutil
import sys
import time
from typing import Callable, TextIO

from .result import failures_text

EVERY = 10.0  # seconds between lines where there is no terminal


class Progress:
    """A progress function for `tune`. `stream` defaults to stderr; `clock` is for tests. Call `close()` (or use `with`) at the end."""

    def __init__(self, stream: TextIO | None = None, tty: bool | None = None, clock: Callable[[], float] = time.monotonic):
        self.stream = stream if stream is not None else sys.stderr
        self.tty = self.stream.isatty() if tty is None else tty
        self.clock = clock
        self._last = -EVERY
        self._open = False

    def __call__(self, event: dict) -> None:
        kind = event["event"]
        if kind == "store":
            where = event["path"] or "memory only"
            self._line(f"records: {where}")
        elif kind == "trial":
            if self.tty:
                self._update(status(event))
            elif self.clock() - self._last >= EVERY:
                self._last = self.clock()
                self._line(status(event))
        elif kind == "row":
            self._line(finished(event))
        elif kind == "done":
            self.close()

    def _update(self, text: str) -> None:
        width = shutil.get_terminal_size((100, 24)).columns - 1
        self.stream.write("\r\x1b[2K" + text[:width])
        self.stream.flush()
        self._open = True

    def _line(self, text: str) -> None:
        self.stream.write(("\r\x1b[2K" if self._open else "") + text + "\n")
        self.stream.flush()
        self._open = False

    def close(self) -> None:
        """Leave the cursor on a line of its own."""
        if self._open:
            self.stream.write("\n")
            self.stream.flush()
            self._open = False

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def status(event: dict) -> str:
    """One workload's state: trial n/N, best time, ratio to PyTorch, failures by kind, time left."""
    total = f"/{event['trials']}" if event.get("trials") else ""
    parts = [f"{event['workload']}", f"trial {event['trial']}{total}"]
    best, torch_us = event.get("best_us"), event.get("torch_us")
    parts.append(f"best {best:.4g} µs" if best else "no result yet")
    if best and torch_us:
        parts.append(f"{torch_us / best:.2f}x torch")
    if event.get("failures"):
        parts.append("failed: " + failures_text(event["failures"]))
    if event.get("seconds_left") is not None:
        parts.append(f"{event['seconds_left']:.0f} s left")
    return "  ".join(parts)


def finished(event: dict) -> str:
    """One workload's result in a line."""
    row = event["row"]
    if row.us is None:
        return f"{row.workload}  {row.note}"
    parts = [row.workload, f"{row.us:.4g} µs ± {row.spread:.2g}"]
    if row.default_ratio:
        parts.append(f"{row.default_ratio:.2f}x default")
    if row.baseline_ratio:
        parts.append(f"{row.baseline_ratio:.2f}x torch")
    return "  ".join(parts)
