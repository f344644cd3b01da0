#!/usr/bin/env python
"""What an open batch costs: tools/any_batch.py WORKLOADS -o DATA.jsonl [--batches 1 3 8] [--tuned-at 8] [--tune SECONDS].

For every workload, one kernel that takes any batch (tuned at --tuned-at) is raced against kernels for exactly N samples, in interleaved rounds as
`convgen bench` does it, each output checked; with --tune, each of these kernels is searched for so long before (those that have records are not). A row per kernel and batch goes to the file; the table shows the time of the exact kernel over that of the open one.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout this file lies in

import convgen  # noqa: E402
import duel  # noqa: E402
from convgen import bench  # noqa: E402
from convgen.bench.contestants import OURS, ours  # noqa: E402
from convgen.bench.tables import times, us  # noqa: E402
from convgen.cli import arguments  # noqa: E402
from convgen.cli.output import table  # noqa: E402
from convgen.lang.workload import flag_names, make  # noqa: E402

OPEN = "any batch"


def batched(workload, n: int, any_batch: bool = False):
    """The same layer with another batch. Raises ArgumentError where its samples are not independent."""
    flags = {f: True for f in flag_names(workload.op) if workload.flags.get(f) and f != "any_batch"}
    return make(workload.op, {**workload.dims, **workload.attributes, **flags, "N": n, "any_batch": any_batch, "layout": workload.layout, "dtype": workload.dtype,
                              "acc_dtype": workload.acc_dtype, "out_dtype": workload.out_dtype})


def run(workloads, batches, tuned_at: int, output, target="native", threads=None, logs=None, tune: float | None = None, **options) -> bench.Result:
    """Race every workload at every batch; rows as in `bench.run`. tune: seconds of search for each kernel."""
    machine = duel.machine(target, threads)
    if tune:
        kernels = [k for w in workloads for k in (batched(w, tuned_at, True), *(batched(w, n) for n in batches))]
        convgen.tune(kernels, machine, seconds=tune * len(kernels), logs=logs)
    with tempfile.TemporaryDirectory(prefix="convgen-any-batch-") as scratch:
        exported = lambda w: duel.exported(w, machine, logs, scratch)
        libraries = {}
        for w in workloads:
            free = exported(batched(w, tuned_at, True))
            libraries |= {batched(w, n): (exported(batched(w, n)), free) for n in batches}

        def contestants(w):
            exact, free = libraries[w]
            return [ours(exact), ours(free, OPEN)]
        return bench.run(list(libraries), machine, output=output, contestants=contestants, **options)


def overview(result) -> str:
    """Per workload and batch: both times, and the exact kernel's over the open one's."""
    body = []
    for race in result.races:
        open_row = next((r for r in race.rows if r["contestant"] == OPEN), None)
        both = [us(r["median_us"]) if r and r["ok"] else "failed" for r in (race.ours, open_row)]
        body.append([race.workload, *both, times(1 / race.ratio if race.ratio and race.ours["ok"] else None)])
    return table(body, ["workload", f"{OURS}, exactly N, µs", f"{OPEN}, µs", "exact / open"])


def main(words=None) -> int:
    parser = duel.parser(__doc__.splitlines()[0], seconds=8.0)
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 3, 8])
    parser.add_argument("--tuned-at", type=int, default=8)
    parser.add_argument("--tune", type=float, metavar="SECONDS", help="of search for each kernel before the races")
    parsed = parser.parse_args(words)
    return duel.finished("any_batch", lambda: run([case.workload for case in arguments.cases(parsed)], parsed.batches, parsed.tuned_at, tune=parsed.tune, **duel.options(parsed)), overview)


if __name__ == "__main__":
    sys.exit(main())
