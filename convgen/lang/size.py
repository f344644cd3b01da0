"""Traced integers: a size expression together with its value in one workload.

A declaration runs once per workload. Every dimension and integer attribute is a `Size`, so the same run yields concrete
stages to compile and symbolic shapes to ship. Where the declaration's Python needs a plain number (a loop bound, a table
look-up, a comparison) the fact it used is recorded as a guard, and the resulting signature holds for that fact only.
"""

from __future__ import annotations

from ..runtime import sizes


class Size:
    """An integer known by name and by value. Arithmetic keeps both; `int()` and comparisons record a guard."""

    __slots__ = ("tree", "value", "guards")

    def __init__(self, tree, value: int, guards: list):
        self.tree, self.value, self.guards = tree, value, guards

    def _binary(self, op: str, other, swapped=False):
        if not hasattr(other, "__index__") or isinstance(other, bool):
            return NotImplemented
        a, b = (other, self) if swapped else (self, other)
        return combine(op, a, b, self.guards)

    def _compare(self, op: str, other):
        if isinstance(other, Size):
            tree, value = other.tree, other.value
        elif isinstance(other, (int, float)):
            tree, value = other, other
        else:
            return NotImplemented
        holds = sizes.evaluate([op, self.value, value], {})
        fact = [op, self.tree, tree] if holds else [_NEGATED[op], self.tree, tree]
        if sizes.symbols(fact) and fact not in self.guards:
            self.guards.append(fact)
        return holds

    def __add__(self, o): return self._binary("+", o)
    def __radd__(self, o): return self._binary("+", o, True)
    def __sub__(self, o): return self._binary("-", o)
    def __rsub__(self, o): return self._binary("-", o, True)
    def __mul__(self, o): return self._binary("*", o)
    def __rmul__(self, o): return self._binary("*", o, True)
    def __floordiv__(self, o): return self._binary("//", o)
    def __rfloordiv__(self, o): return self._binary("//", o, True)
    def __mod__(self, o): return self._binary("%", o)
    def __rmod__(self, o): return self._binary("%", o, True)
    def __neg__(self): return self._binary("-", 0, True)

    def __eq__(self, o): return self._compare("==", o)
    def __ne__(self, o): return self._compare("!=", o)
    def __lt__(self, o): return self._compare("<", o)
    def __le__(self, o): return self._compare("<=", o)
    def __gt__(self, o): return self._compare(">", o)
    def __ge__(self, o): return self._compare(">=", o)

    def __index__(self):
        self._compare("==", self.value)
        return self.value

    __int__ = __index__

    def __bool__(self):
        return self._compare("!=", 0)

    def __hash__(self):
        raise TypeError("a traced size cannot be hashed; use int(size), which records the value as a guard")

    def __repr__(self):
        return f"{sizes.text(self.tree)}={self.value}"


_NEGATED = {"==": "!=", "!=": "==", "<": ">=", "<=": ">", ">": "<=", ">=": "<"}


def _fold(op, a, b):
    """Constant folding and unit laws, so that descriptions hash alike however they were written."""
    if isinstance(a, int) and isinstance(b, int):
        return sizes.evaluate([op, a, b], {})
    if op in "+-" and b == 0 or op in ("*", "//") and b == 1:
        return a
    if op == "+" and a == 0 or op == "*" and a == 1:
        return b
    return [op, a, b]


def combine(op: str, a, b, guards: list) -> Size:
    """The size `a op b`, kept symbolic. Also for "min" and "max", which Python's own would decide and record as a guard."""
    return Size(_fold(op, tree_of(a), tree_of(b)), sizes.evaluate([op, value_of(a), value_of(b)], {}), guards)


def value_of(size) -> int:
    """The concrete value, without recording a guard."""
    return size.value if isinstance(size, Size) else int(size)


def tree_of(size):
    return size.tree if isinstance(size, Size) else int(size)
