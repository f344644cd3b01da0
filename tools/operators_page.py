#!/usr/bin/env python
"""Write docs/operators.md from the operator table: tools/operators_page.py. A test fails where page and table differ."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "operators.md"
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
    return "\n".join([HEAD.format(activations=", ".join(ACTIVATIONS)), index, "", *(section(op) for op in TABLE)])


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
