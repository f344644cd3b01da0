"""`convgen compile`, `export` and `inspect`: from workloads to kernels and libraries, and what a library holds."""

from __future__ import annotations

import sys

from . import arguments
from .output import common, note, show


def add(verbs) -> None:
    compile_ = common(verbs.add_parser("compile", help="compile workloads into the cache, with their best records"), _compile)
    arguments.add(compile_)
    compile_.add_argument("--target", default="native", help="see `convgen targets` (default native)")
    compile_.add_argument("--threads", type=int, help="threads of the kernels (default: those usable here)")
    _records(compile_)

    export = common(verbs.add_parser("export", help="build a library that serves workloads without a compiler"), _export)
    arguments.add(export)
    export.add_argument("-o", "--output", required=True, help="path of the library")
    export.add_argument("--target", action="append", help="see `convgen targets`; repeat for several variants (default native)")
    export.add_argument("--threads", type=int, action="append", help="threads of the kernels; repeat for several variants")
    _records(export)
    export.add_argument("--name", help="name of the library in PyTorch (default: the file's name)")
    export.add_argument("--require", choices=("any", "near", "tuned"), default="any", help="refuse records that are less near; exit code 3")

    inspect = common(verbs.add_parser("inspect", help="what a library holds; nothing of it is executed"), _inspect)
    inspect.add_argument("path")


def _records(parser) -> None:
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--logs", action="append", help="folder of records; may be repeated")
    either.add_argument("--no-logs", dest="logs", action="store_const", const=False, help="use no records: every kernel is the default")


def _compile(options) -> None:
    from .. import api
    rows = []
    for case in arguments.cases(options):
        kernel = api.compile(case.workload, options.target, threads=options.threads, logs=options.logs)
        entry = kernel.entry
        rows.append({"workload": case.workload.id, "origin": entry["origin"], "measured_us": entry.get("measured_us"), "symbol": entry["symbol"]})
        note(options, f"{case.workload.id}: {entry['origin']}" + (f", {entry['measured_us']:.4g} us when tuned" if entry.get("measured_us") else ""))
    show(options, rows)


def _export(options) -> int:
    import convgen

    from ..building import Unmet
    cases = arguments.cases(options)
    named = {case.name or case.workload.id: case.workload for case in cases}
    workloads = named if len(named) == len(cases) else [case.workload for case in cases]
    try:
        report = convgen.export(workloads, options.output, target=options.target or "native", threads=options.threads,
                                logs=options.logs, name=options.name, require=options.require)
    except Unmet as unmet:
        print(f"convgen: {unmet}", file=sys.stderr)
        return 3
    show(options, report.to_json(), str(report))
    return 0


def _inspect(options) -> int:
    from ..export.inspect import inspect, to_text
    facts = inspect(options.path)
    show(options, facts, to_text(facts))
    return 1 if facts["damage"] else 0
