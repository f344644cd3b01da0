"""Addresses of trackers as people write them."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ArgumentError

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Tracker:
    """Where a tracker listens, and the key under which the servers to use have registered."""

    host: str
    port: int
    key: str

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def parse(text: str) -> tuple[str, int]:
    """(host, port) of "HOST:PORT"; raises ArgumentError."""
    host, separator, port = str(text).rpartition(":")
    if not (separator and host and port.isdigit() and 0 < int(port) < 1 << 16):
        raise ArgumentError(f"an address must be HOST:PORT, for example 127.0.0.1:9190, got {text!r}")
    return host.strip("[]"), int(port)


def tracker(rpc: str, key: str | None) -> Tracker:
    """The tracker of the options `rpc` ("HOST:PORT") and `key`; raises ArgumentError."""
    if not key or ":" in key or len(key.split()) != 1:
        raise ArgumentError(f"measuring on {rpc} needs the key that its servers were started with, one word without a colon, got {key!r}")
    return Tracker(*parse(rpc), key)
