"""From the arguments of a call to dimensions, canonical attributes and the output's shape, as the signatures in a manifest say.

An operator has one signature per structural variant (which tensors it takes, which dtypes, which facts it was specialised on).
Everything here works on int and on torch.SymInt, so the fake implementations of the torch registration use it too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping, Sequence

from convgen.errors import ArgumentError, NoKernel
from convgen.runtime.attributes import canonical, symbol_values
from convgen.runtime.sizes import evaluate, solve, symbols, text


@dataclass(frozen=True)
class Resolved:
    """A call that fits a signature: `dims` and `attributes` in canonical form, the output's logical shape."""

    signature: dict
    dims: dict
    attributes: dict
    output_shape: tuple

    @property
    def operator(self) -> str:
        return self.signature["operator"]

    @property
    def symbols(self) -> dict:
        """Everything a size expression of this call may name."""
        return {**self.dims, **_attribute_symbols(self.signature, self.attributes)}


def _attribute_symbols(signature: dict, attributes: Mapping[str, Any]) -> dict:
    values: dict = {}
    for spec in signature["attributes"]:
        values.update(symbol_values(spec, attributes[spec["name"]]))
    return values


class Operator:
    """All signatures of one operator, and the call syntax they share."""

    def __init__(self, name: str, signatures: Sequence[dict]):
        self.name = name
        self.signatures = list(signatures)
        self.tensors: dict[str, dict] = {}
        self.attributes: dict[str, dict] = {}
        for signature in self.signatures:
            for tensor in signature["tensors"]:
                self.tensors.setdefault(tensor["name"], tensor)
            for attribute in signature["attributes"]:
                self.attributes.setdefault(attribute["name"], attribute)
        order = [name for signature in self.signatures for name in signature.get("positional", [])]
        self.positional = tuple(dict.fromkeys(order))
        # A positional name that is no attribute is a tensor that no variant in this library takes; only None fits it.
        self.absent = tuple(n for n in self.positional if n not in self.tensors and n not in self.attributes)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Tensors that change from call to call, positional ones first."""
        return self._kind("input")

    @property
    def parameters(self) -> tuple[str, ...]:
        """Tensors that are constant at inference, positional ones first."""
        return self._kind("param")

    def _kind(self, kind: str) -> tuple[str, ...]:
        names = [n for n in self.tensors if self.tensors[n]["kind"] == kind]
        return tuple(sorted(names, key=lambda n: self.positional.index(n) if n in self.positional else len(self.positional)))

    def required(self, tensor: str) -> bool:
        """Whether every variant takes this tensor."""
        return all(any(t["name"] == tensor for t in s["tensors"]) for s in self.signatures)

    def arguments(self, args: Sequence, kwargs: Mapping[str, Any]) -> tuple[dict, dict]:
        """({tensor: object}, {attribute: value as given}) of a call. None means not given. Raises ArgumentError."""
        if len(args) > len(self.positional):
            raise ArgumentError(f"{self.name} takes at most {len(self.positional)} positional arguments "
                                f"({', '.join(self.positional)}), got {len(args)}")
        given = dict(zip(self.positional, args))
        for name, value in kwargs.items():
            if name in given:
                raise ArgumentError(f"{self.name}: {name} was given twice, by position and by name")
            if name not in self.tensors and name not in self.attributes and name not in self.absent:
                known = ", ".join([*self.tensors, *self.attributes])
                raise ArgumentError(f"{self.name} has no argument {name!r}; it takes {known}")
            given[name] = value
        tensors = {n: v for n, v in given.items() if n not in self.attributes and v is not None}
        return tensors, {n: v for n, v in given.items() if n in self.attributes}

    def resolve(self, tensors: Mapping[str, tuple[Sequence, str]], attributes: Mapping[str, Any]) -> Resolved:
        """The variant that a call fits, from {tensor: (shape, dtype)} and attributes as given.

        Raises ArgumentError when no call of this operator looks like that, NoKernel when the library lacks the variant.
        """
        problems = []
        for signature in self._with_tensors(tensors):
            try:
                return _resolve(signature, tensors, attributes)
            except (ArgumentError, NoKernel) as problem:
                # Without its traceback, which would keep the callers' tensors alive until the next garbage collection.
                problems.append((_severity(problem), problem.with_traceback(None)))
        told = [p for _, p in problems if isinstance(p, _DtypeError)]
        if len(told) == len(problems) > 1:
            raise _DtypeError("; or ".join(dict.fromkeys(map(str, told))))
        # The variant that got furthest has the most telling complaint.
        raise max(problems, key=lambda p: p[0])[1]

    def _with_tensors(self, tensors: Mapping[str, Any]) -> list[dict]:
        found = [s for s in self.signatures if {t["name"] for t in s["tensors"]} == set(tensors)]
        if found:
            return found
        for name in self.tensors:
            if self.required(name) and name not in tensors:
                raise ArgumentError(f"{self.name}: the tensor {name} is required, got None or nothing")
        variants = "; ".join(", ".join(t["name"] for t in s["tensors"]) for s in self.signatures)
        raise NoKernel(f"{self.name}: the library holds no variant with the tensors {', '.join(tensors)}; it holds {variants}")

    def canonical_attributes(self, attributes: Mapping[str, Any]) -> dict:
        """All attributes in canonical form, as a kernel entry is compared by."""
        return {n: canonical(self.name, s, _listed(attributes.get(n, s.get("default")))) for n, s in self.attributes.items()}


class _DtypeError(ArgumentError):
    pass


class _Specialised(NoKernel):
    pass


def _severity(problem: Exception) -> int:
    return {_DtypeError: 0, _Specialised: 2}.get(type(problem), 1)


def _listed(value):
    """Tuples for the lists that JSON made of them."""
    return tuple(_listed(v) for v in value) if isinstance(value, (list, tuple)) else value


def _resolve(signature: dict, tensors, attributes) -> Resolved:
    operator = signature["operator"]
    specs = {spec["name"]: spec for spec in signature["attributes"]}
    for name in attributes:
        if name not in specs:
            raise _Specialised(f"{operator}: this variant of the library has no attribute {name}")
    for tensor in signature["tensors"]:
        given = tensors[tensor["name"]][1]
        if given != tensor["dtype"]:
            raise _DtypeError(f"{operator}: {tensor['name']} must have dtype {tensor['dtype']}, got {given}")
    values: dict = {}
    window = None
    canonical_values = {}
    # Attributes other than 'same' padding need no dimension, and compound dimensions may name them (C // groups).
    for name, spec in specs.items():
        value = _listed(attributes.get(name, spec.get("default")))
        if value != "same":
            canonical_values[name] = canonical(operator, spec, value)
            values.update(symbol_values(spec, canonical_values[name]))
    facts = {test[1]: test[2] for test in signature.get("when", []) if test[0] == "==" and isinstance(test[1], str) and isinstance(test[2], int)}
    dims = _unify(signature, tensors, values, facts)
    for symbol, size in facts.items():
        if symbol not in values:
            dims.setdefault(symbol, size)  # a size that the variant is made for, and that no tensor shows by name
    values.update(dims)
    for name, spec in specs.items():
        if name not in canonical_values:
            window = _same_window(signature, name, values)
            canonical_values[name] = canonical(operator, spec, "same", window)
            values.update(symbol_values(spec, canonical_values[name]))
    for test in signature.get("when", []):
        if not evaluate(test, values):
            raise _Specialised(f"{operator}: the library holds this operator only for {text(test)}")
    for check in signature.get("checks", []):
        if not evaluate(check["test"], values):
            raise ArgumentError(f"{operator}: {check['message']}")
    shape = tuple(evaluate(tree, values) for tree in signature["output"]["dims"])
    for axis, size in enumerate(shape):
        if isinstance(size, int) and size < 1:
            why = "an input is empty" if any(0 in tensors[t["name"]][0] for t in signature["tensors"]) else "the input is too small for the window"
            raise ArgumentError(f"{operator}: dimension {axis} of the output would be {size}; {why}")
    return Resolved(signature, dims, {name: canonical_values[name] for name in specs}, shape)


def _same_window(signature: dict, name: str, values: Mapping) -> list | None:
    strides = [v for key, v in values.items() if key.startswith("stride.")]
    if any(s != 1 for s in strides):
        raise ArgumentError(f"{signature['operator']}: {name}='same' needs stride 1, got {tuple(strides)}")
    trees = signature.get("pad_window", {}).get(name)
    return None if trees is None else [evaluate(tree, values) for tree in trees]


def _unify(signature: dict, tensors, values: Mapping, facts: Mapping) -> dict:
    """Dimensions by name. A bare name binds at its first tensor; every other occurrence has to agree.

    A plain number that is one of the `facts` a variant was specialised on makes another size a matter of the library."""
    operator, dims, later, source = signature["operator"], {}, [], {}
    for tensor in signature["tensors"]:
        name, wanted = tensor["name"], tensor["dims"]
        shape = tensors[name][0]
        if len(shape) != len(wanted):
            raise ArgumentError(f"{operator}: {name} must have {len(wanted)} dimensions [{', '.join(text(d) for d in wanted)}], "
                                f"got {len(shape)} {_plain(shape)}")
        for axis, (tree, size) in enumerate(zip(wanted, shape)):
            if isinstance(tree, str) and tree not in dims:
                dims[tree], source[tree] = size, name
            else:
                later.append((name, axis, tree, size))
    known = {**values, **dims}
    for name, axis, tree, size in later:  # a size such as C*M or O//groups may be the only place that M or O appears
        solution = solve(tree, size, known)
        if solution:
            dims[solution[0]] = known[solution[0]] = solution[1]
    for name, axis, tree, size in later:
        unknown = symbols(tree) - known.keys()
        if unknown:
            raise ArgumentError(f"{operator}: dimension {axis} of {name} is {text(tree)} = {size}, and no {' and '.join(sorted(unknown))} fits")
        expected = evaluate(tree, known)
        if expected != size:
            origin = f" (from {source[tree]})" if isinstance(tree, str) and tree in source else ""
            if isinstance(tree, int) and tree in facts.values():
                raise _Specialised(f"{operator}: the library holds this operator only with dimension {axis} of {name} = {tree}, got {size}")
            left = "" if isinstance(tree, int) else f"{text(tree)} = "
            raise ArgumentError(f"{operator}: dimension {axis} of {name} must be {left}{expected}{origin}, got {size}")
    return dims


def _plain(shape) -> str:
    return "(" + ", ".join(str(s) for s in shape) + ")"
