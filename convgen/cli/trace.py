"""`convgen trace`: the workloads of a network, one id per line."""

from __future__ import annotations

import importlib
import os
import sys
from collections import Counter
from pathlib import Path

from ..errors import ArgumentError
from .output import common, note, show


def add(verbs) -> None:
    parser = common(verbs.add_parser("trace", help="list the workloads of a PyTorch network"), _trace)
    parser.add_argument("build", metavar="PKG.MOD:BUILD", help="a function without arguments that returns an nn.Module, or a module object")
    parser.add_argument("--input", action="append", required=True, metavar="1,3,224,224", help="shape of an example input; may be repeated")
    parser.add_argument("--layout", choices=("channels_first", "channels_last"), default="channels_first", help="memory format of the inputs")
    parser.add_argument("-o", "--output", help="write the ids to this file instead of standard output")


def _trace(options) -> None:
    import torch

    from ..torch import workloads
    shapes = [_shape(text) for text in options.input]
    model = _model(options.build)
    formats = {4: torch.channels_last, 5: torch.channels_last_3d} if options.layout == "channels_last" else {}
    inputs = [torch.zeros(shape).contiguous(memory_format=formats.get(len(shape), torch.contiguous_format)) for shape in shapes]
    try:
        found = workloads(model, *inputs)
    except Exception as error:  # the network's own code
        raise ArgumentError(f"the network does not take these inputs: {type(error).__name__}: {error}") from error
    counts, first = Counter(), {}
    for name, w in found.items():
        counts[w.id] += found.calls[name]
        first.setdefault(w.id, name)
    lines = [f"{identifier}  # {first[identifier] or type(model).__name__} x{count}" for identifier, count in counts.items()]
    lines += [f"# not covered: {name or type(model).__name__}: {reason}" for name, reason in found.skipped.items()]
    data = {"workloads": {name: w.id for name, w in found.items()}, "calls": found.calls, "skipped": found.skipped}
    if options.output:
        Path(options.output).write_text("\n".join(lines) + "\n")
        note(options, f"{len(counts)} workloads of {len(found)} layers in {options.output}, {len(found.skipped)} layers not covered")
    show(options, data, None if options.output else "\n".join(lines))


def _shape(text: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise ArgumentError(f"--input must be a shape like 1,3,224,224, got {text!r}")
    return shape


def _model(reference: str):
    import torch
    place, separator, name = reference.partition(":")
    if not separator:
        raise ArgumentError(f"the network must be given as pkg.mod:function, got {reference!r}")
    sys.path.insert(0, os.getcwd())  # as `python -m` does
    try:
        build = getattr(importlib.import_module(place), name)
        model = build if isinstance(build, torch.nn.Module) else build()
    except Exception as error:
        raise ArgumentError(f"cannot build the network {reference!r}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(os.getcwd())
    if not isinstance(model, torch.nn.Module):
        raise ArgumentError(f"{reference!r} gave {type(model).__name__}, expected a torch.nn.Module")
    return model
