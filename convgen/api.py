"""The public functions of the package `convgen`. Rooms are imported when a function needs them."""

from __future__ import annotations

import os
from typing import Any, Iterable, Mapping, Sequence

from .errors import ArgumentError


def operators() -> list[str]:
    """Names of the catalogue's operators and of those that installed packages offer (entry points `convgen.operators`)."""
    from . import references
    return references.names()


def operator(reference: str):
    """The Operator of a name, of `pkg.mod:op` or of `path/my_ops.py:op`.

    Calling it with dimensions, attributes and flags by keyword gives a Workload; it has `.summary`, `.formula`, `.citation`,
    `.dims`, `.attributes` and `.workloads()`. Raises ArgumentError for a name nobody knows, with the nearest ones.
    """
    from . import references
    return references.find(reference)


def workload(id: str, operators: Iterable = ()):
    """The Workload that an id names, for example `conv2d:n1,c64,o64,h56,w56,k3x3;padding=1:f32.f32.f32:nchw`.

    `operators`: Operators outside the catalogue that the id may mention by name. Raises ArgumentError naming the id and what is
    wrong with it.
    """
    from . import references
    from .lang import Operator, parse
    if not isinstance(id, str):
        raise ArgumentError(f"expected a workload id, got {type(id).__name__}")
    name = id.strip().partition(":")[0].partition("@")[0]
    own = {op.name: op for op in operators if isinstance(op, Operator)}
    return parse(id, own.get(name) or references.find(name))


def load(path: str | os.PathLike, **options: Any):
    """Open a library for serving; the same as `convgen.runtime.load`, which states the options. Needs no compiler."""
    from .runtime import load
    return load(path, **options)
