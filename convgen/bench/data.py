"""Files of races: rows as JSON lines, with what they share written once.

A line that holds "run" alone states the conditions of a run under an id; every other line is one workload's race: the id of its run, the workload, what is equal
for most of its contestants, and under "rows" what is each one's own. Reading gives back the very rows that were appended.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from pathlib import Path
from typing import Iterable

from ..errors import ArgumentError
from ..files import replaced

FORMAT = 3
_RUN = ("format", "date", "threads", "cold", "seed", "target", "cpu", "driver", "cuda", "kernel", "python", "versions", "allocator", "roofline")
_OWN = ("contestant",)  # never shared, so that every line can be read by itself
_NEEDED = ("workload", "contestant", "ours", "ok")


def append(path: str | os.PathLike, rows: Iterable[dict]) -> None:
    """Add rows to a file, in one write; those of one workload and run that follow each other become one line."""
    path, races = Path(path), []
    for row in rows:
        run = {name: row[name] for name in _RUN if name in row}
        rest = {name: value for name, value in row.items() if name not in run and name != "workload"}
        if not races or races[-1][:2] != (run, row["workload"]):
            races.append((run, row["workload"], []))
        races[-1][2].append(rest)
    known, lines = _runs(path) if path.exists() else {}, []
    for run, workload, own in races:
        name = hashlib.sha256(_text(run, sort_keys=True).encode()).hexdigest()[:8]
        if name not in known:
            known[name] = run
            lines.append({"run": name, **run})
        shared = _shared(own)
        lines.append({"run": name, "workload": workload, **shared, "rows": [{k: v for k, v in row.items() if k not in shared or _text(v) != _text(shared[k])} for row in own]})
    with open(path, "a", encoding="utf-8") as file:
        file.write("".join(_text(line) + "\n" for line in lines))


def read(path: str | os.PathLike) -> list[dict]:
    """All rows of a file. Raises ArgumentError naming a line that is none of such a file."""
    return _rows(path, Path(path).read_text(encoding="utf-8").splitlines())


def keep_whole(path: str | os.PathLike) -> list[dict]:
    """As `read`, after a last line that an interruption cut off was removed from the file: it is one race, which is to be raced again."""
    text = Path(path).read_text(encoding="utf-8")
    if text and not text.endswith("\n"):
        whole = text[:text.rfind("\n") + 1]
        _rows(path, whole.splitlines())  # another file is left as it is
        with replaced(path) as file:
            file.write(whole.encode())
    return read(path)


def _shared(rows: list[dict]) -> dict:
    """What all of several rows state and most of them alike."""
    found = {}
    for name in rows[0] if len(rows) > 1 else ():
        if name not in _OWN and all(name in row for row in rows):
            (text, count), = Counter(_text(row[name]) for row in rows).most_common(1)
            if 2 * count > len(rows):
                found[name] = json.loads(text)
    return found


def _text(value, **options) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), **options)


def _runs(path: Path) -> dict:
    """Ids of the runs that a file states."""
    lines = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.startswith('{"run":') and '"workload":' not in line[:40])
    return {line["run"]: line for line in lines}


def _rows(path, lines: list[str]) -> list[dict]:
    runs, found = {}, []
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
            name = line.pop("run")
            if "workload" not in line:
                runs[name] = line
                continue
            own = line.pop("rows")
            new = [{**runs[name], **line, **row} for row in own]
            for row in new:
                [row[key] for key in _NEEDED]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ArgumentError(f"{path}, line {number}: it is no line of a bench") from None
        found += new
    return found
