"""Whether a call shows every size: it gives tensors and attributes, and nothing else tells a kernel from its neighbours."""

from __future__ import annotations

from ..runtime.attributes import symbol_values
from ..runtime.sizes import solve


def hidden_size(program) -> str | None:
    """The first dim that neither a tensor nor an attribute shows, so that no call of a library could state it; else None."""
    known = {}
    for spec in program.signature["attributes"]:
        known |= symbol_values(spec, program.attributes[spec["name"]])
    shown = [(tree, size) for t in program.tensors for tree, size in zip(t.trees, t.shape)]
    numbers = {tree for tree, _ in shown if isinstance(tree, int)}
    for test in program.when:
        if test[0] == "==" and isinstance(test[1], str) and isinstance(test[2], int) and test[2] in numbers:
            known[test[1]] = test[2]  # the declaration is specialised on this size, and a tensor has it as a number
    known |= {tree: size for tree, size in shown if isinstance(tree, str)}
    for tree, size in shown:
        found = solve(tree, size, known)
        if found:
            known[found[0]] = found[1]
    return next((d for d in program.dims if d not in known), None)
