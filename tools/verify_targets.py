#!/usr/bin/env python
"""Judge every operator's default kernel on every family of targets: tools/verify_targets.py [OPERATOR ...].

Writes docs/measured/targets.jsonl, from which tools/operators_page.py makes the table of operators and targets. A kernel runs where this
machine can run it and is emulated where not; CUDA kernels must pass nvcc as well. Rows of operators not named are kept.
"""

from __future__ import annotations

import datetime
import json
import platform
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "docs" / "measured" / "targets.jsonl"
TARGETS = ("native", "cuda:sm_90", "arm:neoverse-n1")
SHAPES = 4


def rows(operators, target: str):
    """One row per operator: how its small shapes (see convgen.shapes) were judged and what came out."""
    from convgen import checking, shapes

    kernels = checking.Kernels(target)
    facts = {"family": kernels.target["family"], "target": kernels.target["fingerprint"], "how": kernels.how,
             "date": datetime.date.today().isoformat(), "machine": platform.machine()}
    try:
        for op in operators:
            workloads = [shapes.small(op, seed) for seed in range(SHAPES)]
            verdicts = [kernels.verdict(w) for w in workloads]
            yield {"operator": op.name, **facts, "ok": all(v.ok for v in verdicts), "oracles": sorted({v.oracles for v in verdicts}),
                   "error": max(v.error for v in verdicts), "reasons": [v.reason for v in verdicts if not v.ok], "workloads": [w.id for w in workloads]}
    finally:
        kernels.close()


def read() -> list[dict]:
    """The committed rows."""
    return [json.loads(line) for line in DATA.read_text().splitlines()] if DATA.exists() else []


def main(names) -> int:
    """Exit status 0 if every kernel was right."""
    from convgen.ops.table import TABLE

    chosen = [op for op in TABLE if not names or op.name in names]
    known = {op.name: i for i, op in enumerate(TABLE)}
    new = []
    for target in TARGETS:
        for row in rows(chosen, target):
            new.append(row)
            print(f"{row['operator']} on {target}: {'right' if row['ok'] else row['reasons'][0]} ({row['how']})", flush=True)
    replaced = {(row["operator"], row["family"]) for row in new}
    kept = [row for row in read() if (row["operator"], row["family"]) not in replaced and row["operator"] in known]
    families = {family: i for i, family in enumerate(dict.fromkeys(row["family"] for row in [*new, *kept]))}
    DATA.write_text("".join(json.dumps(row) + "\n" for row in sorted([*kept, *new], key=lambda row: (known[row["operator"]], families[row["family"]]))))
    return 0 if all(row["ok"] for row in new) else 1


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main(sys.argv[1:]))
