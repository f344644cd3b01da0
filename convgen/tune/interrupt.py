"""Ctrl-C during tuning: stops between two steps, never inside a save."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager


class Interrupts:
    """While entered, SIGINT raises KeyboardInterrupt, except inside `hold()`, where it waits for the end of the block.

    Does nothing outside the main thread, where Python delivers no signals.
    """

    def __init__(self):
        self.pending = False
        self._held = 0
        self._previous = None
        self._active = False

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._previous = signal.signal(signal.SIGINT, self._handle)  # a caller's own handler is left in place
            self._active = True
        return self

    def __exit__(self, *_) -> None:
        if self._active:
            signal.signal(signal.SIGINT, self._previous)
            self._active = False

    def _handle(self, *_) -> None:
        if self._held:
            self.pending = True
        else:
            raise KeyboardInterrupt

    @contextmanager
    def hold(self):
        """No KeyboardInterrupt inside this block; one that came is raised at its end."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
        if self.pending and not self._held:
            self.pending = False
            raise KeyboardInterrupt
