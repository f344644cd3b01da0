"""Which kernel serves a call: predicates over dimensions, exact before general, and an error that names what is nearest."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Sequence

from convgen.errors import LibraryError, NoKernel
from convgen.runtime.layout import CHANNELS_FIRST, FORMATS
from convgen.runtime.signature import Operator, Resolved


def fits(predicate: Any, size: int) -> bool:
    """Whether a dimension satisfies a predicate: an int (equal), or {"min", "max", "multiple"}, each optional."""
    if isinstance(predicate, dict):
        return (predicate.get("min", 0) <= size and size <= predicate.get("max", size) and size % predicate.get("multiple", 1) == 0)
    return predicate == size


@dataclass(frozen=True)
class Kernel:
    """A kernel entry, with its attributes in canonical form for comparison."""

    entry: dict
    attributes: dict
    general: frozenset  # dimensions that it takes at run time

    @property
    def how(self) -> str:
        return "exact" if not self.general else "any batch" if self.general == {"N"} else "any shape"


class Table:
    """The kernels of one variant of a library, by operator."""

    def __init__(self, operators: dict[str, Operator], entries: Sequence[dict]):
        self._kernels: dict[str, list[Kernel]] = {name: [] for name in operators}
        for entry in entries:
            operator = operators.get(entry["operator"])
            if operator is None:
                raise LibraryError(f"the kernel {entry['id']} belongs to the operator {entry['operator']}, "
                                   "which the manifest does not describe")
            general = frozenset(d for d, p in entry["dims"].items() if not isinstance(p, int))
            self._kernels[entry["operator"]].append(Kernel(entry, operator.canonical_attributes(entry["attributes"]), general))
        # A library that holds an operator in one format only serves tensors that are both formats in that one.
        self.offered = {
            name: tuple(f for f in FORMATS if f in {_layout(k) for k in kernels}) or FORMATS for name, kernels in self._kernels.items()
        }

    def all(self, operator: str) -> list[Kernel]:
        return self._kernels.get(operator, [])

    def find(self, call: Resolved, layouts: Sequence[str], threads: int) -> Kernel:
        """The kernel for a call whose tensors may be read in any of `layouts`, the first preferred. Raises NoKernel."""
        for layout in layouts:
            found = [k for k in self.all(call.operator) if matches(k, call, layout)]
            if found:
                return min(found, key=lambda k: (len(k.general), abs((k.entry.get("threads") or threads) - threads), k.entry["symbol"]))
        raise NoKernel(self._nearest(call, layouts))

    def _nearest(self, call: Resolved, layouts: Sequence[str]) -> str:
        def differences(kernel: Kernel) -> list[str]:
            entry = kernel.entry
            other = {d: p for d, p in entry["dims"].items() if d in call.dims and not fits(p, call.dims[d])}
            found = [f"{d}={p if isinstance(p, int) else _range(p)}" for d, p in other.items()]
            found += [f"{n}={v}" for n, v in kernel.attributes.items() if n in call.attributes and v != call.attributes[n]]
            if _layout(kernel) not in layouts:
                found.append(_layout(kernel))
            if not _same_tensors(entry, call):
                found.append("/".join(dict.fromkeys(entry["dtypes"].values())) + " " + ",".join(entry["dtypes"]))
            return found

        ranked = sorted(((differences(k), k.entry["id"]) for k in self.all(call.operator)), key=lambda item: (len(item[0]), item[1]))
        nearest = "; ".join(f"{name} (differs in {', '.join(what)})" for what, name in ranked[:3]) or "none at all"
        return f"{call.operator}: no kernel for {describe(call)} {' or '.join(layouts)}; nearest: {nearest}"


def _layout(kernel: Kernel) -> str:
    return kernel.entry.get("layout") or CHANNELS_FIRST


def _range(predicate: dict) -> str:
    """What a predicate demands, for a size that does not fit."""
    return " ".join(f"{word} {predicate[key]}" for key, word in (("min", "from"), ("max", "up to"), ("multiple", "in multiples of")) if key in predicate)


def _same_tensors(entry: dict, call: Resolved) -> bool:
    dtypes = {t["name"]: t["dtype"] for t in call.signature["tensors"]}
    return entry["dtypes"] == dtypes and entry["output_dtype"] == call.signature["output"]["dtype"]


def matches(kernel: Kernel, call: Resolved, layout: str) -> bool:
    """Whether a kernel computes exactly this call on tensors of this memory format."""
    entry = kernel.entry
    return (_layout(kernel) == layout and _same_tensors(entry, call)
            and all(d in call.dims and fits(p, call.dims[d]) for d, p in entry["dims"].items())
            and all(kernel.attributes.get(n) == v for n, v in call.attributes.items()))


def describe(call: Resolved) -> str:
    """A call's dimensions, attributes that are not the default, and dtypes."""
    defaults = {s["name"]: s.get("default") for s in call.signature["attributes"]}
    parts = [",".join(f"{d}={s}" for d, s in call.dims.items())]
    operator = Operator(call.operator, [call.signature])
    plain = operator.canonical_attributes(defaults)
    parts += [f"{n}={v}" for n, v in call.attributes.items() if v != plain[n]]
    parts.append("/".join(Counter(t["dtype"] for t in call.signature["tensors"])))
    return " ".join(parts)
