"""Results of races: rows, and the figures that follow from them. Text and pictures are made of these in `tables` and `plot`."""

from __future__ import annotations

import math
import os
import statistics
from dataclasses import dataclass, field

from . import data, memory
from .contestants import PRODUCTS
from .groups import GROUPS, OTHER
from .roofline import Roofline

APART = "apart"  # how layers are called that stand for a group outside the networks' suites
REMOVED, NEAR = 0.7, 0.15  # what fused blocks are to remove; how near workloads apart are to be to their group's median
P = (0.5, 1.0, 1.5, 2.0, 3.0)
FAILED_RATIO = 0.5  # what a workload counts that convgen could not compute, or that was left out: leaving it out of the mean would flatter


@dataclass(frozen=True)
class Race:
    """The rows of one workload under one set of conditions."""

    rows: tuple

    @property
    def workload(self) -> str:
        return self.rows[0]["workload"]

    @property
    def group(self) -> str:
        """One of groups.GROUPS."""
        return self.rows[0].get("group") or OTHER

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
    def products(self) -> dict | None:
        """The fastest row of the block's plain products alone, None where it has none."""
        return min((r for r in self.rows if r["ok"] and r["contestant"].startswith(PRODUCTS)), key=lambda r: r["median_us"], default=None)

    @property
    def removed(self) -> float | None:
        """Of a fused block: the share of the best peer's time outside the plain products that convgen removes, (t_peer - t_convgen) / (t_peer - t_products).

        A block without products counts all of its time. None for other workloads, where ours failed, where there is no peer or no time of the products, and where
        the products alone took the peer's time.
        """
        known = self.rows[0].get("products")  # how many there are
        if known is None or (known and not self.products) or not self.best or not self.ours or not self.ours["ok"]:
            return None
        outside = self.best["median_us"] - (self.products["median_us"] if known else 0.0)
        return (self.best["median_us"] - self.ours["median_us"]) / outside if outside > 0 else None

    @property
    def apart(self) -> bool:
        """Whether it stands for its group outside the networks: its layer is named so."""
        return (self.rows[0].get("layer") or "").startswith(APART)

    @property
    def fraction(self) -> float | None:
        """Roofline time over ours; above 1 where an algorithm saves arithmetic."""
        ours = self.ours
        return ours["roofline_us"] / ours["median_us"] if ours and ours["ok"] and ours.get("roofline_us") else None

    @property
    def memory(self) -> dict | None:
        """What a call of ours holds (peers/convgen.py), None where it is not known."""
        return self.ours.get("memory") if self.ours and self.ours["ok"] else None


@dataclass(frozen=True)
class Group:
    """The figures of the workloads of one kind. ratios: (ratio to the best peer, workload) of each, failed and left-out ones with FAILED_RATIO."""

    name: str
    rows: int
    ratios: tuple
    failed: int
    left_out: int

    @property
    def mean(self) -> float | None:
        """Geometric mean of the ratios."""
        return mean([ratio for ratio, _ in self.ratios])

    @property
    def worst(self) -> tuple[float, str] | None:
        """(ratio, workload) of the worst row."""
        return min(self.ratios, default=None)

    @property
    def below_1(self) -> float | None:
        """Share of rows where the best peer was faster."""
        return share([ratio < 1 for ratio, _ in self.ratios])

    def to_json(self) -> dict:
        ratio, workload = self.worst or (None, None)
        return {"rows": self.rows, "geometric_mean": self.mean, "worst": ratio, "worst_workload": workload, "below_1": self.below_1, "failed": self.failed,
                "left_out": self.left_out, "without_peer": self.rows - len(self.ratios)}


@dataclass(frozen=True)
class Outside:
    """How workloads of a group that stand outside the networks compare with the group's others: ratios to the best peer of both."""

    group: str
    apart: tuple
    others: tuple

    @property
    def distance(self) -> float:
        """Of the medians: 0.1 where the workloads outside do 10 % better."""
        return statistics.median(self.apart) / statistics.median(self.others) - 1

    def to_json(self) -> dict:
        return {"group": self.group, "rows": len(self.apart), "median": statistics.median(self.apart), "geometric_mean": mean(self.apart),
                "median_of_others": statistics.median(self.others), "geometric_mean_of_others": mean(self.others), "distance": self.distance}


