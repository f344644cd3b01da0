"""`convgen bench`: kernels against what people run today."""

from __future__ import annotations

from . import arguments
from .output import common, show


def add(verbs) -> None:
    parser = common(verbs.add_parser("bench", help="race kernels against PyTorch and other peers on this machine"), _bench)
    arguments.add(parser)
    parser.add_argument("--target", default="native", help="see `convgen targets` (default native)")
    parser.add_argument("--threads", type=int, help="threads for every contestant (default: those usable here)")
    parser.add_argument("--seconds", type=float, help="time for each workload")
    parser.add_argument("--logs", action="append", help="folder of records; may be repeated")


def _bench(options) -> None:
    from .. import bench
    cases = arguments.cases(options)
    result = bench.run([case.workload for case in cases], target=options.target, threads=options.threads, seconds=options.seconds, logs=options.logs)
    show(options, result.to_json(), str(result))
