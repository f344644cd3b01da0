"""The one exception of the device's side."""

from __future__ import annotations


class Trouble(Exception):
    """`kind` is one of the failure kinds that records know, or "device" when this machine cannot measure the wave at all."""

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind
