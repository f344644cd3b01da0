"""`convgen logs`: look at tuning records, check them, gather them."""

from __future__ import annotations

from . import arguments
from .output import common, note, show, table


def add(verbs) -> None:
    parser = verbs.add_parser("logs", help="tuning records: merge, best, check, why, memory")
    actions = parser.add_subparsers(dest="action", metavar="merge|best|check|why|memory", required=True, parser_class=type(parser))
    merge = common(actions.add_parser("merge", help="add the records of files or folders to a folder"), _merge)
    merge.add_argument("sources", nargs="+", metavar="FILE|FOLDER")
    merge.add_argument("--into", required=True, metavar="FOLDER")
    merge.add_argument("--best", action="store_true", help="only the winner per workload and target, as for records to ship")
    best = common(actions.add_parser("best", help="the winning record per workload and target"), _best)
    best.add_argument("logs", nargs="*", metavar="FILE|FOLDER", help="default: every folder that records are read from")
    check = common(actions.add_parser("check", help="read every line and report what is unusable"), _check)
    check.add_argument("logs", nargs="*", metavar="FILE|FOLDER", help="default: every folder that records are read from")
    why = common(actions.add_parser("why", help="which record serves a workload, and why"), _why)
    arguments.add(why)
    why.add_argument("--target", default="native")
    why.add_argument("--logs", action="append", help="folder of records; may be repeated")
    memory = common(actions.add_parser("memory", help="write into records what calls hold in memory and why, counted anew"), _memory)
    memory.add_argument("logs", nargs="+", metavar="FILE|FOLDER")


def _memory(options) -> None:
    from ..tune import logs
    changed = logs.restate(options.logs)
    much = [r for r in changed if r["memory"]["why"]]
    show(options, [{"workload": r["workload"], "target": r["target"], "memory": r["memory"]} for r in changed],
         "\n".join([*(f"{r['workload']}{_held(r['memory'])}" for r in much), f"{len(changed)} records changed, of which {len(much)} say why their calls hold much"]))


def _merge(options) -> None:
    from ..tune import logs
    added = logs.merge(options.sources, options.into, only_best=options.best)
    show(options, {"added": added, "into": options.into}, f"{added} records added to {options.into}")


def _best(options) -> None:
    from ..tune import logs
    records = logs.best(options.logs or None)
    rows = [(r["workload"], r["target"], f"{r['median_us']:.1f}", r["verified"]) for r in records]
    show(options, records, table(rows, ("workload", "target", "us", "oracles")) if rows else None)
    if not rows:
        note(options, "no records")


def _check(options) -> int:
    from ..tune import logs
    checked = logs.check(options.logs or None)
    problems = [{"file": file, "line": line, "reason": reason} for file, line, reason in checked.problems]
    show(options, {"files": checked.files, "records": checked.records, "problems": problems}, str(checked))
    return 0 if checked.ok else 1


def _why(options) -> None:
    from ..tune import logs
    answers = []
    for case in arguments.cases(options):
        found = logs.why(case.workload, options.target, options.logs)
        memory = (found.record or {}).get("memory")
        answers.append({"workload": case.workload.id, "origin": found.origin, "reason": str(found.reason), "choice": found.choice, "memory": memory})
    show(options, answers, "\n".join(f"{a['workload']}: {a['origin']}: {a['reason']}{_held(a['memory'])}" for a in answers))


def _held(memory: dict | None) -> str:
    """What a record says of a call's memory, as the end of a line; nothing where it is older than such facts."""
    if memory is None:
        return ""
    return f"; a call holds {memory['ratio']:.1f} times its inputs and output" + (f": {memory['why']}" if memory["why"] else "")
