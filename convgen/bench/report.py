"""Results of races: rows as JSON lines, the printed tables, fast_p and geometric means."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ..errors import ArgumentError
from . import efficiency
from .roofline import Roofline

P = (0.5, 1.0, 1.5, 2.0, 3.0)
FAILED_RATIO = 0.5  # what a workload counts that convgen could not compute: leaving it out would flatter


@dataclass(frozen=True)
class Race:
    """The rows of one workload under one set of conditions."""

    rows: tuple

    @property
    def workload(self) -> str:
        return self.rows[0]["workload"]

    @property
    def ours(self) -> dict | None:
        """convgen's row, also if it failed."""
        return next((r for r in self.rows if r["ours"]), None)

    @property
    def peers(self) -> list[dict]:
        """The others' correct rows that count, fastest first."""
        return sorted((r for r in self.rows if r["ok"] and r["counts"] and not r["ours"]), key=lambda r: r["median_us"])

    @property
    def best(self) -> dict | None:
        return self.peers[0] if self.peers else None

    @property
    def ratio(self) -> float | None:
        """Time of the best peer over ours; FAILED_RATIO where ours failed, None where there is no peer."""
        return self.over(self.best)

    def over(self, peer: dict | None) -> float | None:
        """Time of a peer's row over ours."""
        if self.ours is None or peer is None:
            return None
        return peer["median_us"] / self.ours["median_us"] if self.ours["ok"] else FAILED_RATIO

    @property
    def torch(self) -> dict | None:
        """The fastest PyTorch row."""
        return next((r for r in self.peers if r["contestant"].startswith("torch")), None)

    @property
    def fraction(self) -> float | None:
        """Roofline time over ours; above 1 where an algorithm saves arithmetic."""
        ours = self.ours
        return ours["roofline_us"] / ours["median_us"] if ours and ours["ok"] and ours.get("roofline_us") else None


