"""A make-believe device: a space of two knobs whose times are a formula, with builders and runners that fail on demand."""

from __future__ import annotations

import hashlib
import itertools
import json
import math

from convgen.errors import WorkerError
from convgen.tune.builder import Built
from convgen.tune.context import Environment
from convgen.tune.measure import Measurement

TARGET = {"name": "fake", "family": "fake", "isa": "fake1", "microarchitecture": "paper", "threads": 2, "cores": 2,
          "fingerprint": "fake-paper-fake1-t2", "lanes": {"float32": 16}, "l3": 1 << 20}


class FakeWorkload:
    """A workload of one size; `structure` stands for the description's hash."""

    def __init__(self, size: int = 64, operator: str = "blur", structure: str = "s1"):
        self.operator, self.size, self.structure = operator, size, structure
        self.id = f"{operator}:n{size}"
        self.flops, self.bytes = size * 2, size * 4
        self.description = {"id": self.id, "operator": operator, "dims": {"N": size}, "attributes": {}, "layout": "channels_first",
                            "acc_dtype": "float32", "tensors": [{"name": "x", "dtype": "float32"}], "output": {"dtype": "float32"},
                            "structure": structure}


class FakeSpace:
    """Knobs tile and unroll; `block` (if given) refuses choices by tile."""

    version = 3
    feature_names = ["tile", "unroll"]
    tiles, unrolls = [1, 2, 4, 8, 16, 32, 64, 128], [1, 2, 4, 8]

    def __init__(self, description, target, block=()):
        self.block = set(block)

    def default(self):
        return {"tile": 4, "unroll": 1}

    def all(self):
        return [{"tile": t, "unroll": u} for t, u in itertools.product(self.tiles, self.unrolls) if t not in self.block]

    @property
    def size(self):
        return len(self.all())

    def valid(self, choice):
        if set(choice) != {"tile", "unroll"}:
            return "unknown knobs"
        if choice["tile"] not in self.tiles or choice["unroll"] not in self.unrolls:
            return "knob out of its domain"
        return f"tile {choice['tile']} is blocked" if choice["tile"] in self.block else None

    def candidates(self, rng, n, seen):
        fresh = [c for c in self.all() if c not in seen]
        rng.shuffle(fresh)
        return fresh[:n]

    def neighbours(self, choice):
        def step(values, value):
            i = values.index(value)
            return [values[j] for j in (i - 1, i + 1) if 0 <= j < len(values)]
        return ([{**choice, "tile": t} for t in step(self.tiles, choice["tile"])]
                + [{**choice, "unroll": u} for u in step(self.unrolls, choice["unroll"])])

    def features(self, choice):
        return [math.log2(choice["tile"]), math.log2(choice["unroll"])]


class WideSpace(FakeSpace):
    """Five knobs, 1200 choices: too many to try."""

    domains = {"tile": [2 ** i for i in range(10)], "unroll": [1, 2, 4, 8, 16], "vector": [1, 2, 4, 8], "parallel": [0, 1], "pad": [0, 1, 2]}
    feature_names = list(domains)

    def default(self):
        return {"tile": 4, "unroll": 1, "vector": 8, "parallel": 1, "pad": 0}

    def all(self):
        return [dict(zip(self.domains, values)) for values in itertools.product(*self.domains.values())]

    def valid(self, choice):
        return None if set(choice) == set(self.domains) else "unknown knobs"

    def neighbours(self, choice):
        found = []
        for name, values in self.domains.items():
            i = values.index(choice[name])
            found += [{**choice, name: values[j]} for j in (i - 1, i + 1) if 0 <= j < len(values)]
        return found

    def features(self, choice):
        return [math.log2(choice[name] + 1) for name in self.domains]


def wide_formula(choice, size=64):
    """Microseconds on the wide space: knobs interact, and code that is unrolled too far falls off a cliff. Best about 100."""
    far = 0.4 * abs(math.log2(choice["tile"]) - 6) + 0.2 * (1 + choice["pad"]) * abs(math.log2(choice["unroll"]) - 2)
    far += 0.7 * (3 - math.log2(choice["vector"])) + 0.8 * (1 - choice["parallel"]) + [0.3, 0.0, 0.5][choice["pad"]]
    return 100 * math.exp(0.6 * (far + 0.75 * (choice["tile"] * choice["unroll"] > 512)))


