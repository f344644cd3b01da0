"""One picture of a bench: the ratio to the best peer per workload, and how far the whole sequence is from its waterline."""

from __future__ import annotations

import os

from .report import Result, threads

_TICKS = (0.1, 0.25, 0.5, 1, 1.5, 2, 3, 5, 10, 20, 50)


def draw(result: Result, path: str | os.PathLike) -> None:
    """Write the picture (format by the file's ending). Raises ModuleNotFoundError without matplotlib."""
    from matplotlib.figure import Figure
    races = [race for race in result.races if race.ratio is not None]
    network = result.network()
    figure = Figure(figsize=(11, 1.8 + 0.28 * len(races) + (2.2 if network else 0)), layout="constrained")
    axes = figure.subplots(2 if network else 1, height_ratios=[max(1.5, 0.28 * len(races)), 1.6] if network else None, squeeze=False)[:, 0]
    _ratios(axes[0], races)
    if network:
        _gap(axes[1], network)
    first = result.rows[0] if result.rows else {}
    figure.suptitle(f"{first.get('cpu', '')}, {threads(first)}, {'cold' if first.get('cold') else 'warm'} caches, {first.get('date', '')}", fontsize=9)
    figure.savefig(path, dpi=140)


def _ratios(axes, races) -> None:
    for y, race in enumerate(races):
        axes.plot([1, race.ratio], [y, y], color="0.7", linewidth=1, zorder=1)
        marker = "x" if not race.ours["ok"] else "o"
        axes.scatter([race.ratio], [y], marker=marker, color="tab:green" if race.ratio >= 1 else "tab:red", zorder=2)
        axes.annotate(f" {race.best['contestant']}", (max(race.ratio, 1), y), fontsize=6, va="center", xytext=(4, 0), textcoords="offset points")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    values = [r.ratio for r in races] or [1]
    low, high = min(0.5, *values) / 1.1, max(2, *values) * 4
    ticks = [t for t in _TICKS if low <= t <= high]
    axes.set_xlim(low, high)
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.minorticks_off()
    axes.set_yticks(range(len(races)), [("* " if r.rows[0].get("busy") else "") + r.workload for r in races], fontsize=6)
    axes.invert_yaxis()
    axes.set_xlabel("time of the best peer over convgen's (log); right of 1 convgen is faster", fontsize=8)


def _gap(axes, network: dict) -> None:
    """Latencies on a log axis: the distance to `ideal` is -log of the efficiency."""
    from matplotlib.ticker import LogLocator
    names = ("ideal", "waterline", "convgen", "best peers")
    for y, name in enumerate(names):
        milliseconds = network[name] * 1e3
        axes.barh(y, milliseconds, color={"convgen": "tab:green", "best peers": "tab:orange"}.get(name, "0.8"))
        axes.annotate(f" {milliseconds:.3g} ms, efficiency {network['ideal'] / network[name]:.0%}", (milliseconds, y), va="center", fontsize=7)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.set_xlim(network["ideal"] * 1e3 / 2, max(network[n] for n in names) * 1e3 * 4)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel(f"{network['layers']} layers one after another, ms (log): efficiency gap and waterline", fontsize=8)
