#!/usr/bin/env python
"""Write the measured figures of README.md and docs/measured/README.md from the committed data: tools/bench_page.py [PAGE ...].

A block `<!-- bench: KIND FILE.jsonl -->` ... `<!-- bench: end -->` is replaced by what KIND (a function of KINDS or FOLDERS below) makes of the data; a test compares blocks and data,
so that no such figure is typed by hand. Files are named from the root of the repository.
"""

from __future__ import annotations

import re
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from convgen.bench.contestants import METASCHEDULE_NAME, OURS  # noqa: E402
from convgen.bench.groups import GROUPS  # noqa: E402
from convgen.bench.report import NEAR, REMOVED, Result, mean, read, share  # noqa: E402
from convgen.bench.tables import conditions, ms, percent, times, us  # noqa: E402
from convgen.lang.count import CALL  # noqa: E402
from convgen.tune import logs  # noqa: E402

PAGES = ("README.md", "docs/measured/README.md")
BLOCK = re.compile(r"(<!-- bench: (\w+) (\S+) -->\n)(.*?)(<!-- bench: end -->)", re.S)
ENOUGH = 0.7  # of its tuned speed is what a default should reach
OPEN = "any batch"  # as tools/any_batch.py calls it


def filled(text: str, root: Path = ROOT) -> str:
    """A page with its blocks made anew. Raises KeyError for a kind that does not exist."""
    return BLOCK.sub(lambda block: f"{block[1]}{made(block[2], root / block[3])}\n{block[5]}", text)


def made(kind: str, path: Path) -> str:
    """What stands in a block."""
    make = FOLDERS.get(kind) or KINDS[kind]
    if not path.exists():
        return "Not measured yet."
    return make(path if kind in FOLDERS else read(path))


def groups(result: Result) -> str:
    """The figures of each group and of all."""
    races = result.races
    lines = [(g.name, g, [r for r in races if r.group == g.name]) for g in result.groups()]
    body = [(name, len(here), times(g.mean), times(g.worst[0] if g.worst else None), percent(g.below_1), to_torch(here)) for name, g, here in lines]
    ratios = result.ratios
    if len(body) > 1:
        body.append(("all", len(races), times(mean(ratios)), times(min(ratios, default=None)), percent(share([v < 1 for v in ratios])), to_torch(races)))
    faster = ", ".join(f"{p:g}x {percent(part)}" for p, part in result.fast_p().items())
    failed = sum(bool(r.ours) and not r.ours["ok"] for r in races)
    return "\n".join([stated(result), "", *table(["group", "workloads", "times faster than the best peer, geometric mean", "worst", "share below 1", "than the best of PyTorch"], body), "",
                      f"Share of workloads faster than p times the best peer: {faster}." + (f" Failed, counted as 0.5: {failed}." if failed else "")])


def to_torch(races) -> str:
    return times(mean([v for r in races if (v := r.over(r.torch)) is not None]))


def stated(result: Result) -> str:
    """Machine, threads and dates of a file."""
    first, dates = result.rows[0], sorted({row["date"] for row in result.rows})
    text = conditions(first | {"date": " to ".join(dict.fromkeys((dates[0], dates[-1])))})
    busy = sum(bool(race.rows[0].get("busy")) for race in result.races)
    return text + (f"; something else ran during {busy} of {len(result.races)} races" if busy else "") + "."


def below(result: Result) -> str:
    """Every workload where the best peer was faster."""
    slow = sorted((r for r in result.races if r.ratio is not None and r.ratio < 1), key=lambda r: r.ratio)
    return rows(Result([row for race in slow for row in race.rows])) if slow else "None."


def rows(result: Result) -> str:
    """A line per workload."""
    body = [(f"`{r.workload}`", us(r.ours["median_us"]) if r.ours and r.ours["ok"] else "failed", r.best["contestant"] if r.best else "none", us(r.best["median_us"]) if r.best else "", times(r.ratio))
            for r in result.races]
    return "\n".join(table(["workload", "convgen, µs", "best peer", "µs", "ratio"], body))


def apart(result: Result) -> str:
    """The workloads outside the networks against the others of their groups: medians by group, and every row."""
    found = result.outside()
    body = [(o.group, len(o.apart), times(statistics.median(o.apart)), times(statistics.median(o.others)), f"{o.distance:+.0%}", times(mean(o.apart)), times(mean(o.others))) for o in found]
    near, worse = sum(abs(o.distance) <= NEAR for o in found), sum(o.distance < -NEAR for o in found)
    rows = [(group, f"`{workload}`", times(ratio), f"{ratio / middle - 1:+.0%}") for group, workload, ratio, middle in sorted(result.apart(), key=lambda row: GROUPS.index(row[0]))]
    return "\n".join([*table(["group", "rows outside", "their median ratio", "median ratio of the group's others", "distance", "geometric mean outside", "of the others"], body), "",
                      f"{near} of {len(body)} groups are within {NEAR:.0%}; {worse} are further below.", "", *table(["group", "workload", "ratio", "from the median of the others"], rows)])


