"""`convgen.wave.absorb`: take a device's results into the records, by the very steps that local measurements take."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from ..errors import WorkerError
from ..tune.builder import Built
from ..tune.context import Context, Environment
from ..tune.finals import settle
from ..tune.measure import Measurement
from ..tune.records import Store, choice_key
from ..tune.result import TuneResult
from ..tune.roofline import fastest_possible_us
from ..tune.task import Task
from . import bundle
from .bundle import WaveError
from .device import journal
from .identity import measured_on

FORMAT = 1


@dataclass
class Results:
    """A result file: the device, and the lines that count. `problems`: (line number, why it was left out)."""

    wave: str
    device: dict
    candidates: dict[str, dict]
    finals: dict[int, dict]
    peers: dict[int, dict]
    problems: list[tuple[int, str]]


@dataclass
class Absorbed:
    """What came in. `tuned` is the table of tuning; `new` counts records added, `known` those that were there before."""

    wave: str
    device: str
    tuned: TuneResult
    new: int
    known: int
    missing: int
    problems: list[tuple[int, str]]

    def to_json(self) -> dict:
        """Plain values."""
        return {**vars(self), "tuned": self.tuned.to_json()}

    def __str__(self) -> str:
        lines = [str(self.tuned), f"wave {self.wave} on {self.device}: {self.new} new results" + (f", {self.known} were known" if self.known else "")
                 + (f", {self.missing} candidates were not measured yet" if self.missing else "")]
        return "\n".join([*lines, *(f"line {number} was skipped: {reason}" for number, reason in self.problems)])


def absorb(result: str | os.PathLike, wave: str | os.PathLike | None = None, logs=None) -> Absorbed:
    """Add the results of a wave to the records and hand back a table. Results that are there already count once.

    result: the file that run.py wrote. wave: the bundle (default: the folder that the result lies in). logs: as for `convgen.tune`.
    Raises WaveError if the result is not of this wave.
    """
    result = Path(result)
    if not result.is_file():
        raise WaveError(f"{result} is no result file")
    identity, manifest = bundle.read(result.parent if wave is None else wave)
    results = read(result, identity, manifest)
    target = measured_on(manifest["target"], results.device)
    store = Store.open(logs)
    answers = _Answers(target, manifest, results)
    with closing(Environment(answers, answers)) as env:
        context = Context(env, target, store, origin={"wave": identity, "made_for": manifest["made_for"]})
        absorbing = [_Absorbing(context, manifest, results, number) for number in range(len(manifest["workloads"]))]
        rows = [part.go() for part in absorbing]
    tuned = TuneResult(rows, False, str(store.write_to) if store.write_to else None)
    return Absorbed(identity, target["fingerprint"], tuned, sum(p.new for p in absorbing), sum(p.known for p in absorbing),
                    len(manifest["candidates"]) - len(results.candidates), results.problems)


def read(path: str | os.PathLike, identity: str, manifest: dict) -> Results:
    """The usable lines of a result file. Raises WaveError if it is of another wave, or says nothing about its device."""
    entries, problems = journal.read(path)
    known = {c["id"]: c for c in manifest["candidates"]}
    found = Results(identity, {}, {}, {}, {}, list(problems))
    others = sorted({e["wave"] for e in entries if e.get("wave") != identity})
    if others:
        raise WaveError(f"{path} holds results of wave {others[0]} and the bundle is wave {identity}; name the bundle it was measured from")
    for number, entry in enumerate(entries, 1):
        kind = entry.get("kind")
        if entry.get("format") != FORMAT:
            found.problems.append((number, f"its format is {entry.get('format')!r}, this release reads {FORMAT}"))
        elif kind == "device":
            if found.device and found.device.get("card") != entry["device"].get("card"):
                raise WaveError(f"{path} holds results of two devices, {found.device['card']} and {entry['device']['card']}")
            found.device = found.device or entry["device"]
        elif kind == "candidate":
            candidate = known.get(entry["candidate"])
            if candidate is None or candidate["code"] != entry["code"]:
                found.problems.append((number, f"candidate {entry['candidate']} of code {entry['code']} is not in this wave"))
            elif entry["candidate"] not in found.candidates:
                found.candidates[entry["candidate"]] = entry
        elif kind == "final" and all(c in known and known[c]["workload"] == entry["workload"] for c in entry["candidates"]):
            found.finals.setdefault(entry["workload"], entry)
        elif kind == "torch":
            found.peers.setdefault(entry["workload"], entry)
    if not found.device:
        raise WaveError(f"{path} does not say which device it was measured on")
    return found


@dataclass
class _Described:
    """A workload as tasks need it, from the wave's manifest."""

    id: str
    description: dict
    flops: int
    bytes: int


