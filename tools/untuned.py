#!/usr/bin/env python
"""How fast kernels are before anything is tuned: tools/untuned.py WORKLOADS -o DATA.jsonl [--target x86:avx2] [--logs FOLDER].

For every workload the kernel of its record is raced against the default, in interleaved rounds as `convgen bench` does it, each output checked. A row per kernel
goes to the file; the table shows the tuned kernel's time over the default's: the share of its tuned speed that a machine without records reaches.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout this file lies in

import convgen  # noqa: E402
from convgen import bench, building, exporting  # noqa: E402
from convgen.bench.race import merged  # noqa: E402
from convgen.bench.contestants import OURS, Contestant, ours  # noqa: E402
from convgen.bench.tables import percent, us  # noqa: E402
from convgen.cli import arguments  # noqa: E402
from convgen.cli.output import table  # noqa: E402
from convgen.tune.records import Store  # noqa: E402

UNTUNED = "untuned"


def run(cases, output, target="native", threads=None, logs=None, **options) -> bench.Result:
    """Race the recorded kernel of every case against its default; rows as in `bench.run`. Raises ArgumentError for a workload without a record of its own on this target."""
    machine = convgen.targets.resolve(target)
    machine = machine.with_threads(threads) if threads else machine
    records, none = Store.open(logs), Store([])
    missing = [case.workload.id for case in cases if building.plan(case.workload, machine, records).found.step != "exact"]
    if missing:
        raise convgen.ArgumentError(f"untuned: {len(missing)} of {len(cases)} workloads have no record for {machine.fingerprint}, first {missing[0]}")
    with tempfile.TemporaryDirectory(prefix="convgen-untuned-") as scratch:
        def contestants(w):
            plans = [building.plan(w, machine, store) for store in (records, none)]
            with tempfile.TemporaryDirectory(dir=scratch) as objects:
                entries = building.build(plans, objects, workers=len(plans))
                paths = [str(Path(scratch) / f"{p.symbol}_{name}.cvg") for p, name in zip(plans, ("tuned", UNTUNED))]
                for path, entry in zip(paths, entries):
                    exporting.write(path, exporting.identifier(path), [(machine, [w], [entry])], objects)
            return [ours(paths[0]), Contestant(UNTUNED, "convgen.bench.peers.convgen:bound", "convgen", {"library": paths[1]})]
        return bench.run(cases, target, threads, logs=logs, output=output, contestants=contestants, **options)


def overview(result) -> str:
    """Per workload: both times, and the default's share of the tuned speed."""
    body = [[race.workload, us(race.ours["median_us"]), us(race.best["median_us"]), percent(1 / race.ratio)] for race in result.races if race.best and race.ours["ok"]]
    shares = [1 / race.ratio for race in result.races if race.best and race.ours["ok"]]
    text = f"median {percent(statistics.median(shares))}" if shares else "nothing was measured"
    return table(body, ["workload", f"{OURS}, µs", f"{UNTUNED}, µs", "share of tuned speed"]) + f"\n{text}"


def main(words=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add(parser, suites=True)
    parser.add_argument("-o", "--output", required=True, metavar="DATA.jsonl")
    parser.add_argument("--target", default="native")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--seconds", type=float, default=1.0, help="of timing for each race")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--resume", action="store_true", help="what the file holds is not raced again")
    parser.add_argument("--logs", action="append")
    options = parser.parse_args(words)
    try:
        result = run(merged(arguments.cases(options)), options.output, options.target, options.threads, options.logs, seconds=options.seconds, rounds=options.rounds, resume=options.resume)
    except convgen.Error as error:
        print(f"untuned: {error}", file=sys.stderr)
        return 2
    print(overview(result))
    return 0 if all(row["ok"] for row in result.rows) else 1


if __name__ == "__main__":
    sys.exit(main())
