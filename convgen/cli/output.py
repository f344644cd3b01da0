"""Printing: tables, JSON, and what `--quiet` leaves out."""

from __future__ import annotations

import argparse
import json
from typing import Any, Iterable, Sequence


def common(parser: argparse.ArgumentParser, run) -> argparse.ArgumentParser:
    """Add the options every verb has, and say which function runs it."""
    parser.add_argument("--json", action="store_true", help="print one JSON value and nothing else")
    parser.add_argument("--quiet", action="store_true", help="print results and errors only")
    parser.set_defaults(run=run)
    return parser


def show(options: argparse.Namespace, data: Any, text: str | None = None) -> None:
    """Print `data` as JSON where asked for, else `text`."""
    if options.json:
        print(json.dumps(data, indent=1))
    elif text:
        print(text)


def note(options: argparse.Namespace, text: str) -> None:
    """Print a remark that is no result."""
    if not (options.quiet or options.json):
        print(text, flush=True)


def table(rows: Iterable[Sequence[Any]], head: Sequence[str] = ()) -> str:
    """Rows in aligned columns, numbers to the right."""
    text = [[str(cell) for cell in row] for row in ([head] if head else [])]
    body = [["" if cell is None else str(cell) for cell in row] for row in rows]
    lines = text + body
    if not lines:
        return ""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    right = [bool(body) and all(_number(line[i]) for line in body) for i in range(len(lines[0]))]
    return "\n".join("  ".join(cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(line, widths, right)).rstrip() for line in lines)


def _number(cell: str) -> bool:
    return not cell or cell.replace(".", "", 1).replace("x", "", 1).replace(",", "").lstrip("-").isdigit()


def quantity(value: float, unit: str) -> str:
    """1234567 → '1.23 M<unit>'."""
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value:g} {unit}"
