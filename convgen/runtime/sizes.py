"""Size expressions: small JSON trees over named integers, with one evaluator for int and torch.SymInt.

A tree is an int, a symbol name, or `[op, a, b]`. Libraries store output shapes, checks and dispatch guards in this form, so
serving needs neither the description nor any `eval`.
"""

from __future__ import annotations

import operator
from typing import Any, Mapping

_BINARY = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "//": operator.floordiv, "%": operator.mod,
    "==": operator.eq, "!=": operator.ne, "<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt,
}


def _minimum(a, b):
    return a if a <= b else b


def _maximum(a, b):
    return a if a >= b else b


_BINARY["min"] = _minimum
_BINARY["max"] = _maximum


def evaluate(tree: Any, values: Mapping[str, Any]):
    """Value of a size tree or test under `values` (symbol → int, SymInt, or str/bool for tests).

    Raises KeyError for an unbound symbol, ValueError for a malformed tree.
    """
    if isinstance(tree, str):
        return values[tree]
    if isinstance(tree, list):
        if tree and tree[0] == "and":
            return all(evaluate(t, values) for t in tree[1:])
        if tree and tree[0] == "const":
            return tree[1]  # a literal string in a test, for example a padding mode
        if len(tree) != 3 or tree[0] not in _BINARY:
            raise ValueError(f"malformed size expression {tree!r}")
        return _BINARY[tree[0]](evaluate(tree[1], values), evaluate(tree[2], values))
    return tree


def symbols(tree: Any) -> set[str]:
    """Names that a tree depends on."""
    if isinstance(tree, str):
        return {tree}
    if isinstance(tree, list) and tree and tree[0] != "const":
        return set().union(*(symbols(t) for t in tree[1:]))
    return set()


def text(tree: Any) -> str:
    """The tree in ordinary notation, for messages and formulas."""
    if isinstance(tree, list):
        if tree[0] == "const":
            return repr(tree[1])
        if tree[0] in ("min", "max"):
            return f"{tree[0]}({text(tree[1])}, {text(tree[2])})"
        if tree[0] == "and":
            return " and ".join(text(t) for t in tree[1:])
        return f"({text(tree[1])} {tree[0]} {text(tree[2])})"
    return str(tree)


def solve(tree: Any, result: int, values: Mapping[str, Any]):
    """The one unbound symbol of `tree` and its value such that the tree equals `result`, else None.

    Inverts sums, differences and products exactly, and `a // b` as an exact division; a tree with no, or several, unbound symbols gives None.
    """
    if isinstance(tree, str):
        return (tree, result) if tree not in values else None
    if not isinstance(tree, list) or len(tree) != 3:
        return None
    op, a, b = tree
    unknown_left = any(s not in values for s in symbols(a))
    if unknown_left and any(s not in values for s in symbols(b)):
        return None
    known = evaluate(b if unknown_left else a, values)
    if op == "+":
        return solve(a if unknown_left else b, result - known, values)
    if op == "-":
        return solve(a, result + known, values) if unknown_left else solve(b, known - result, values)
    if op == "*" and known != 0 and result % known == 0:
        return solve(a if unknown_left else b, result // known, values)
    if op == "//":
        if unknown_left:
            return solve(a, result * known, values)
        return solve(b, known // result, values) if result and known % result == 0 else None
    return None
