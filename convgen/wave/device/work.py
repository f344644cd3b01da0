"""What is done with one candidate, in a process of its own: verify, time, race."""

from __future__ import annotations

import os
import zlib

from ...tune.timing import measure, quartiles, race_of, sample
from .check import Reference, exact
from .trouble import Trouble
from .values import drawn

COLD_SHARE = 0.3  # of a candidate's timing that goes to cold caches


class Wave:
    """The bundle's content. `root` is its folder, `manifest` its wave.json."""

    def __init__(self, root: str, manifest: dict):
        self.root, self.manifest = root, manifest
        self.candidates = {c["id"]: c for c in manifest["candidates"]}
        self._inputs, self._references, self._of = {}, {}, None

    def file(self, name: str) -> bytes:
        """The unpacked content of a file that wave.json names."""
        with open(os.path.join(self.root, name), "rb") as file:
            return zlib.decompress(file.read())

    def inputs(self, number: int, case: dict) -> dict:
        """{tensor: storage} of a case of a workload; kept while that workload is measured."""
        if number != self._of:
            self._inputs, self._references, self._of = {}, {}, number
        key = (case["letter"], case["seed"])
        if key not in self._inputs:
            self._inputs[key] = {name: self.file(spec["file"]) if "file" in spec else drawn(spec) for name, spec in case["inputs"].items()}
        return self._inputs[key]

    def reference(self, case: dict) -> Reference:
        """A float case's reference."""
        if case["file"] not in self._references:
            self._references[case["file"]] = Reference(case, self.file(case["file"]))
        return self._references[case["file"]]


class Trial:
    """One opened candidate."""

    def __init__(self, device, wave: Wave, candidate: dict):
        self.device, self.wave, self.candidate = device, wave, candidate
        self.workload = wave.manifest["workloads"][candidate["workload"]]
        kinds = {name: facts["kind"] for name, facts in candidate["buffers"].items()}
        self.sources = [name for name, kind in kinds.items() if kind in ("input", "param")]
        self.packed = [name for name, kind in kinds.items() if kind == "packed"]
        self.output = next(name for name, kind in kinds.items() if kind == "output")
        self.written = [name for name in kinds if name not in self.sources]
        self.kernel = device.open(candidate, wave.file(candidate["code"]))
        self.buffers = self.kernel.buffers

    def cases(self, letter: str) -> list:
        """The workload's cases for an oracle letter; N shares F's."""
        return [c for c in self.workload["cases"] if c["letter"] == ("F" if letter == "N" else letter)]

    def realistic(self) -> dict:
        """The case whose inputs look like a network's: operands full of zeros would let a card clock higher."""
        return (self.cases("F") or self.cases("E"))[0]

    def verify(self) -> tuple:
        """(oracles, worst error over its bound); raises Trouble("wrong")."""
        worst = 0.0
        for letter in self.candidate["oracles"]:
            for case in self.cases(letter):
                where = "oracle %s, seed %d: " % (letter, case["seed"])
                tensors = self.wave.inputs(self.candidate["workload"], case)
                for name in self.sources:
                    self.buffers[name].write(tensors[name])
                result = self._once(where, tensors, 0xFF, 0xA5)
                ratio, reason = (0.0, exact(result, case)) if letter == "E" else self.wave.reference(case).compare(result, letter == "N")
                if reason:
                    raise Trouble("wrong", where + reason)
                worst = max(worst, ratio)
                if self._once(where, tensors, 0x3C, 0xFF) != result:
                    raise Trouble("wrong", where + "a second run over other stale memory gives another result")
        return self.candidate["oracles"] + "G", worst

    def _once(self, where: str, tensors: dict, stale: int, canary: int) -> bytes:
        """The output of one run over stained memory; raises Trouble("wrong") if anything else was touched."""
        for buffer in self.buffers.values():
            buffer.surround(canary)
        for name in self.written:
            self.buffers[name].stain(stale)
        self.device.finish()
        self.kernel.prepare()
        self.device.finish()
        packed = {name: self.buffers[name].read() for name in self.packed}
        self.kernel.run()
        self.device.finish()
        for name, buffer in self.buffers.items():
            side = buffer.damaged()
            if side:
                raise Trouble("wrong", where + "memory %s %s was overwritten" % (side, name))
        for name in self.sources + self.packed:
            if self.buffers[name].read() != (packed[name] if name in packed else tensors[name]):
                raise Trouble("wrong", where + name + " was changed by the kernel")
        return self.buffers[self.output].read()

    def ready(self):
        """The call to be timed, on realistic inputs with parameters prepared."""
        tensors = self.wave.inputs(self.candidate["workload"], self.realistic())
        for name in self.sources:
            self.buffers[name].write(tensors[name])
        for name in self.written:
            self.buffers[name].stain(0)
        self.device.finish()
        self.kernel.prepare()
        self.device.finish()
        return self.kernel.run

    def close(self) -> None:
        self.kernel.close()


def try_candidate(device, wave: Wave, identity: str, budget: float, hopeless_us=None) -> dict:
    """Verify and time one candidate; the fields of its result line. Raises Trouble."""
    trial = Trial(device, wave, wave.candidates[identity])
    oracles, ratio = trial.verify()
    call, take = trial.ready(), device.take or sample
    hopeless = hopeless_us * 1e-6 if hopeless_us else None
    before = device.state()
    warm = measure(call, budget, hopeless, None, take)
    cold = None
    if hopeless is None or warm["min_us"] <= hopeless_us:
        cold = measure(call, budget * COLD_SHARE, None, device.flush, take)
    trial.close()
    return {"oracles": oracles, "ratio": ratio, **rounded(warm), "cold_us": round(cold["median_us"], 3) if cold else None,
            "cold_spread_us": round(cold["spread_us"], 3) if cold else None, "before": before, "after": device.state()}


def race(device, wave: Wave, identities: list, budget: float, rounds: int) -> dict:
    """Interleaved rounds of candidates of one workload: {"median", "least"}, microseconds per candidate and round."""
    trials = [Trial(device, wave, wave.candidates[identity]) for identity in identities]
    take = device.take or sample
    return interleaved([trial.ready() for trial in trials], [take] * len(trials), budget, rounds)


def interleaved(calls: list, takes: list, budget: float, rounds: int) -> dict:
    """Time calls in turns, to nanoseconds."""
    return {key: [[round(us, 3) for us in row] for row in rows] for key, rows in race_of(calls, takes, budget, rounds).items()}


def rounded(taken: dict) -> dict:
    """Times to nanoseconds."""
    return {key: round(value, 3) if key.endswith("_us") else value for key, value in taken.items()}


def middle(row: list) -> float:
    """Median of a row of times."""
    return quartiles(row)[1]
