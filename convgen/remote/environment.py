"""What `tune` needs to measure on other machines."""

from __future__ import annotations

from ..errors import TuneError
from ..tune.context import Environment
from .address import tracker
from .builder import RemoteBuilder
from .runner import RemoteRunner


def remote_environment(target: dict, rpc: str, key: str | None, workers: int | None = None, emulated: bool = False) -> Environment:
    """Compiling here with `workers` processes, measuring on the servers under `key` at the tracker `rpc` ("HOST:PORT").

    PyTorch is not timed: a board has none. Raises ArgumentError, TargetError for a GPU, and TuneError where no server is
    registered. With `emulated` nothing is saved.
    """
    where = tracker(rpc, key)
    builder, runner = RemoteBuilder(target, workers), RemoteRunner(target, where, emulated=emulated)
    try:
        if not runner.servers():
            raise TuneError(f"no server with the key {where.key!r} is registered at the tracker {where}; `convgen device serve` starts one")
        return Environment(builder, runner, None, origin={"measured": "rpc"}, saves=not emulated)
    except BaseException:
        runner.close()
        builder.close()
        raise
