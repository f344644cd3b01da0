"""Searching: candidates are proposed, compiled, verified, timed and recorded.

`convgen.tune` is the public function as well as this room: calling the module calls `tune`.
"""

from __future__ import annotations

import sys
import types

from .search import tune

__all__ = ["tune", "TuneResult", "Store", "look_up"]


class _Callable(types.ModuleType):
    """Importing a submodule binds the name `convgen.tune` to this module; the function of that name must go on working."""

    def __call__(self, *arguments, **keywords):
        return tune(*arguments, **keywords)

    __call__.__doc__ = tune.__doc__


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


sys.modules[__name__].__class__ = _Callable