def formula(choice, size=64):
    """Microseconds: best at tile 32, unroll 4."""
    return size * (1.0 + abs(math.log2(choice["tile"]) - 5) + 0.5 * abs(math.log2(choice["unroll"]) - 2))


class FakeClock:
    """Seconds that pass only when told."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class FakeBuilder:
    """Builds nothing; `fail(choice)` may return a WorkerError, or raise. Each build takes `cost` seconds of the fake clock, what comes before the first `loading`."""

    workers = 2

    def __init__(self, clock, fail=lambda choice: None, cost=0.1, same=lambda choice: choice, loading=0.0):
        self.clock, self.fail, self.cost, self.same, self.loading = clock, fail, cost, same, loading
        self.built = []

    def load(self, deadline=None):
        passed = self.loading if deadline is None else max(0.0, min(self.loading, deadline - self.clock.now))
        self.clock.now, self.loading = self.clock.now + passed, self.loading - passed

    def build(self, description, choices, deadline=None, grace=0.0):
        self.load(deadline)
        outcomes = []
        for choice in choices:
            if deadline is not None and self.clock.now >= deadline:
                outcomes.append(None)
                continue
            self.clock.now += self.cost
            error = self.fail(choice)
            self.built.append((description["id"], choice))
            code = json.dumps([description["id"], self.same(choice)], sort_keys=True)
            outcomes.append(error or Built("/nowhere", {"choice": choice, "symbol": "k"}, hashlib.sha256(code.encode()).hexdigest()))
        return outcomes

    def discard(self, built):
        pass

    def close(self):
        pass


class FakeRunner:
    """Times by formula; `fail(choice)` and `fail_check(choice)` may return or raise errors, `time(choice, size)` overrides the formula."""

    def __init__(self, clock, fail=lambda choice: None, fail_check=lambda choice: None, time=formula, cost=0.1):
        self.clock, self.fail, self.fail_check, self.time, self.cost = clock, fail, fail_check, time, cost
        self.measured, self.checked, self.races = [], [], []

    def measure(self, path, entry, description, best_us=None, longest=None):
        self.clock.now += self.cost
        choice = entry["choice"]
        self.measured.append((description["id"], choice))
        error = self.fail(choice)
        if error:
            raise error
        us = self.time(choice, description["dims"]["N"])
        return Measurement(us * 1.02, us * 0.01, us, 50, 0.1, "EG")

    def begin(self, description):
        pass

    def check(self, path, entry, description, best_us=None, longest=None):
        self.checked.append((description["id"], entry["choice"]))
        error = self.fail_check(entry["choice"])
        if error:
            raise error
        return {"ok": True, "ratio": 0.25, "reason": None, "oracles": "EFG", "seeds": [0, 1]}

    def race(self, candidates, description, best_us, rounds=12, budget=1.0):
        self.races.append([entry["choice"] for _, entry in candidates])
        rows = [[self.time(entry["choice"], description["dims"]["N"]) * (1 + 0.001 * r) for r in range(rounds)] for _, entry in candidates]
        return {"median": rows, "least": rows}

    def provide(self, description, tensors):
        pass

    def close(self):
        pass


class FakeBaseline:
    def __init__(self, us=500.0):
        self.us, self.asked = us, []

    def time(self, workload_id, longest=120.0):
        self.asked.append(workload_id)
        return {"median_us": self.us * 1.05, "min_us": self.us}

    def close(self):
        pass


def environment(clock=None, *, builder=None, runner=None, baseline=None, block=(), **kinds):
    """An Environment of fakes; keyword arguments `build_fail`, `run_fail`, `check_fail`, `time`, `same` reach the fakes."""
    clock = clock or FakeClock()
    builder = builder or FakeBuilder(clock, kinds.get("build_fail", lambda c: None), same=kinds.get("same", lambda c: c))
    runner = runner or FakeRunner(clock, kinds.get("run_fail", lambda c: None), kinds.get("check_fail", lambda c: None), kinds.get("time", formula))
    return Environment(builder, runner, baseline, space=lambda d, t: FakeSpace(d, t, block), hash=lambda d: d["structure"], clock=clock,
                       versions=lambda: {"convgen": "test"})


def wrong(message="oracle E: output differs"):
    return WorkerError("wrong", message)
