"""Workloads on the command line: `OP DIM=VALUE ...`, ids, and files of ids."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Iterable

from ..errors import ArgumentError

HELP = """\
WORKLOADS are ids, or one operator with its dimensions and attributes:
  conv2d N=1 C=64 O=64 H=56 W=56 k=3 padding=1 bias=true layout=NHWC dtype=bfloat16
  depthwise_conv2d:n1,c96,h56,w56,k7x7;padding=3:f32.f32.f32:nchw
An operator is a name, `pkg.mod:op` or `path/my_ops.py:op`; alone it stands for its published shapes. N=8+ means any batch,
tuned at 8; several numbers are written 3x3, paddings before and after 0_1x0_1."""


@dataclass(frozen=True)
class Case:
    """One workload with the layer name (or None), the number of times that a network uses it, and the suite it stands in (or None)."""

    workload: Any
    name: str | None = None
    count: int = 1
    suite: str | None = None


def add(parser: argparse.ArgumentParser, required: bool = True, suites: bool = False) -> None:
    """The arguments that name workloads; suites: those of published networks, too."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = HELP
    parser.add_argument("words", nargs="*", metavar="WORKLOADS", help="ids, or OP DIM=VALUE ...")
    parser.add_argument("-f", "--file", action="append", default=[], help="file of workload ids, one per line; may be repeated")
    parser.add_argument("--operator", action="append", default=[], metavar="REF",
                        help="an own operator that ids mention, as pkg.mod:op or path/my_ops.py:op; may be repeated")
    if suites:
        parser.add_argument("--suite", action="append", default=[], metavar="NAME",
                            help="layers of a published network, or `all` of those in float32; `convgen bench --suite list` names them; may be repeated")
    parser.set_defaults(workloads_required=required)


def cases(options: argparse.Namespace) -> list[Case]:
    """Every workload that the arguments name, in order. Raises ArgumentError."""
    from .. import references
    own = {op.name: op for op in map(references.find, options.operator)}
    found = layers(getattr(options, "suite", ())) + [case for path in options.file for case in read(path, own)]
    words = list(options.words)
    while words:
        word = words.pop(0)
        if is_id(word):
            found.append(Case(parse(word, own)))
            continue
        if "=" in word:
            raise ArgumentError(f"{word!r} stands before any operator: write OP DIM=VALUE ...")
        settings = []
        while words and "=" in words[0] and not is_id(words[0]):
            settings.append(words.pop(0))
        op = own.get(word) or references.find(word)
        found += [Case(workload(op, settings))] if settings else [Case(w) for w in _published(op)]
    if not found and options.workloads_required:
        raise ArgumentError("no workload given: write OP DIM=VALUE ..., an id, or -f FILE")
    return found


def layers(names: Iterable[str]) -> list[Case]:
    """The layers of suites in order, each with the suite it stands in. Raises ArgumentError for a name that none has."""
    from ..bench import suites
    found = []
    for name in names:
        every = [replace(case, suite=own) for own in (suites.names() if name == suites.ALL else [name]) for case in read(suites.path(own))]
        found += [case for case in every if name != suites.ALL or all(t.dtype == "float32" for t in case.workload.program.tensors)]
    return found


def is_id(word: str) -> bool:
    """Whether a word is a workload id rather than an operator's name or reference."""
    return word.count(":") >= 3


def parse(text: str, own: dict):
    """The workload of an id; `own` holds operators outside the catalogue by name."""
    from .. import api
    return api.workload(text, own.values())


def read(path: str | Path, own: dict | None = None) -> list[Case]:
    """Workloads of a file of ids; a comment `# layer1.conv x3` behind an id is its layer name and count."""
    lines = Path(path).read_text().splitlines()
    found = []
    for number, line in enumerate(lines, 1):
        text, _, comment = line.partition("#")
        if text.strip():
            match = re.fullmatch(r"\s*(.*?)\s*(?:\bx(\d+))?\s*", comment)
            try:
                found.append(Case(parse(text.strip(), own or {}), match[1] or None, int(match[2] or 1)))
            except ArgumentError as error:
                raise ArgumentError(f"{path}, line {number}: {error}") from None
    return found


def workload(op, settings: Iterable[str]):
    """The workload of an operator and words like C=64, k=3x3, padding=1, bias=true."""
    values: dict[str, Any] = {}
    for setting in settings:
        name, _, text = setting.partition("=")
        name = {"k": "kernel"}.get(name, name) if name not in op.dims else name
        if name in values:
            raise ArgumentError(f"{op.name}: {name} is given twice")
        if name in op.dims and text.endswith("+"):
            values[name], values["any_batch"] = _value(op, name, text[:-1]), True
        else:
            values[name] = _value(op, name, text)
    return op(**values)


def _value(op, name: str, text: str):
    from ..lang.ids import attribute_from_text
    from ..lang.workload import flag_names
    spec = op.attributes.get(name)
    try:
        if name in op.dims:
            return int(text)
        if name == "kernel":
            numbers = [int(part) for part in re.split("[x,]", text)]
            return numbers[0] if len(numbers) == 1 else tuple(numbers)
        if spec is not None:
            return attribute_from_text(spec, text.replace(",", "x") if spec["type"] in ("ints", "pads") else text)
        if name in flag_names(op):
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
    except (ValueError, KeyError):
        kind = "true or false" if spec is None and name not in op.dims and name != "kernel" else "a number" if name in op.dims else "numbers like 3 or 3x3"
        if spec is not None and spec["type"] in ("float", "bool", "int"):
            kind = {"float": "a number", "bool": "true or false", "int": "an integer"}[spec["type"]]
        raise ArgumentError(f"{op.name}: {name} must be {kind}, got {text!r}") from None
    return text


def _published(op) -> list:
    shapes = op.workloads()
    if not shapes:
        raise ArgumentError(f"{op.name}: no published shapes are known, give its dimensions: {', '.join(f'{d}=...' for d in op.dims)}")
    return shapes
