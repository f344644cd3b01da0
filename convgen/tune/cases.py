"""Test cases of a workload: inputs with a float64 reference, made once per workload and kept in the run's folder.

Oracle letters: E exact integers, F condition-aware float bound, N norm bound (for algorithms that reorder more than a sum).
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..files import replaced
from .storage import EXACT_UP_TO, ROUNDOFF, is_float, rounded


DENSE = 0.5  # share of nonzero integers above which one seed meets every tap many times


@dataclass
class Case:
    """Inputs (logical arrays of values that survive storage), and what the kernel must answer.

    `magnitude` is the sum of absolute terms behind each output element, `terms` how many are accumulated (F only).
    """

    letter: str
    seed: int
    tensors: dict[str, np.ndarray]
    expected: np.ndarray
    magnitude: np.ndarray | None = None
    terms: int = 1


@dataclass
class CaseBook:
    """All cases of one workload. `folder` (optional) keeps references across restarts of the measuring process."""

    program: object  # convgen.lang.program.Program or anything with its oracle methods
    folder: str | None = None
    _known: dict[tuple, Case] = field(default_factory=dict)

    def get(self, letter: str, seed: int) -> Case:
        """The case for an oracle letter and a seed; N shares F's inputs."""
        letter = "F" if letter == "N" else letter
        key = (letter, seed)
        if key not in self._known:
            stored = self._read(key)
            self._known[key] = stored or self._write(key, self._make(letter, seed))
        return self._known[key]

    def seeds(self, letter: str) -> tuple[int, ...]:
        """Seeds of a thorough check: one, but several where exactness forces so many zeros that one draw may hide a tap."""
        if letter != "E":
            return (0,)
        density = min((np.count_nonzero(t) / t.size for t in self.get("E", 0).tensors.values() if t.size), default=1.0)
        return (0,) if density >= DENSE else (0, 1, 2)

    def _make(self, letter: str, seed: int) -> Case:
        program = self.program
        dtypes = {t.name: t.dtype for t in program.tensors}
        if letter == "E":
            tensors, expected = self._integers(seed)
            return Case("E", seed, tensors, expected)
        values = self._given() or program.sample(seed)
        tensors = {name: rounded(values[name], dtypes[name]) for name in dtypes}
        expected, magnitude, terms = program.reference_with_bound(tensors)
        return Case("F", seed, tensors, np.asarray(expected), np.asarray(magnitude), int(terms))

    def _integers(self, seed: int):
        """Integers whose every partial sum is exact in the accumulator and the output; drawn smaller while a result is too large."""
        program = self.program
        limit = min(EXACT_UP_TO[d] for d in (accumulator(program), program.output.dtype))
        ask = limit
        for _ in range(8):
            values = program.sample_integers(seed, ask)
            tensors = {t.name: rounded(values[t.name], t.dtype) for t in program.tensors}
            for t in program.tensors:
                if not np.array_equal(tensors[t.name], values[t.name]):
                    raise ValueError(f"integer sample of {t.name} does not survive {t.dtype}")
            expected = np.asarray(program.reference(tensors))
            if not expected.size or np.abs(expected).max() <= limit:
                return tensors, expected
            ask = max(1, ask // 4)
        raise ValueError(f"no integer sample keeps the result of {program.id} below {limit}")

    def _given(self) -> dict | None:
        """Inputs that the operator's own generator made (offsets, indices), put into the folder by the parent."""
        path = given_path(self.folder, self.program.id) if self.folder else None
        if path is None or not path.exists():
            return None
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}

    # -- disk -----------------------------------------------------------------------------------------------------------------

    def _path(self, key) -> Path | None:
        if self.folder is None:
            return None
        text = json.dumps([self.program.id, getattr(self.program, "hash", ""), *key])
        return Path(self.folder) / f"case-{hashlib.sha256(text.encode()).hexdigest()[:24]}.npz"

    def _read(self, key) -> Case | None:
        path = self._path(key)
        if path is None or not path.exists():
            return None
        with np.load(path, allow_pickle=False) as stored:
            tensors = {name[2:]: stored[name] for name in stored.files if name.startswith("t.")}
            magnitude = stored["magnitude"] if "magnitude" in stored.files else None
            return Case(*key, tensors, stored["expected"], magnitude, int(stored["terms"]))

    def _write(self, key, case: Case) -> Case:
        path = self._path(key)
        if path is not None:
            arrays = {f"t.{name}": array for name, array in case.tensors.items()}
            if case.magnitude is not None:
                arrays["magnitude"] = case.magnitude
            with suppress(OSError), replaced(path) as file:  # a full disk costs the next process a recomputation
                np.savez(file, expected=case.expected, terms=case.terms, **arrays)
        return case


def given_path(folder: str, workload_id: str) -> Path:
    """File of inputs that the operator's own generator made for a workload."""
    return Path(folder) / f"given-{hashlib.sha256(workload_id.encode()).hexdigest()[:24]}.npz"


def accumulator(program) -> str:
    """Dtype in which sums are kept."""
    return getattr(program, "acc_dtype", None) or ("float32" if is_float(program.output.dtype) else "int32")


def float_bound(case: Case, acc_dtype: str, out_dtype: str) -> np.ndarray:
    """Largest error that rounding alone explains: c·min(n, 4√n)·u_acc·S + u_out·|y| with c = 2, per output element.

    Accumulating n terms errs by at most n·u·S and in practice by about √n·u·S; 4√n leaves room for the tail.
    """
    growth = min(case.terms, 4.0 * np.sqrt(case.terms))
    tiny = 1e-37 if out_dtype in ("float32", "bfloat16") else 6e-8 if out_dtype == "float16" else 0.0
    u_acc, u_out = ROUNDOFF.get(acc_dtype, 0.0), ROUNDOFF.get(out_dtype, 0.0)
    return 2.0 * growth * u_acc * case.magnitude + u_out * np.abs(case.expected) + tiny


# Relative L2 error allowed where the algorithm is more than a reordered sum, per output dtype (oneDNN's numbers for Winograd).
NORM_BOUND = {"float64": 2e-13, "float32": 2e-5, "float16": 7e-3, "bfloat16": 6e-2}