class _Answers:
    """Builder and runner of tuning, answering from a wave: what was built there, and what was measured on the device.

    `path` of a Built is the candidate's id.
    """

    def __init__(self, target: dict, manifest: dict, results: Results):
        self.target, self.results = target, results
        self.work = {w["description"]["id"]: (w["flops"], w["bytes"]) for w in manifest["workloads"]}
        self.final: dict | None = None

    def build(self, description, choices, deadline=None, grace=0.0) -> list:
        """Nothing is built here: a candidate that is not of this wave does not race."""
        return [None] * len(choices)

    def measure(self, path, entry, description, best_us=None, longest=None, cold=False) -> Measurement:
        """The device's figures; WorkerError of the kind that its failure had."""
        line = self.results.candidates[path]
        if line["status"] != "ok":
            raise WorkerError(line["status"], line["message"])
        floor = fastest_possible_us(*self.work[description["id"]], self.target, entry["oracle"][0])
        if line["median_us"] < floor:
            raise WorkerError("wrong", f"{line['median_us']:.3g} µs is faster than the device can be ({floor:.3g} µs)")
        return Measurement(line["median_us"], line["spread_us"], line["min_us"], line["repeats"], line["ratio"], line["oracles"])

    def check(self, path, entry, description, best_us=None, longest=None) -> dict:
        """The device verified every candidate thoroughly."""
        line = self.results.candidates[path]
        return {"ok": True, "oracles": line["oracles"], "ratio": line["ratio"]}

    def race(self, candidates, description, best_us, rounds=16, budget=1.0) -> dict:
        """The rows of the device's race."""
        order = [self.final["candidates"].index(path) for path, _ in candidates]
        return {key: [self.final[key][i] for i in order] for key in ("median", "least")}

    def discard(self, built) -> None:
        """Nothing lies on disk."""

    def close(self) -> None:
        """Nothing is open."""


class _Absorbing:
    """One workload of a wave."""

    def __init__(self, context: Context, manifest: dict, results: Results, number: int):
        self.context, self.results, self.number = context, results, number
        self.stated = manifest["workloads"][number]
        self.mine = [c for c in manifest["candidates"] if c["workload"] == number]
        self.new = self.known = 0

    def go(self):
        """Record what is new, settle the race if there was one, and hand back the table's row."""
        stated, answers = self.stated, self.context.environment.runner
        workload = _Described(stated["description"]["id"], stated["description"], stated["flops"], stated["bytes"])
        task = Task(workload, stated["count"], self.context)
        task.torch = _fastest(self.results.peers.get(self.number))
        recorded = set(task.proposer.tried) - {choice_key(c) for c in task.seeds}
        for failure in stated["failed"]:
            self._take(task, recorded, failure["choice"], WorkerError(failure["kind"], failure["message"]), {})
        for candidate in self.mine:
            line = self.results.candidates.get(candidate["id"])
            for choice in candidate["choices"] if line else ():
                self._take(task, recorded, choice, Built(candidate["id"], {"oracle": candidate["oracle"]}, candidate["digest"]), line)
        final = self.results.finals.get(self.number)
        if final is None or not task.trials:
            return task.summary()
        settled = self._settled(task)
        if settled is not None:
            winner = task.trials.get(choice_key(settled["choice"]))
            if winner is not None:
                winner.median_us, winner.spread_us, winner.least_us = settled["median_us"], settled["spread_us"], settled["min_us"]
            return task.summary(winner, settled.get("default_ratio"), settled)
        answers.final = final
        for trial in task.trials.values():  # only those that raced on the device race here
            if trial.built is not None and trial.built.path not in final["candidates"]:
                trial.built = None
        self._dated(final)
        return settle(task, 0.0)

    def _take(self, task: Task, recorded: set, choice: dict, outcome, line: dict) -> None:
        """One candidate: measured for the first time, or again because it races in every wave."""
        key = choice_key(choice)
        if key not in recorded:
            self.new += 1
            self._dated(line)
            task.proposer.mark(choice)
            task.attempt(choice, outcome)
            return
        self.known += 1
        trial = task.trials.get(key)
        if trial is not None and line.get("status") == "ok":
            trial.built, trial.digest = outcome, outcome.digest
            trial.median_us, trial.spread_us, trial.least_us = line["median_us"], line["spread_us"], line["min_us"]

    def _dated(self, line: dict) -> None:
        """Records say when the device measured, not when its file came in."""
        if "date" in line:
            self.context.origin["date"] = line["date"]

    def _settled(self, task: Task) -> dict | None:
        """The record of this wave's race if it came in before."""
        groups = self.context.store.records(self.context.target["family"], task.description["operator"])
        return next((r for group in groups for r in group if r.get("final") and r.get("wave") == self.results.wave and r["workload"] == task.workload.id), None)


def _fastest(peer: dict | None) -> dict | None:
    """The best PyTorch time at the same precision, as tuning states it."""
    if peer is None or "names" not in peer:
        return None
    rows = [(min(least), median) for name, median, least in zip(peer["names"], peer["median_us"], peer["least"]) if name != "ours" and "tf32" not in name]
    return {"min_us": min(rows)[0], "median_us": min(rows)[1]} if rows else None
