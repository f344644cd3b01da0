"""Searching: candidates are proposed, compiled, verified, timed and recorded.

`convgen.tune` is the public function as well as this room: calling the module calls `tune`.
"""

from __future__ import annotations

from ..rooms import callable_room
from .search import tune

__all__ = ["tune", "TuneResult", "Store", "look_up"]


def __getattr__(name: str):
    if name == "TuneResult":
        from .result import TuneResult

        return TuneResult
    if name == "Store":
        from .records import Store

        return Store
    if name == "look_up":
        from .lookup import look_up

        return look_up
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


callable_room(__name__)
