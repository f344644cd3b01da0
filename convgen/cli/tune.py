"""`convgen tune`: search fast kernels, keep everything, go on where the last run stopped."""

from __future__ import annotations

import contextlib

from . import arguments
from .output import common, note, show


def add(verbs) -> None:
    parser = common(verbs.add_parser("tune", help="search fast kernels for workloads, on this machine or on servers"), _tune)
    arguments.add(parser, suites=True)
    parser.add_argument("--target", default="native", help="see `convgen targets` (default native)")
    parser.add_argument("--threads", type=int, help="threads that serving will use (default: those usable here)")
    parser.add_argument("--seconds", type=float, help="wall time of the whole run, compilation included")
    parser.add_argument("--trials", type=int, help="candidates per workload, those of earlier runs included")
    parser.add_argument("--logs", action="append", help="folder of records, the first is written to; may be repeated")
    parser.add_argument("--rpc", metavar="HOST:PORT", help="measure on the servers of this tracker (`convgen device`); --target describes them")
    parser.add_argument("--key", help="with --rpc: the key of the servers to use")
    parser.add_argument("--emulated", action="store_true", help="with --rpc: accept emulated processors, and save nothing")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--new", action="store_true", help="leave out what was tuned for this very target before")
    parser.add_argument("--retune", action="store_true", help="search again where a record exists")


def _tune(options) -> int:
    import convgen

    from ..targets import resolve
    from ..tune.progress import Progress
    from ..tune.records import Store
    cases = arguments.cases(options)
    target = resolve(options.target)
    target = target.with_threads(options.threads) if options.threads else target
    workloads = [case.workload for case in cases for _ in range(case.count)]
    if options.new:
        store = Store.open(options.logs)
        known = {w for w in set(workloads) if _tuned(w, target, store)}
        workloads = [w for w in workloads if w not in known]
        note(options, f"{len(known)} workloads were tuned before, {len(set(workloads))} are left")
        if not workloads:
            return 0
    with contextlib.nullcontext() if options.quiet or options.json else Progress() as progress:
        result = convgen.tune(workloads, target, seconds=options.seconds, trials=options.trials, logs=options.logs,
                              seed=options.seed, retune=options.retune, progress=progress, rpc=options.rpc, key=options.key, emulated=options.emulated)
    show(options, result.to_json(), str(result))
    if result.interrupted:
        return 130
    return 1 if all(row.us is None for row in result.rows) else 0


def _tuned(workload, target, store) -> bool:
    """Whether an earlier run finished this workload on this target."""
    from .. import building
    found = building.plan(workload, target, store).found
    return found.step == "exact" and bool(found.record.get("final"))
