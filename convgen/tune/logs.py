"""What `convgen logs merge | best | check | why | memory` do with record files."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Iterable

from ..errors import Error
from .lookup import Found, _winners, look_up
from .records import Store, append, choice_key, dumps, file_of, loads, read, rewrite


@dataclass
class Checked:
    """Outcome of `check`: good and bad lines per file. `problems` holds (file, line number, reason)."""

    files: int = 0
    records: int = 0
    problems: list[tuple[str, int, str]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """True when every line could be read."""
        return not self.problems

    def __str__(self) -> str:
        lines = [f"{path}:{number}: {reason}" for path, number, reason in self.problems]
        return "\n".join([*lines, f"{self.records} records in {self.files} files, {len(self.problems)} unusable lines"])


def log_files(paths: Iterable[str | os.PathLike]) -> list[Path]:
    """Files named by `paths`: log files themselves, or record folders."""
    found: list[Path] = []
    for path in map(Path, paths):
        found += sorted(path.rglob("*.jsonl")) if path.is_dir() else [path]
    return found


def check(logs: Iterable[str | os.PathLike] | None = None) -> Checked:
    """Read every line of the given folders or files (default: all that would be read) and report what is unusable."""
    result = Checked()
    for path in Store.open().files() if logs is None else log_files(logs):
        problems: list = []
        if not Path(path).exists():
            problems.append((0, "there is no such file"))
        result.records += len(read(path, problems))
        result.files += 1
        result.problems += [(str(path), number, reason) for number, reason in problems]
    return result


def best(logs: Iterable[str | os.PathLike] | None = None) -> list[dict]:
    """The winning record per workload and target over all given folders or files, sorted by both."""
    paths = Store.open().files() if logs is None else log_files(logs)
    winners = [w for path in paths for w in _winners([r for r in read(path) if r["kind"] == "ok" and r["verified"]])]
    chosen: dict[tuple, dict] = {}
    for record in winners:
        key = (record["workload"], record["description"], record["target"])
        held = chosen.get(key)
        rank = (not record.get("final"), -record["space"], record["median_us"])
        if held is None or rank < (not held.get("final"), -held["space"], held["median_us"]):
            chosen[key] = record
    return [chosen[key] for key in sorted(chosen)]


def merge(sources: Iterable[str | os.PathLike], into: str | os.PathLike, only_best: bool = False) -> int:
    """Append the records of folders or files to the folder `into`; those it holds already are left out. Returns how many.

    `only_best` takes the winner per workload and target, as for records that are shipped.
    """
    sources = list(sources)
    records = best(sources) if only_best else [r for path in log_files(sources) for r in read(path)]
    known: dict[Path, set] = {}
    added = 0
    for record in records:
        path = file_of(into, record["family"], record["operator"])
        if path not in known:
            known[path] = {_identity(r) for r in read(path)}
        if _identity(record) not in known[path]:
            append(path, record)
            known[path].add(_identity(record))
            added += 1
    return added


def restate(paths: Iterable[str | os.PathLike], service=None) -> list[dict]:
    """Write into the measured records of folders or files what a call holds in memory, and why, as this release counts it. Returns the records that changed.

    Nothing else of a record changes, but its checksum. Records for other processors than this one and the presets, or of choices that no longer are in their space, stay as they are.
    """
    from ..emit.service import shared_service
    service, changed = service or shared_service(), []
    for path in log_files(paths):
        found = {}
        for line in path.read_bytes().split(b"\n"):
            record = _readable(line)
            memory = record and _memory(record, service)
            if memory and memory != record.get("memory"):
                where = [k for k in record if k != "memory"]
                before = next((i for i, k in enumerate(where) if k.startswith("torch_")), len(where)) if "memory" not in record else list(record).index("memory")
                where.insert(before, "memory")
                record = {k: memory if k == "memory" else record[k] for k in where}
                found[line] = record
        if found:
            rewrite(path, {line: dumps(record).encode() for line, record in found.items()})
        changed += found.values()
    return changed


def _readable(line: bytes) -> dict | None:
    """The measured record of a line for a processor, or None."""
    try:
        record = loads(line.decode())
    except ValueError:
        return None
    return record if record["kind"] == "ok" and record["family"] != "cuda" else None


def _memory(record: dict, service) -> dict | None:
    """What the compiler counts for a record, None where it cannot say."""
    from ..lang import parse
    from ..schedules import space
    from .identity import description_hash
    try:
        description, machine = parse(record["workload"]).description, _machine(record["target"], record["family"], record.get("threads") or 1)
        if machine is None or description_hash(description) != record["description"] or record["space"] != space(description, machine).version:
            return None
        return service.call("memory", description=description, target=machine, choice=record["choice"])
    except Error:  # an operator that is not at hand, or a choice that is none any more
        return None


@cache
def _machine(fingerprint: str, family: str, threads: int) -> dict | None:
    """The target of that fingerprint: this machine or a preset, or None."""
    from ..targets import resolve
    from ..targets.presets import NAMES
    for name in NAMES:
        try:
            target = resolve(name)
        except Error:
            continue
        if target.family == family and target.with_threads(threads).to_json()["fingerprint"] == fingerprint:
            return target.with_threads(threads).to_json()
    return None


def _identity(record: dict) -> tuple:
    return (record["workload"], record["description"], record["target"], record["space"], choice_key(record["choice"]),
            record["kind"], record.get("median_us"), bool(record.get("final")))


def why(workload, target: str = "native", logs=None) -> Found:
    """Which record `compile` would use for a workload and why; `str(found.reason)` is the sentence to print."""
    from ..schedules import space
    from ..targets import resolve
    from .identity import description_hash

    machine = resolve(target).to_json()
    description = workload.description
    return look_up(Store.open(logs), description, description_hash(description), machine, space(description, machine))
