"""`convgen ops` and `convgen show`: what there is, and what it computes."""

from __future__ import annotations

from .output import common, quantity, show, table


def add(verbs) -> None:
    parser = common(verbs.add_parser("ops", help="list the operators"), _ops)
    parser.add_argument("pattern", nargs="?", default="", help="show only names or summaries that contain this")
    parser = common(verbs.add_parser("show", help="an operator: formula, dimensions, attributes, citation; or one workload"), _show)
    parser.add_argument("operator", metavar="OP|ID", help="a name, pkg.mod:op, path/my_ops.py:op, or a workload id")
    parser.add_argument("settings", nargs="*", metavar="DIM=VALUE")


def _ops(options) -> None:
    from .. import references
    found = [(op.name, op.summary) for op in map(references.find, references.names())]
    found = [row for row in found if options.pattern.lower() in " ".join(row).lower()]
    show(options, [{"name": name, "summary": summary} for name, summary in found], table(found))


def _show(options) -> None:
    from .. import api, references
    from . import arguments
    if arguments.is_id(options.operator):
        return _show_workload(options, api.workload(options.operator))
    op = references.find(options.operator)
    if options.settings:
        return _show_workload(options, arguments.workload(op, options.settings))
    published = [w.id for w in op.workloads()]
    facts = {
        "name": op.name, "summary": op.summary, "formula": op.formula, "citation": op.citation,
        "dims": [f"{d}={op.dim_defaults[d]}" if d in op.dim_defaults else d for d in op.dims],
        "attributes": {name: spec["default"] for name, spec in op.attributes.items()},
        "optional": list(op.optional), "baseline": op.baseline is not None, "workloads": published,
    }
    lines = [f"{op.name}: {op.summary}", "", *(f"  {line}" for line in op.formula.splitlines()), ""]
    lines += [f"dimensions  {' '.join(facts['dims'])}", f"attributes  {', '.join(f'{n}={v}' for n, v in facts['attributes'].items()) or 'none'}"]
    lines += [f"optional    {', '.join(op.optional)}"] if op.optional else []
    lines += [f"citation    {op.citation or 'none'}", f"baseline    {'PyTorch' if op.baseline else 'none'}"]
    lines += ["", "published shapes:", *(f"  {w}" for w in published)] if published else []
    show(options, facts, "\n".join(lines))


def _show_workload(options, w) -> None:
    tensors = [*w.program.tensors, w.program.output]
    facts = {
        "id": w.id, "operator": w.operator, "formula": w.signature["formula"], "flops": w.flops, "bytes": w.bytes,
        "tensors": [{"name": t.name, "kind": t.kind, "shape": list(t.shape), "dtype": t.dtype} for t in tensors],
    }
    rows = [(t.name, t.kind, "x".join(map(str, t.shape)), t.dtype) for t in tensors]
    text = [w.id, "", *(f"  {line}" for line in facts["formula"].splitlines()), "", table(rows, ("tensor", "kind", "shape", "dtype")), ""]
    text += [f"work {quantity(w.flops, 'FLOP')}, least traffic {quantity(w.bytes, 'B')}, {w.flops / max(w.bytes, 1):.3g} FLOP/B"]
    show(options, facts, "\n".join(text))
