"""Operators by reference: a catalogue name, an installed package's entry point, `pkg.mod:op`, or `path/my_ops.py:op`."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from .errors import ArgumentError, Error

ENTRY_POINTS = "convgen.operators"


def names() -> list[str]:
    """Names of the catalogue and of the operators that installed packages offer."""
    from .ops import table
    return sorted({*table.names(), *_offered()})


def find(reference: str | Any):
    """The Operator that `reference` names; an Operator passes through.

    Raises ArgumentError for a name nobody knows (with the nearest ones), for a file or module without that operator, and for a
    name that two packages claim.
    """
    from .lang import Operator
    if isinstance(reference, Operator):
        return reference
    if not isinstance(reference, str):
        raise ArgumentError(f"expected an operator or its name, got {type(reference).__name__}")
    place, separator, attribute = reference.rpartition(":")
    if separator:
        return _attribute(_module(place, reference), attribute, reference)
    return _by_name(reference)


def _by_name(name: str):
    from .ops import table
    points = _offered().get(name, [])
    claims = (["convgen"] if name in table.names() else []) + [point.value for point in points]
    if len(claims) > 1:
        raise ArgumentError(f"operator {name!r} is offered twice, by {' and by '.join(claims)}: name one of them as module:operator")
    if points:
        return find(points[0].value)
    if claims:
        return table.get(name)
    near = difflib.get_close_matches(name, names(), n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "`convgen ops` lists them"
    raise ArgumentError(f"unknown operator {name!r}: {hint}")


def _offered() -> dict[str, list]:
    offered: dict[str, list] = {}
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        same = offered.setdefault(point.name, [])
        if point.value not in [p.value for p in same]:  # an editable install may be listed twice
            same.append(point)
    return offered


def _module(place: str, reference: str):
    if place.endswith(".py") or os.sep in place:
        return _file(Path(place).expanduser(), reference)
    try:
        return importlib.import_module(place)
    except Exception as error:
        raise ArgumentError(f"cannot import operator {reference!r}: {type(error).__name__}: {_line(error)}") from error


def _file(path: Path, reference: str):
    """Run a file as a module of its own, once per path; its folder is importable while it runs, as for a script."""
    if not path.is_file():
        raise ArgumentError(f"cannot read operator {reference!r}: there is no file {path}")
    path = path.resolve()
    name = f"convgen_operators_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        if isinstance(error, Error):
            raise
        raise ArgumentError(f"cannot import operator {reference!r}: {type(error).__name__}: {_line(error)}") from error
    finally:
        sys.path.remove(str(path.parent))
    return module


def _attribute(module, attribute: str, reference: str):
    from .lang import Operator
    value = getattr(module, attribute, None)
    if isinstance(value, Operator):
        return value
    found = sorted(name for name, member in vars(module).items() if isinstance(member, Operator))
    raise ArgumentError(f"{reference!r} is not an operator: the module has {', '.join(found) if found else 'none'}")


def _line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0]
