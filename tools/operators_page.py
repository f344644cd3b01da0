#!/usr/bin/env python
"""Write docs/operators.md from the operator table: tools/operators_page.py. A test fails where page and table differ."""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "operators.md"
VERIFIED = ROOT / "docs" / "measured" / "targets.jsonl"  # by tools/verify_targets.py
RECORDS = ROOT / "tuning_logs"
FAMILIES = {"x86": "x86", "cuda": "CUDA", "arm": "ARM"}
HEAD = """\
# Operators

Written by `tools/operators_page.py` from `convgen/ops/table.py`. Formulas are those of the first shape listed; sizes are letters where the
operator takes any. Every operator also takes, unless it says otherwise, `bias=True`, `bn=True` (a batch norm: scale, shift, mean and variance as [4, O], folded into
the weights when bound where there are any), `residual=True`, an `activation` of {activations}, and `gate=True`, in this order: activation(norm(y + bias) + residual) * gate.
"""


def page() -> str:
    """The page's text."""
    from convgen.lang.epilogue import ACTIVATIONS
    from convgen.ops.table import TABLE
    index = "\n".join(f"- [`{op.name}`](#{op.name}): {op.summary}" for op in TABLE)
    return "\n".join([HEAD.format(activations=", ".join(ACTIVATIONS)), index, "", targets(TABLE), *(section(op) for op in TABLE)])


TARGETS = """\
## Operators and targets

Every operator builds for all families from its one declaration. Per family: how the default kernel was judged by the float64 oracles on small shapes
(worst error as a share of its bound), and how many shapes have records measured on hardware. "Run" means on the processor; "emulated" means that
the target's own code ran without its hardware: the CUDA source that nvcc accepted, compiled by g++, or AArch64 machine code in an emulator. No CUDA or ARM kernel
has run on real hardware yet. Made by `tools/verify_targets.py` ({dates}); [targets.md](targets.md) has the rest.

| operator | {families} |
|---|{rule}|
{rows}
"""


def targets(table) -> str:
    """The table of operators and target families."""
    found = {(row["operator"], row["family"]): row for row in map(json.loads, VERIFIED.read_text().splitlines())}
    lines = [f"| [{op.name}](#{op.name}) | " + " | ".join(judged(op.name, family, found.get((op.name, family))) for family in FAMILIES) + " |" for op in table]
    names = [f"{label} ({', '.join(sorted({row['target'] for row in found.values() if row['family'] == family}))})" for family, label in FAMILIES.items()]
    return TARGETS.format(dates=", ".join(sorted({row["date"] for row in found.values()})), families=" | ".join(names), rule="|".join("---" for _ in FAMILIES), rows="\n".join(lines))


def judged(name: str, family: str, row: dict | None) -> str:
    """One cell."""
    if row is None or not row["ok"]:
        return "not verified" if row is None else f"wrong: {row['reasons'][0]}"
    path = RECORDS / family / f"{name}.jsonl"
    shapes = {json.loads(line)["workload"] for line in path.read_text().splitlines() if line} if path.exists() else set()
    return f"{row['how']}, {row['error']:.2f}; {f'{len(shapes)} measured' if shapes else 'not measured'}"


def section(op) -> str:
    """One operator."""
    lines = [f"## {op.name}", "", op.__doc__, "", "```text", op.formula, "```", ""]
    lines += [f"- Source: {op.citation}", f"- Dimensions: {', '.join(dimension(op, d) for d in op.dims)}"]
    lines += [f"- Tensors: {', '.join(f'{name} ({facts})' for name, facts in tensors(op).items())}"]
    lines += [f"- Attributes: {', '.join(attribute(spec) for name, spec in op.attributes.items() if name not in epilogue(op)) or 'none'}"]
    lines += [] if op.epilogue else ["- Takes no appended bias, batch norm, residual, activation or gate"]
    lines += [f"- Dtypes of input, accumulator and output: {', '.join(op.types)}"] if op.types else []
    lines += [f"- PyTorch formulations to compare with: {', '.join(op.formulations)}", "- Published shapes:"]
    return "\n".join([*lines, *(f"  - `{w.id}`" for w in op.workloads()), ""])


def epilogue(op) -> tuple[str, ...]:
    """Names that the page's head explains for all operators."""
    from convgen.lang.epilogue import TENSORS
    return (*TENSORS, "activation") if op.epilogue else ()


def dimension(op, name: str) -> str:
    return f"{name} (default {op.dim_defaults[name]})" if name in op.dim_defaults else name


def tensors(op) -> dict[str, str]:
    """Tensors of all published shapes: input or parameter, its dimensions, and whether some shape goes without it."""
    shapes = op.workloads()
    seen = [{t["name"]: t for t in w.signature["tensors"]} for w in shapes]
    names = dict.fromkeys(name for found in seen for name in found if name not in epilogue(op))
    first = shapes[0]
    positions = {str(tree): axis.name.upper() for tree, axis in zip(first.signature["output"]["dims"], first.program.stages[-1].axes)}
    kinds = {"input": "input", "param": "parameter"}
    facts = {}
    for name in names:
        t = next(found[name] for found in seen if name in found)
        optional = "" if all(name in found for found in seen) else ", optional"
        dtype = f" {t['dtype']}" if op.types else ""
        facts[name] = f"{kinds[t['kind']]}{dtype} [{', '.join(positions.get(str(d)) or size(d) for d in t['dims'])}]{optional}"
    return facts


def size(tree, inner: bool = False) -> str:
    """A size expression as text."""
    if not isinstance(tree, (list, tuple)):
        return str(tree)
    op, left, right = tree
    if op in ("min", "max"):
        return f"{op}({size(left)}, {size(right)})"
    text = f"{size(left, True)} {op} {size(right, True)}"
    return f"({text})" if inner else text


def attribute(spec: dict) -> str:
    choices = f" of {', '.join(map(str, spec['choices']))}" if "choices" in spec else ""
    return f"{spec['name']}{choices} (default {spec['default']})"


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page())
