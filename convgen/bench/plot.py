"""One picture of a bench: the ratio to the best peer of every workload, sorted within its group, and how far each network is from its waterline."""

from __future__ import annotations

import os

from .report import FAILED_RATIO, Result
from .tables import conditions, us

ROW = 0.15  # inches per line; text of 6 points needs 0.1
_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
_FAST, _SLOW, _FAILED = "tab:green", "tab:red", "0.6"
_MARKS = {"ideal": ("|", "0.4"), "waterline": ("d", "tab:blue"), "best peers": ("s", "tab:orange"), "convgen": ("o", _FAST)}


def draw(result: Result, path: str | os.PathLike) -> None:
    """Write the picture (format by the file's ending; text in an SVG stays text). Raises ModuleNotFoundError without matplotlib."""
    import matplotlib
    from matplotlib.figure import Figure
    lines, networks = _lines(result), result.networks()
    heights = [max(8, len(lines)) * ROW, (len(networks) + 1) * 2 * ROW]
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "convgen"}):
        figure = Figure(figsize=(11, sum(heights) + 1.8), layout="constrained")
        upper, lower = figure.subplots(2, height_ratios=heights)
        _ratios(upper, lines)
        _gaps(lower, networks)
        figure.suptitle(conditions(result.rows[0]) if result.rows else "nothing was measured", fontsize=9)
        figure.savefig(path, dpi=140)


def _lines(result: Result) -> list[tuple]:
    """(kind, label, ratio, remark) per line from the top: a heading for each group, its workloads from the slowest to the fastest."""
    lines = []
    for group in result.groups():
        remark = f"geometric mean {group.mean:.2f} of {len(group.ratios)}, {group.below_1:.0%} below 1" if group.ratios else "no peer"
        lines.append(("group", group.name, group.mean, remark))
        here = [("left out", e["workload"], FAILED_RATIO, "left out") for e in result.left_out if e["group"] == group.name]
        for race in result.races:
            if race.group == group.name and race.ratio is not None:
                label = ("* " if race.rows[0].get("busy") else "") + race.workload.replace(":f32.f32.f32:", " ")
                peer = f"{race.best['contestant']}, {us(race.best['median_us'])} µs"
                here.append(("ok" if race.ours["ok"] else "failed", label, race.ratio, f"{race.ratio:.2f}  {peer}" if race.ours["ok"] else f"failed  {peer}"))
        lines += sorted(here, key=lambda line: line[2])
    return lines


def _ratios(axes, lines) -> None:
    for y, (kind, _, ratio, remark) in enumerate(lines):
        if kind == "group":
            if ratio:
                axes.plot([ratio], [y], marker="D", markersize=4, color="black", zorder=3)
            axes.axhspan(y - 0.5, y + 0.5, color="0.93", zorder=0)
        else:
            color = _FAILED if kind != "ok" else _FAST if ratio >= 1 else _SLOW
            axes.barh(y, abs(ratio - 1), left=min(1, ratio), height=0.7, color=color, zorder=2)
        axes.annotate(remark, (max(ratio or 1, 1), y), fontsize=6, va="center", xytext=(4, 0), textcoords="offset points", weight="bold" if kind == "group" else None)
    axes.axvline(1, color="black", linewidth=0.8, zorder=4)
    axes.set_xscale("log")
    values = [ratio for _, _, ratio, _ in lines if ratio] or [1]
    low, high = min(0.5, *values) / 1.1, max(2, *values) * 5  # room for the remarks
    ticks = [t for t in _TICKS if low <= t <= high]
    axes.set_xlim(low, high)
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.minorticks_off()
    axes.tick_params(axis="x", labelsize=7, top=True, labeltop=True)
    axes.set_yticks(range(len(lines)), [label for _, label, _, _ in lines], fontsize=6)
    for text, (kind, *_) in zip(axes.get_yticklabels(), lines):
        text.set_weight("bold" if kind == "group" else "normal")
    axes.set_xlabel("time of the best peer over convgen's (log): right of 1 convgen is faster; grey counts as 0.5: failed or left out; diamonds are geometric means", fontsize=7)


def _gaps(axes, networks: dict) -> None:
    """Latencies on a log axis: a distance to `ideal` is -log of an efficiency."""
    for y, (name, sums) in enumerate(networks.items()):
        points = {mark: sums[mark] * 1e3 for mark in _MARKS}
        axes.plot([min(points.values()), max(points.values())], [y, y], color="0.8", linewidth=1, zorder=1)
        for mark, (shape, color) in _MARKS.items():
            axes.scatter([points[mark]], [y], marker=shape, color=color, s=30, zorder=2, label=mark if not y else None)
        text = (f"{points['convgen']:.3g} ms, the best peers {sums['best peers'] / sums['convgen']:.2f} times as long; "
                f"efficiency {sums['ideal'] / sums['convgen']:.0%} of at most {sums['ideal'] / sums['waterline']:.0%}")
        text += f"; {sums['missing']} layers missing" if sums["missing"] else ""
        axes.annotate(text, (max(points.values()), y), fontsize=6, va="center", xytext=(8, 0), textcoords="offset points")
    if networks:
        every = [sums[mark] * 1e3 for sums in networks.values() for mark in _MARKS]
        axes.set_xscale("log")
        axes.set_xlim(min(every) / 1.5, max(every) * 6 * max(every) / min(every))  # room for the remarks
        ticks = [digit * 10.0 ** power for power in range(-4, 7) for digit in (1, 2, 5) if min(every) / 1.5 <= digit * 10.0 ** power <= max(every) * 1.5]
        axes.set_xticks(ticks, [f"{t:,g}" for t in ticks])
        axes.minorticks_off()
        axes.legend(fontsize=6, ncols=len(_MARKS), loc="lower right")
    axes.set_yticks(range(len(networks)), [f"{name} ({sums['layers']} layers)" for name, sums in networks.items()], fontsize=7)
    axes.set_ylim(len(networks) + 0.2, -0.6)
    axes.tick_params(axis="x", labelsize=7)
    axes.set_xlabel("all layers of a network one after another, ms (log): ideal = arithmetic alone, waterline = no layer faster than its roofline", fontsize=7)
