"""How fast tuning gets near its end, and what its model is worth: tools/tuning_study.py -o DATA.jsonl [--plot FILE.png].

Each workload of a suite is tuned once for --seconds with the model, records kept in --logs, and once more in random order from an empty store for the
same number of trials (at most --trials). Both curves of the best time so far are written, one JSON line per run; `--read` only draws them.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from datetime import datetime, timezone
from pathlib import Path

SUITES = Path(__file__).resolve().parent.parent / "convgen" / "bench" / "suites"


def best_at(curve, seconds=None, trials=None):
    """Best time so far (µs) after some seconds or trials, or None if nothing was measured by then."""
    seen = [us for s, t, us in curve if (seconds is None or s <= seconds) and (trials is None or t <= trials)]
    return min(seen) if seen else None


def run(workload, seconds, trials, strategy, logs):
    """One tuning run as a JSON-able row."""
    import convgen
    from convgen.tune import tune
    found = tune([workload], seconds=seconds, trials=trials, logs=logs, strategy=strategy, retune=True).rows[0]
    return {"workload": workload.id, "strategy": strategy, "seconds": seconds, "trials": found.trials, "us": found.us, "spread_us": found.spread,
            "default_ratio": found.default_ratio, "baseline_ratio": found.baseline_ratio, "failures": found.failures, "curve": found.curve, "note": found.note,
            "target": convgen.targets.resolve("native").fingerprint, "machine": platform.machine(), "convgen": convgen.__version__,
            "date": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")}


def summary(rows) -> str:
    """Per workload: the best time at 30 s against the end, and model against chance at equal trials."""
    lines = []
    for row in (r for r in rows if r["strategy"] == "model"):
        end, early = best_at(row["curve"]), best_at(row["curve"], seconds=30)
        text = f"{row['workload']}: {end:.1f} µs after {row['seconds']:g} s and {row['trials']} trials"
        text += f", {early:.1f} µs after 30 s ({early / end:.3f})" if early else ", nothing after 30 s"
        other = next((r for r in rows if r["strategy"] == "random" and r["workload"] == row["workload"]), None)
        if other:
            same = best_at(row["curve"], trials=other["trials"])
            text += f"; at {other['trials']} trials model {same:.1f} µs, random order {best_at(other['curve']):.1f} µs"
        lines.append(text)
    return "\n".join(lines)


def draw(rows, path):
    """Best time so far over trials, relative to the best of all runs of the workload, one panel each."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot
    names = list(dict.fromkeys(r["workload"] for r in rows))
    columns = 3
    figure, axes = pyplot.subplots(-(-len(names) // columns), columns, figsize=(14, 3.4 * -(-len(names) // columns)), squeeze=False)
    for axis, name in zip(axes.flat, names):
        own = [r for r in rows if r["workload"] == name]
        floor = min(best_at(r["curve"]) for r in own)
        for r in own:
            points = [(t, us / floor) for _, t, us in r["curve"]]
            axis.step(*zip(*points), where="post", label=r["strategy"])
        axis.set_title(name.split(":f32")[0], fontsize=8)
        axis.set(xscale="log", xlabel="trials", ylabel="best so far / best")
        axis.legend(fontsize=8)
    for axis in list(axes.flat)[len(names):]:
        axis.remove()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suite", default="spine")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--trials", type=int, default=60, help="trials of the random order")
    parser.add_argument("--logs", default="tuning_logs")
    parser.add_argument("--only", type=int, nargs="*", help="rows of the suite, from 0")
    parser.add_argument("-o", "--output", required=True)
    parser.add_argument("--plot")
    parser.add_argument("--read", action="store_true")
    options = parser.parse_args()
    output = Path(options.output)
    if not options.read:
        import convgen
        lines = [l.split("#")[0].strip() for l in (SUITES / f"{options.suite}.txt").read_text().splitlines()]
        workloads = [convgen.workload(l) for l in lines if l]
        for number, w in enumerate(workloads):
            if options.only is not None and number not in options.only:
                continue
            rows = [run(w, options.seconds, None, "model", options.logs)]
            with tempfile.TemporaryDirectory() as empty:
                rows.append(run(w, None, min(options.trials, rows[0]["trials"]), "random", empty))
            with output.open("a") as out:
                out.writelines(json.dumps(r) + "\n" for r in rows)
            print(summary(rows), flush=True)
    rows = [json.loads(l) for l in output.read_text().splitlines()]
    print(summary(rows))
    if options.plot:
        draw(rows, options.plot)


if __name__ == "__main__":
    main()