@dataclass
class Result:
    """All rows of a bench. `str()` is the table, `races` groups the rows by workload."""

    rows: list = field(default_factory=list)
    interrupted: bool = False

    @property
    def races(self) -> list[Race]:
        groups: dict = {}
        for row in self.rows:
            groups.setdefault((row["workload"], row.get("layer"), row["threads"], row["cold"], row.get("suite"), row["date"]), []).append(row)
        return [Race(tuple(rows)) for rows in groups.values()]

    @property
    def ratios(self) -> list[float]:
        return [race.ratio for race in self.races if race.ratio is not None]

    @property
    def geometric_mean(self) -> float | None:
        """Of the ratios to the best peer, one per workload."""
        return mean(self.ratios)

    def fast_p(self) -> dict[float, float]:
        """p → share of workloads that are correct and more than p times as fast as the best peer."""
        races = [r for r in self.races if r.ratio is not None]
        fast = lambda p: sum(r.ours["ok"] and r.ratio > p for r in races) / len(races)
        return {p: fast(p) for p in P} if races else {}

    @cached_property
    def _machine(self) -> dict:
        return self.rows[0] if self.rows else {}

    def network(self) -> dict | None:
        """Seconds of all layers, counted as often as the network uses them: ideal, waterline, ours, the best peer of each layer. None without a roofline."""
        races = [r for r in self.races if r.ours and r.ours["ok"] and r.best and r.ours.get("roofline")]
        if not races:
            return None
        counts = [r.ours.get("count") or 1 for r in races]
        roof = Roofline.from_json(races[0].ours["roofline"])
        flops = [r.ours["flops"] * n for r, n in zip(races, counts)]
        return {"layers": sum(counts), "ideal": efficiency.ideal(flops, roof.gflops * 1e9), "waterline": sum(r.ours["roofline_us"] * n for r, n in zip(races, counts)) * 1e-6,
                "convgen": sum(r.ours["median_us"] * n for r, n in zip(races, counts)) * 1e-6, "best peers": sum(r.best["median_us"] * n for r, n in zip(races, counts)) * 1e-6}

    def summary(self) -> dict:
        """The figures of the whole bench."""
        return {"workloads": len(self.races), "geometric_mean": self.geometric_mean, "geometric_mean_torch": mean([v for r in self.races if (v := r.over(r.torch)) is not None]),
                "below_1": sum(v < 1 for v in self.ratios) / len(self.ratios) if self.ratios else None, "fast_p": {str(p): share for p, share in self.fast_p().items()},
                "network": self.network(), "failed": sum(not r["ok"] for r in self.rows if r["ours"]), "busy": sum(bool(race.rows[0].get("busy")) for race in self.races),
                "interrupted": self.interrupted}

    def to_json(self) -> dict:
        return {"rows": self.rows, "summary": self.summary()}

    def details(self) -> str:
        """Every contestant of every workload."""
        from ..cli.output import table
        lines = []
        for race in self.races:
            lines.append(race.workload + (f"  ({race.rows[0]['layer']})" if race.rows[0].get("layer") else ""))
            ok = sorted((r for r in race.rows if r["ok"]), key=lambda r: r["median_us"])
            body = [["  " + r["contestant"] + ("" if r["counts"] else " (shown only)"), us(r["median_us"]), f"± {us(r['spread_us'])}", f"{r['error']:.1e}"] for r in ok]
            body += [["  " + r["contestant"], "–", "", f"{r['kind']}: {r['reason']}"] for r in race.rows if not r["ok"]]
            lines.append(table(body, ["  contestant", "µs", "spread", "error or reason"]))
        return "\n".join(lines)

    def __str__(self) -> str:
        from ..cli.output import table
        if not self.rows:
            return "nothing was measured"
        first = self._machine
        head = f"{first['cpu']}, {threads(first)}, {'cold' if first['cold'] else 'warm'} caches, {first['date']}"
        if first.get("roofline"):
            copy = first["roofline"]["copy_gbs"]
            head += f"; peak {first['roofline']['gflops']:.0f} GFLOP/s, copy {copy[0][1]:.0f} GB/s in cache, {copy[-1][1]:.0f} from memory"
        body = [[("* " if race.rows[0].get("busy") else "") + race.workload, *_ours(race), *(_peer(race.best)), times(race.ratio), times(race.over(race.torch)),
                 "n/a" if race.fraction is None else f"{race.fraction:.0%}"] for race in self.races]
        lines = [head, table(body, ["workload", "convgen µs", "spread", "record", "best peer", "µs", "ratio", "to torch", "roofline"])]
        failures = self._failures()
        return "\n".join([*lines, *failures, *self._closing()])

    def _failures(self) -> list[str]:
        """Contestants without a time, one line per contestant and reason."""
        missing: dict = {}
        for row in self.rows:
            if not row["ok"]:
                missing.setdefault((row["contestant"], row["kind"], row["reason"]), []).append(row["workload"])
        return [f"not timed: {name} ({kind}: {reason}): " + (ids[0] if len(ids) == 1 else f"{len(ids)} workloads") for (name, kind, reason), ids in missing.items()]

    def _closing(self) -> list[str]:
        s, lines = self.summary(), []
        if s["geometric_mean"] is not None:
            lines.append(f"geometric mean {s['geometric_mean']:.2f} of {len(self.ratios)} workloads against the best peer"
                         + (f", {s['geometric_mean_torch']:.2f} against PyTorch" if s["geometric_mean_torch"] else "")
                         + "; share faster than p: " + ", ".join(f"{p:g}x {share:.0%}" for p, share in self.fast_p().items()))
        net = s["network"]
        if net and net["layers"] > 1:
            lines.append(f"{net['layers']} layers one after another, ms: ideal {net['ideal'] * 1e3:.3g}, waterline {net['waterline'] * 1e3:.3g}, convgen {net['convgen'] * 1e3:.3g}, "
                         f"the best peer of each {net['best peers'] * 1e3:.3g}; efficiency {net['ideal'] / net['convgen']:.0%} of at most {net['ideal'] / net['waterline']:.0%}")
        if s["busy"]:
            lines.append(f"* something else ran on this machine during {s['busy']} workloads: measure them again")
        return lines + (["interrupted"] if self.interrupted else [])


def _ours(race: Race) -> tuple:
    ours = race.ours
    if ours is None or not ours["ok"]:
        return "failed" if ours else "–", "", ""
    return us(ours["median_us"]), us(ours["spread_us"]), (ours.get("facts") or {}).get("origin", "")


def _peer(row: dict | None) -> tuple:
    return ("none", "") if row is None else (row["contestant"], us(row["median_us"]))


def us(value: float) -> str:
    """Microseconds with three digits that mean something."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def times(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.2f}"


def threads(row: dict) -> str:
    """How many threads, in words."""
    n = row.get("threads")
    return "1 thread" if n == 1 else f"{n} threads"


def mean(values) -> float | None:
    """Geometric mean, None of nothing."""
    return math.exp(sum(map(math.log, values)) / len(values)) if values else None


def append(path: str | os.PathLike, rows: list[dict]) -> None:
    """Add rows to a file of JSON lines."""
    with open(path, "a", encoding="utf-8") as file:
        file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read(path: str | os.PathLike) -> Result:
    """The Result of a file of JSON lines. Raises ArgumentError naming a line that is none."""
    rows = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        if line.strip():
            try:
                row = json.loads(line)
                row["workload"], row["contestant"], row["ours"], row["ok"]
            except (ValueError, KeyError, TypeError):
                raise ArgumentError(f"{path}, line {number}: it is no row of a bench") from None
            rows.append(row)
    return Result(rows)