@dataclass
class Result:
    """All rows of a bench. `str()` is the table, `races` the rows by workload. plan: what was to be raced (Entry.plan of each); what has no rows is left out."""

    rows: list = field(default_factory=list)
    interrupted: bool = False
    plan: list = field(default_factory=list)

    @property
    def races(self) -> list[Race]:
        found: dict = {}
        for row in self.rows:
            found.setdefault((row["workload"], row.get("layer"), row["threads"], row["cold"], row["date"]), []).append(row)
        return [Race(tuple(rows)) for rows in found.values()]

    @property
    def left_out(self) -> list[dict]:
        """Planned workloads that were not raced."""
        raced = {row["workload"] for row in self.rows}
        return [entry for entry in self.plan if entry["workload"] not in raced]

    @property
    def ratios(self) -> list[float]:
        """One per workload that has a peer; failed and left-out ones count FAILED_RATIO."""
        return [race.ratio for race in self.races if race.ratio is not None] + [FAILED_RATIO] * len(self.left_out)

    @property
    def geometric_mean(self) -> float | None:
        """Of the ratios to the best peer, one per workload."""
        return mean(self.ratios)

    def fast_p(self) -> dict[float, float]:
        """p → share of workloads that are correct and more than p times as fast as the best peer."""
        correct = [r.ratio for r in self.races if r.ratio is not None and r.ours["ok"]]
        return {p: sum(ratio > p for ratio in correct) / len(self.ratios) for p in P} if self.ratios else {}

    def groups(self) -> list[Group]:
        """The figures of each kind of workload, in the order of GROUPS."""
        races, left_out = self.races, self.left_out
        found = []
        for name in GROUPS:
            here = [race for race in races if race.group == name]
            missing = [entry["workload"] for entry in left_out if entry["group"] == name]
            if here or missing:
                ratios = [(r.ratio, r.workload) for r in here if r.ratio is not None] + [(FAILED_RATIO, w) for w in missing]
                failed = sum(bool(r.ours) and not r.ours["ok"] for r in here)
                found.append(Group(name, len(here) + len(missing), tuple(ratios), failed, len(missing)))
        return found

    def networks(self) -> dict[str, dict]:
        """Suite → seconds of its layers one after another, counted as often as the network uses them: ideal, waterline, ours, the best peer of each layer.

        Ideal: their arithmetic at the machine's peak; waterline: each layer by itself as fast as its roofline lets it be (Lavin, arXiv:2404.03617; the definitions are ours).
        "missing" counts layers that are in none of these sums because they failed, have no peer or were left out. Without suites there is one network, "all".
        """
        races, names = self.races, {}
        for uses in [race.rows[0] for race in races] + self.left_out:
            names |= uses.get("suites") or {}
        found = {name: self._network([(r, r.rows[0]["suites"][name]) for r in races if name in (r.rows[0].get("suites") or {})],
                                     sum(e["suites"].get(name, 0) for e in self.left_out)) for name in names}
        if not names:
            found = {"all": self._network([(r, r.rows[0].get("count") or 1) for r in races], sum(e["count"] for e in self.left_out))}
        return {name: sums for name, sums in found.items() if sums}

    @staticmethod
    def _network(layers: list[tuple[Race, int]], left_out: int) -> dict | None:
        timed = [(r, n) for r, n in layers if r.ours and r.ours["ok"] and r.best and r.ours.get("roofline")]
        if not timed:
            return None
        roof = Roofline.from_json(timed[0][0].ours["roofline"])
        total = lambda us: sum(us(r) * n for r, n in timed) * 1e-6
        count = sum(n for _, n in timed)
        return {"layers": count, "missing": sum(n for _, n in layers) + left_out - count, "ideal": sum(r.ours["flops"] * n / r.ours.get("rate", 1) for r, n in timed) / (roof.gflops * 1e9),
                "waterline": total(lambda r: r.ours["roofline_us"]), "convgen": total(lambda r: r.ours["median_us"]), "best peers": total(lambda r: r.best["median_us"])}

    def fused(self) -> list[tuple[str, float]]:
        """(workload, Race.removed) of every fused block that has the figure, least first."""
        return sorted(((r.workload, r.removed) for r in self.races if r.removed is not None), key=lambda pair: pair[1])

    def apart(self) -> list[tuple[str, str, float, float]]:
        """(group, workload, its ratio, median ratio of the group's other workloads) of each workload that stands outside the networks."""
        found = []
        for race in self.races:
            others = [r.ratio for r in self.races if r.group == race.group and not r.apart and r.ratio is not None]
            if race.apart and race.ratio is not None and others:
                found.append((race.group, race.workload, race.ratio, statistics.median(others)))
        return found

    def outside(self) -> list[Outside]:
        """Each group that has workloads outside the networks and others."""
        found = []
        for name in GROUPS:
            both = [tuple(r.ratio for r in self.races if r.group == name and r.apart == apart and r.ratio is not None) for apart in (True, False)]
            found += [Outside(name, *both)] if all(both) else []
        return found

    def greedy(self) -> list[tuple[str, list[str]]]:
        """(workload, what exceeds its bar) where a call or its prepared parameters take more memory than they may."""
        return [(race.workload, found) for race in self.races if race.memory and (found := memory.excess(race.memory))]

    def summary(self) -> dict:
        """The figures of the whole bench."""
        return {"workloads": len(self.races) + len(self.left_out), "geometric_mean": self.geometric_mean,
                "geometric_mean_torch": mean([v for r in self.races if (v := r.over(r.torch)) is not None]), "below_1": share([v < 1 for v in self.ratios]),
                "fast_p": {str(p): part for p, part in self.fast_p().items()}, "groups": {g.name: g.to_json() for g in self.groups()}, "networks": self.networks(),
                "fused": [{"workload": w, "removed": part} for w, part in self.fused()],
                "apart": [{"group": g, "workload": w, "ratio": ratio, "median": middle} for g, w, ratio, middle in self.apart()],
                "outside": [o.to_json() for o in self.outside()],
                "memory": [{"workload": w, "excess": found} for w, found in self.greedy()], "failed": sum(not r["ok"] for r in self.rows if r["ours"]),
                "left_out": len(self.left_out), "busy": sum(bool(race.rows[0].get("busy")) for race in self.races), "interrupted": self.interrupted}

    def to_json(self) -> dict:
        return {"rows": self.rows, "summary": self.summary()}

    def details(self) -> str:
        """Every contestant of every workload."""
        from .tables import details
        return details(self)

    def __str__(self) -> str:
        from .tables import overview
        return overview(self)


def mean(values) -> float | None:
    """Geometric mean, None of nothing."""
    return math.exp(sum(map(math.log, values)) / len(values)) if values else None


def share(flags) -> float | None:
    """The part that is true, None of nothing."""
    return sum(flags) / len(flags) if flags else None


def read(path: str | os.PathLike) -> Result:
    """The Result of a file. Raises ArgumentError naming a line that is none of such a file."""
    return Result(data.read(path))
