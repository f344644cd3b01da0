#!/usr/bin/env python
"""How fast kernels are before anything is tuned: tools/untuned.py WORKLOADS -o DATA.jsonl [--target x86:avx2] [--logs FOLDER].

For every workload the kernel of its record is raced against the default, in interleaved rounds as `convgen bench` does it, each output checked. A row per kernel
goes to the file; the table shows the tuned kernel's time over the default's: the share of its tuned speed that a machine without records reaches.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout this file lies in

import convgen  # noqa: E402
import duel  # noqa: E402
from convgen import bench, building  # noqa: E402
from convgen.bench.contestants import OURS, ours  # noqa: E402
from convgen.bench.race import merged  # noqa: E402
from convgen.bench.tables import percent, us  # noqa: E402
from convgen.cli import arguments  # noqa: E402
from convgen.cli.output import table  # noqa: E402
from convgen.tune.records import Store  # noqa: E402

UNTUNED = "untuned"


def run(cases, output, target="native", threads=None, logs=None, **options) -> bench.Result:
    """Race the recorded kernel of every case against its default; rows as in `bench.run`. Raises ArgumentError for a workload without a record of its own on this target."""
    machine, records = duel.machine(target, threads), Store.open(logs)
    missing = [case.workload.id for case in cases if building.plan(case.workload, machine, records).found.step != "exact"]
    if missing:
        raise convgen.ArgumentError(f"untuned: {len(missing)} of {len(cases)} workloads have no record for {machine.fingerprint}, first {missing[0]}")
    with tempfile.TemporaryDirectory(prefix="convgen-untuned-") as scratch:
        def contestants(w):
            return [ours(duel.exported(w, machine, logs, scratch)), ours(duel.exported(w, machine, False, scratch), UNTUNED)]
        return bench.run(cases, machine, output=output, contestants=contestants, **options)


def overview(result) -> str:
    """Per workload: both times, and the default's share of the tuned speed."""
    body = [[race.workload, us(race.ours["median_us"]), us(race.best["median_us"]), percent(1 / race.ratio)] for race in result.races if race.best and race.ours["ok"]]
    shares = [1 / race.ratio for race in result.races if race.best and race.ours["ok"]]
    text = f"median {percent(statistics.median(shares))}" if shares else "nothing was measured"
    return table(body, ["workload", f"{OURS}, µs", f"{UNTUNED}, µs", "share of tuned speed"]) + f"\n{text}"


def main(words=None) -> int:
    parsed = duel.parser(__doc__.splitlines()[0], seconds=1.0).parse_args(words)
    return duel.finished("untuned", lambda: run(merged(arguments.cases(parsed)), **duel.options(parsed)), overview)


if __name__ == "__main__":
    sys.exit(main())
