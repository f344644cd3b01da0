"""`convgen wave`: candidates for a device without compiler or network, and its results back into the records."""

from __future__ import annotations

from . import arguments
from .output import common, note, show


def add(verbs) -> None:
    parser = verbs.add_parser("wave", help="tune for a device without compiler or network: make, absorb")
    actions = parser.add_subparsers(dest="action", metavar="make|absorb", required=True, parser_class=type(parser))
    make = common(actions.add_parser("make", help="pack candidates into a bundle that the device measures with one script"), _make)
    arguments.add(make)
    make.add_argument("-o", "--output", required=True, metavar="WAVE", help="folder of the bundle, or a file that ends in .tar")
    make.add_argument("--target", default="native", help="see `convgen targets` (default native)")
    make.add_argument("--threads", type=int, help="threads of CPU kernels (default: those usable here)")
    make.add_argument("--count", type=int, default=16, help="candidates per workload (default 16)")
    make.add_argument("--logs", action="append", help="folder of records; may be repeated")
    make.add_argument("--device", metavar="FINGERPRINT", help="go on for this device, where waves of the target were measured on several")
    make.add_argument("--seed", type=int, default=0)
    absorb = common(actions.add_parser("absorb", help="take a device's result file into the records"), _absorb)
    absorb.add_argument("result", metavar="RESULT", help="the file that run.py wrote")
    absorb.add_argument("--wave", metavar="WAVE", help="the bundle it is of (default: the folder of the file)")
    absorb.add_argument("--logs", action="append", help="folder of records, the first is written to; may be repeated")


def _make(options) -> None:
    from ..wave.making import make
    workloads = [case.workload for case in arguments.cases(options) for _ in range(case.count)]
    made = make(workloads, options.output, options.target, options.count, options.logs, options.threads, options.seed, options.device, progress=lambda text: note(options, text))
    show(options, made.to_json(), str(made).splitlines()[-1])


def _absorb(options) -> int:
    from ..wave.absorbing import absorb
    absorbed = absorb(options.result, options.wave, options.logs)
    show(options, absorbed.to_json(), str(absorbed))
    return 1 if absorbed.new + absorbed.known == 0 else 0
