"""`convgen bench`: kernels against what people run today."""

from __future__ import annotations

import dataclasses
import sys

from ..errors import ArgumentError
from . import arguments
from .output import common, show

_PEERS = "torch, compile, onnxruntime, openvino, ncnn"
_TUNER = "metaschedule"


def add(verbs) -> None:
    parser = common(verbs.add_parser("bench", help="race kernels against PyTorch and other peers on this machine"), _bench)
    arguments.add(parser, required=False, suites=True)
    parser.add_argument("--target", default="native", help="see `convgen targets` (default native)")
    parser.add_argument("--threads", type=int, help="threads for every contestant (default: those usable here)")
    parser.add_argument("--seconds", type=float, help="timing for each workload, shared by all contestants; preparing them comes on top (default 8)")
    parser.add_argument("--rounds", type=int, default=15, help="interleaved rounds (default 15)")
    parser.add_argument("--peers", help=f"comma-separated, out of {_PEERS} (default all these), and {_TUNER}")
    parser.add_argument("--seconds-metaschedule", type=float, metavar="SECONDS",
                        help="search time of TVM's MetaSchedule for each workload (default: what `convgen tune` took for it, else 60)")
    parser.add_argument("--count-metaschedule", action="store_true", help="let it be the best peer; otherwise it is shown only")
    parser.add_argument("--cold", action="store_true", help="flush all caches before every call")
    parser.add_argument("--wait", type=float, default=0.0, metavar="SECONDS", help="before each workload wait that long at most for other processes to stop computing")
    parser.add_argument("--overhead", action="store_true", help="measure what a call costs beyond its kernel, instead of a race")
    parser.add_argument("--logs", action="append", help="folder of records; may be repeated")
    parser.add_argument("--all", action="store_true", help="print every contestant of every workload, too")
    parser.add_argument("-o", "--output", metavar="DATA.jsonl", help="file that every contestant's row is appended to")
    parser.add_argument("--resume", action="store_true", help="do not race again what the output file holds of these conditions")
    parser.add_argument("--read", metavar="DATA.jsonl", help="report the rows of an earlier bench instead of measuring; workloads that are named but missing count as failed")
    parser.add_argument("--plot", metavar="FILE.svg", help="draw the ratios by groups, and the networks' efficiency gaps")


def _bench(options) -> int:
    from .. import bench
    from ..bench import race, suites
    if "list" in options.suite:
        names = [suites.ALL, *suites.names()]
        show(options, names, "\n".join(names))
        return 0
    cases = arguments.cases(options)
    if options.read:
        return _report(options, dataclasses.replace(bench.read(options.read), plan=[entry.plan() for entry in race.merged(cases)]))
    if options.overhead:
        rows = bench.overhead([case.workload for case in cases], options.target, options.threads or 1, options.logs)
        show(options, [row.to_json() for row in rows], bench.overhead_table(rows))
        return 0
    if not cases:
        raise ArgumentError("no workload given: write OP DIM=VALUE ..., an id, -f FILE, or --suite NAME")
    peers = [name.strip() for name in options.peers.split(",")] if options.peers is not None else None
    tell = None if options.quiet or options.json else lambda text: print(text, file=sys.stderr, flush=True)
    result = bench.run(cases, target=options.target, threads=options.threads, seconds=options.seconds, logs=options.logs, peers=peers, rounds=options.rounds,
                       cold=options.cold, wait=options.wait, output=options.output, resume=options.resume, counting=[_TUNER] if options.count_metaschedule else [],
                       tuning_seconds=options.seconds_metaschedule, progress=tell)
    return _report(options, result)


def _report(options, result) -> int:
    if options.plot:
        from ..bench.plot import draw
        draw(result, options.plot)
    show(options, result.to_json(), (result.details() + "\n\n" if options.all else "") + str(result))
    if result.interrupted:
        return 130
    return 1 if result.left_out or any(row["ours"] and not row["ok"] for row in result.rows) else 0
