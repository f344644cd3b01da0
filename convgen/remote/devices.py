"""Is a server there, and does it work? One small kernel goes to each and comes back verified."""

from __future__ import annotations

from ..errors import TuneError, WorkerError
from .address import Tracker
from .builder import RemoteBuilder
from .runner import RemoteRunner


def registered(tracker: Tracker) -> list[dict]:
    """Every server that a tracker knows: [{"server", "key"}]. Raises TuneError where no tracker answers."""
    runner = RemoteRunner({}, tracker)
    try:
        return [{"server": address, "key": key} for address, key in runner.registered()]
    finally:
        runner.close()


def devices(tracker: Tracker, target: dict, wait: float = 20.0) -> list[dict]:
    """A row per server of the key: {"server", "facts", "us" (the kernel's time) or None, "error" or None, "seconds"}.

    `target` is what the kernel is built for; `wait` seconds may pass until a busy server is free. Raises TuneError where no
    tracker answers or the kernel cannot be built, TargetError for a GPU.
    """
    from ..api import operator

    builder, runner = RemoteBuilder(target, 1), RemoteRunner(target, tracker)
    try:
        if not runner.servers():
            return []
        description = operator("depthwise_conv2d")(N=1, C=16, H=12, W=12, kernel=3, padding=1).description
        (built,) = builder.build(description, [None])
        if isinstance(built, WorkerError):
            raise TuneError(f"no kernel can be built for {target['name']}: {built}")
        return runner.survey(built.path, built.entry, description, wait)
    finally:
        runner.close()
        builder.close()
