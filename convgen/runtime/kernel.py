"""One compiled workload as a callable."""

from __future__ import annotations

from convgen.errors import ArgumentError, LibraryError
from convgen.runtime.bound import Bound
from convgen.runtime.explain import Explanation
from convgen.runtime.library import Library, open_unregistered


class Kernel:
    """A library of one kernel, called with the tensors of its workload alone: `k(x=x, weight=w)`.

    The attributes are the workload's. Tensors in another memory format than the workload's are copied into it, and the result
    has the input's format; `explain` says so. `id` is the workload, `entry` the kernel's record in the manifest.
    """

    def __init__(self, library: Library):
        entries = library._servers.first.choice.variant["kernels"]
        if len(entries) != 1:
            raise LibraryError(f"{library.path} holds {len(entries)} kernels for {library.variant}, and a Kernel is exactly one")
        self.library, self.entry = library, entries[0]
        self._attributes = {n: _tuples(v) for n, v in self.entry["attributes"].items()}
        self._call = getattr(library, self.entry["operator"])

    @classmethod
    def load(cls, path, *, expect_sha256: str | None = None) -> "Kernel":
        """The kernel of the one-kernel library at `path`. Raises LibraryError."""
        return cls(open_unregistered(path, expect_sha256=expect_sha256, convert=True))

    @property
    def id(self) -> str:
        return self.entry["id"]

    def __call__(self, *tensors, out=None, **named):
        """The operator on tensors, by the names of the signature or in its order. Raises as the operators of a library do."""
        if tensors:
            operator = self.library._operator(self.entry["operator"])
            order = [n for n in operator.positional if n in operator.tensors]
            order += [n for n in operator.tensors if n not in order]
            if len(tensors) > len(order):
                raise TypeError(f"{self.entry['operator']} takes the tensors {', '.join(order)}, got {len(tensors)}")
            named = {**dict(zip(order, tensors)), **named}
        if out is not None:
            named["out"] = out
        return self._call(**self._tensors(named), **self._attributes)

    def _tensors(self, named: dict) -> dict:
        fixed = next((n for n in named if n in self._attributes), None)
        if fixed is not None:
            raise ArgumentError(f"{self.entry['operator']}: this kernel is for {fixed} = {self._attributes[fixed]!r}; it takes tensors alone, got {fixed} = {named[fixed]!r}")
        return named

    def bind(self, **parameters) -> Bound:
        """The kernel with its parameters prepared once; see `Bound`."""
        return self.library.bind(self.entry["operator"], **self._tensors(parameters), **self._attributes)

    def explain(self, **tensors) -> Explanation:
        """How these tensors are served."""
        return self.library.explain(self.entry["operator"], **self._tensors(tensors), **self._attributes)

    def __repr__(self) -> str:
        return f"<kernel {self.id} for {self.library.variant}>"


def _tuples(value):
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