def fused(result: Result) -> str:
    """What fused blocks remove of the peer's time outside its matrix products."""
    body, parts = [], [part for _, part in result.fused()]
    for r in sorted((r for r in result.races if r.removed is not None), key=lambda r: r.removed):
        body.append((f"`{r.workload}`", us(r.ours["median_us"]), us(r.best["median_us"]), us(r.products["median_us"]) if r.products else "none", percent(r.removed)))
    if not parts:
        return "No fused block was measured together with its matrix products."
    text = f"{percent(statistics.median(parts))} in the median of {len(parts)} blocks, {percent(min(parts))} to {percent(max(parts))}; {REMOVED:.0%} or more for {percent(share([p >= REMOVED for p in parts]))}."
    return "\n".join([*table(["block", "convgen, µs", "best peer, µs", "products alone, µs", "removed"], body), "", text])


def networks(result: Result) -> str:
    """Layers one after another: how far from what arithmetic, and what each layer's roofline, would take."""
    body = [(name, net["layers"], ms(net["ideal"]), ms(net["waterline"]), ms(net["convgen"]), ms(net["best peers"]), times(net["best peers"] / net["convgen"]),
             percent(net["ideal"] / net["convgen"]), percent(net["ideal"] / net["waterline"]), net["missing"] or "") for name, net in result.networks().items()]
    return "\n".join(table(["suite", "layers", "ideal, ms", "waterline, ms", "convgen, ms", "best peers, ms", "ratio", "efficiency", "at most", "layers missing"], body))


def tuners(result: Result) -> str:
    """convgen beside TVM's own tuner."""
    body = []
    for race in result.races:
        other = next((r for r in race.rows if r["contestant"] == METASCHEDULE_NAME), None)
        if other is not None and race.ours:
            searched = [f"{other['facts']['seconds']:.0f}", other["facts"]["trials"], us(other["median_us"]), times(race.over(other))] if other["ok"] else ["", "", "failed", "n/a"]
            body.append((race.group, f"`{race.workload}`", us(race.ours["median_us"]) if race.ours["ok"] else "failed", *searched, times(race.ratio)))
    return "\n".join([stated(result), "", *table(["group", "workload", "convgen, µs", "MetaSchedule searched, s", "candidates", "its kernel, µs", "over convgen's", "best other peer over convgen's"], body)])


def batches(result: Result) -> str:
    """Kernels of any batch beside exact ones."""
    body, worst = [], []
    for race in result.races:
        free = next((r for r in race.rows if r["contestant"] == OPEN), None)
        both = [us(r["median_us"]) if r and r["ok"] else "failed" for r in (race.ours, free)]
        ratio = free["median_us"] / race.ours["median_us"] if free and free["ok"] and race.ours and race.ours["ok"] else None
        worst += [ratio] if ratio else []
        body.append((f"`{race.workload}`", *both, times(ratio)))
    text = f"{sum(v <= 1.1 for v in worst)} of {len(body)} within 10 %; geometric mean {times(mean(worst))}, at most {times(max(worst, default=None))}."
    return "\n".join([stated(result), "", *table(["workload", f"{OURS}, exactly N, µs", f"{OPEN}, µs", "any batch over exact"], body), "", text])


def untuned(result: Result) -> str:
    """What defaults reach of the speed of tuned kernels, by groups."""
    whole = [(r.group, 1 / r.ratio, r.workload) for r in result.races if r.ours and r.ours["ok"] and r.best]
    body = []
    for name in [*(g for g in GROUPS if any(g == group for group, _, _ in whole)), "all"]:
        parts = sorted((part, workload) for group, part, workload in whole if name in (group, "all"))
        body.append((name, len(parts), percent(statistics.median(p for p, _ in parts)), percent(share([p >= ENOUGH for p, _ in parts])), percent(parts[0][0]), f"`{parts[0][1]}`"))
    failed = sum(not r["ok"] for r in result.rows)
    return "\n".join([stated(result), "", *table(["group", "workloads", "share of tuned speed, median", f"{ENOUGH:.0%} or more", "least", "of"], body)] + ([f"\nFailed: {failed}."] if failed else []))


def held(folder: Path) -> str:
    """Tuned kernels that hold more than a call should, and why, from a folder of records."""
    shipped = [r for r in logs.best([folder]) if r.get("memory")]
    much = sorted((r for r in shipped if r["memory"]["ratio"] > CALL), key=lambda r: -r["memory"]["ratio"])
    body = [(f"`{r['workload']}`", r["threads"], times(r["memory"]["ratio"]), r["memory"]["why"]) for r in much]
    text = f"{len(shipped) - len(much)} of {len(shipped)} records hold at most {CALL:g} times the bytes of inputs and output, these included. The others:"
    return "\n".join([text, "", *table(["workload", "threads", "times", "why"], body)])


def table(head, body) -> list[str]:
    """Lines of a table."""
    return [f"| {' | '.join(map(str, row))} |" for row in (head, ["---"] * len(head), *body)]


KINDS = {make.__name__: make for make in (groups, below, rows, apart, fused, networks, tuners, batches, untuned)}
FOLDERS = {held.__name__: held}  # of folders of records


def main(names) -> int:
    for name in names or PAGES:
        page = ROOT / name
        page.write_text(filled(page.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
