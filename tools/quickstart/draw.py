"""The quickstart's results as a table and as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np

HEAD = ("layer", "error", "convgen", "best PyTorch", "ratio", "of roofline", "which PyTorch")
BUSY = "something else ran on this machine during the race: measure again before you trust these times"


def busy(races: list) -> bool:
    """Whether foreign work disturbed any of the races."""
    return any(row.get("busy") for race in races for row in race.rows)


def table(served: list[dict], races: list) -> str:
    """Aligned text. served: rows of `serve.py` (error is a relative L2 distance); races: the bench's, one per row, in the same order."""
    lines = [HEAD]
    for row, race in zip(served, races):
        ours, best = race.ours, race.torch
        us, fraction = f"{ours['median_us']:,.0f} us" if ours["ok"] else "failed", race.fraction
        lines.append((row["title"], f"{row['error']:.1e}", us, f"{best['median_us']:,.0f} us" if best else "n/a",
                      f"{race.over(best):.2f}x" if best and ours["ok"] else "n/a", "n/a" if fraction is None else f"{fraction:.0%}",
                      best["contestant"] if best else "n/a"))
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
    left = (0, len(HEAD) - 1)
    return "\n".join("  ".join(cell.ljust(w) if i in left else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths))).rstrip() for line in lines)


def picture(path: Path, image: np.ndarray, served: list[dict], races: list, maps: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """Write a PNG: the photograph; per layer one map before and after; and below the times of everyone who computed it.

    image [H, W, 3]; served, races: as in `table`; maps: (input, output) [C, H, W] per layer.
    """
    from matplotlib.figure import Figure
    figure = Figure(figsize=(4.6 * len(races) + 2.5, 7), layout="constrained")
    grid = figure.add_gridspec(2, 4 * len(races) + 2, height_ratios=(1, 1.2))
    _show(figure.add_subplot(grid[0, :2]), image, "photograph")
    for i, (row, race, (before, after)) in enumerate(zip(served, races, maps)):
        place, channel = 2 + 4 * i, telling(after)
        _show(figure.add_subplot(grid[0, place:place + 2]), before[channel], f"{row['title']}: input map {channel}")
        _show(figure.add_subplot(grid[0, place + 2:place + 4]), after[channel], f"output map {channel}")
        _bars(figure.add_subplot(grid[1, place:place + 4]), race)
    facts = races[0].rows[0]
    figure.suptitle(f"{facts['cpu']}, {facts['threads']} threads, {facts['date']}; medians of interleaved rounds" + (f"\n{BUSY}" if busy(races) else ""), fontsize=9)
    figure.savefig(path, dpi=110)


def telling(maps: np.ndarray) -> int:
    """The channel [C, H, W] with most contrast all over: the largest deviation in units of its range."""
    return int(np.argmax(maps.std((1, 2)) / (np.ptp(maps, (1, 2)) + 1e-12)))


def _show(axes, values, title):
    axes.imshow(values, cmap="gray" if values.ndim == 2 else None)
    axes.set_title(title, fontsize=9)
    axes.set_axis_off()


def _bars(axes, race):
    ours, floor = race.ours, race.rows[0]["roofline_us"]
    bars = [("roofline", floor, "0.85")] if floor else []
    bars += [("convgen", ours["median_us"], "orange")] if ours["ok"] else []
    bars += [(peer["contestant"], peer["median_us"], "lightsteelblue") for peer in race.peers]
    axes.barh(range(len(bars)), [us for _, us, _ in bars], color=[colour for *_, colour in bars])
    low, high = min(us for _, us, _ in bars) / 2, max(us for _, us, _ in bars) * 1.2
    for y, (name, us, _) in enumerate(bars):
        axes.text(low, y, f" {name}: {us:,.0f}", va="center", fontsize=7)
    axes.set_yticks([])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.set_xlabel("µs per call (log)", fontsize=8)
    if ours["ok"] and race.torch:
        axes.set_title(f"{race.over(race.torch):.2f}x the best PyTorch formulation", fontsize=9)
