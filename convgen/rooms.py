"""Packages that are public functions too: `convgen.tune(w)` tunes, and `convgen.tune.records` is a module of the room."""

from __future__ import annotations

import importlib
import inspect
import sys
import types


def callable_room(package: str) -> None:
    """Let the package be called as the function of the same last name in `convgen.api`.

    Without this, importing any module of the room would replace the public function by the room.
    """
    function = package.rpartition(".")[2]

    class Room(types.ModuleType):
        def __call__(self, *args, **kwargs):
            return getattr(importlib.import_module("convgen.api"), function)(*args, **kwargs)

        @property
        def __signature__(self):
            return inspect.signature(getattr(importlib.import_module("convgen.api"), function))

    sys.modules[package].__class__ = Room
