"""The text of a bench: every workload by groups, the groups' figures, networks, memory, and who was not timed."""

from __future__ import annotations

import statistics

from . import memory
from .report import NEAR, P, REMOVED, Race, Result, share


def overview(result: Result) -> str:
    """The printed report."""
    from ..cli.output import table
    if not result.rows:
        return "nothing was measured"
    groups = result.groups()
    body = []
    for group in groups:
        for number, race in enumerate(sorted((r for r in result.races if r.group == group.name), key=lambda r: r.ratio or 0)):
            body.append([group.name if not number else "", ("* " if race.rows[0].get("busy") else "") + race.workload, *_ours(race), *_peer(race.best), times(race.ratio),
                         times(race.over(race.torch)), percent(race.fraction), *_memory(race)])
    lines = [_head(result), table(body, ["group", "workload", "convgen µs", "spread", "record", "best peer", "µs", "ratio", "to torch", "roofline", "call", "prepared"]), ""]
    lines += [table([_figures(g) for g in groups], ["group", "rows", "mean", "worst", "below 1", "worst row", ""]), ""]
    return "\n".join([*lines, *_failures(result), *_closing(result)])


def details(result: Result) -> str:
    """Every contestant of every workload."""
    from ..cli.output import table
    lines = []
    for race in result.races:
        lines.append(race.workload + (f"  ({race.rows[0]['layer']})" if race.rows[0].get("layer") else ""))
        ok = sorted((r for r in race.rows if r["ok"]), key=lambda r: r["median_us"])
        body = [["  " + r["contestant"] + ("" if r["counts"] else " (shown only)"), us(r["median_us"]), f"± {us(r['spread_us'])}",
                 f"{r['prepare_s']:.1f}" if "prepare_s" in r else "", "a part of it" if r["error"] is None else f"{r['error']:.1e}"] for r in ok]
        body += [["  " + r["contestant"], "–", "", "", f"{r['kind']}: {r['reason']}"] for r in race.rows if not r["ok"]]
        lines.append(table(body, ["  contestant", "µs", "spread", "prepared in s", "error or reason"]))
    return "\n".join(lines)


def _head(result: Result) -> str:
    first = result.rows[0]
    head = conditions(first)
    if first.get("roofline"):
        copy = first["roofline"]["copy_gbs"]
        head += f"; peak {first['roofline']['gflops']:.0f} GFLOP/s, copy {copy[0][1]:.0f} GB/s in cache, {copy[-1][1]:.0f} from memory"
    return head


def _figures(group) -> list:
    """One line of the table of groups."""
    ratio, workload = group.worst or (None, "")
    remarks = [f"{n} {what}" for n, what in ((group.failed, "failed"), (group.left_out, "left out"), (group.rows - len(group.ratios), "without a peer")) if n]
    return [group.name, group.rows, times(group.mean), times(ratio), percent(group.below_1), workload, ", ".join(remarks)]


def _failures(result: Result) -> list[str]:
    """Contestants without a time, one line per contestant and reason."""
    missing: dict = {}
    for row in result.rows:
        if not row["ok"]:
            missing.setdefault((row["contestant"], row["kind"], row["reason"]), []).append(row["workload"])
    return [f"not timed: {name} ({kind}: {reason}): " + (ids[0] if len(ids) == 1 else f"{len(ids)} workloads") for (name, kind, reason), ids in missing.items()]


def _closing(result: Result) -> list[str]:
    s, lines = result.summary(), []
    if s["geometric_mean"] is not None:
        lines.append(f"geometric mean {s['geometric_mean']:.2f} of {len(result.ratios)} workloads against the best peer"
                     + (f", {s['geometric_mean_torch']:.2f} against PyTorch" if s["geometric_mean_torch"] else "")
                     + "; share faster than p: " + ", ".join(f"{p:g}x {s['fast_p'][str(p)]:.0%}" for p in P))
    for name, net in s["networks"].items():
        if net["layers"] > 1:
            lines.append(f"{name}: {net['layers']} layers one after another, ms: ideal {ms(net['ideal'])}, waterline {ms(net['waterline'])}, convgen {ms(net['convgen'])}, "
                         f"the best peer of each {ms(net['best peers'])}; efficiency {net['ideal'] / net['convgen']:.0%} of at most {net['ideal'] / net['waterline']:.0%}"
                         + (f"; without {net['missing']} layers that have no times" if net["missing"] else ""))
    if fused := result.fused():
        shares, (least, worst) = [part for _, part in fused], (fused[0][1], fused[0][0])
        lines.append(f"fused blocks remove of the best peer's time outside their matrix products: {percent(statistics.median(shares))} in the median of {len(shares)}, at least "
                     f"{percent(least)} ({worst}); {REMOVED:.0%} or more: {percent(share([part >= REMOVED for part in shares]))} of them")
    for o in result.outside():
        rows = ", ".join(f"{workload} {times(ratio)}" for group, workload, ratio, _ in result.apart() if group == o.group)
        lines.append(f"outside the networks: {o.group}: median {times(statistics.median(o.apart))}, {o.distance:+.0%} from that of the others ({times(statistics.median(o.others))})"
                     + ("" if abs(o.distance) <= NEAR else f", beyond {NEAR:.0%}") + f": {rows}")
    if any(race.memory for race in result.races):
        lines.append(f"memory: a call may hold {memory.CALL:g} times its inputs and output, prepared parameters be {memory.PREPARED:g} times as large; exceeded by "
                     + ("; ".join(f"{w} ({', '.join(found)})" for w, found in result.greedy()) or "none"))
    if s["left_out"]:
        lines.append(f"left out, counted as failed: {s['left_out']} of {s['workloads']} workloads")
    if s["busy"]:
        lines.append(f"* something else ran on this machine during {s['busy']} workloads: measure them again")
    return lines + (["interrupted"] if result.interrupted else [])


def _ours(race: Race) -> tuple:
    ours = race.ours
    if ours is None or not ours["ok"]:
        return "failed" if ours else "–", "", ""
    return us(ours["median_us"]), us(ours["spread_us"]), (ours.get("facts") or {}).get("origin", "")


def _peer(row: dict | None) -> tuple:
    return ("none", "") if row is None else (row["contestant"], us(row["median_us"]))


def _memory(race: Race) -> tuple:
    if race.memory is None:
        return "", ""
    prepared = memory.prepared_ratio(race.memory)
    return f"{memory.call_ratio(race.memory):.1f}x", "" if prepared is None else f"{prepared:.1f}x"


def us(value: float) -> str:
    """Microseconds with three digits that mean something."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g}"


def times(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.2f}"


def percent(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.0%}"


def conditions(row: dict) -> str:
    """Machine, threads, caches and date of a row."""
    n = row.get("threads")
    return f"{row.get('cpu', '')}, {'1 thread' if n == 1 else f'{n} threads'}, {'cold' if row.get('cold') else 'warm'} caches, {row.get('date', '')}"
