"""Is a kernel right? Compiled code is treated as untrusted: no candidate may win before it passed here.

E  small integers, exact: every indexing and guard error shows as a difference, at zero tolerance
F  realistic floats against a float64 reference, error bounded by what rounding explains (catches lowered precision)
N  relative L2 error, for algorithms that are more than a reordered sum (Winograd, FFT)
G  guards: outputs pre-filled with a pattern that means NaN, canaries around every buffer, inputs unchanged, and a second run
   on other stale memory bitwise equal to the first
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from .cases import NORM_BOUND, Case, CaseBook, accumulator, float_bound
from .kernel import NativeKernel
from .storage import from_raw, is_float, to_raw


@dataclass
class Verdict:
    """`ratio` is the worst error over its bound (0 for an exact pass); `reason` says what failed, None when nothing did.

    `oracles` are the letters that were applied, G included.
    """

    ok: bool
    ratio: float
    reason: str | None
    oracles: str
    seeds: tuple[int, ...] = (0,)

    def to_json(self) -> dict:
        """Plain values for the worker's answer."""
        return asdict(self)


def oracles_of(entry: dict, program) -> str:
    """Letters that apply to a kernel: its own `oracle` if the algorithm states one, else E (where exact) and F."""
    letters = entry.get("oracle", "EF")
    if "E" in letters and not getattr(program, "exact", False):
        letters = letters.replace("E", "")
    if not is_float(program.output.dtype):  # integers have no rounding to bound
        letters = "".join(c for c in letters if c == "E") or "E"
    return letters or "F"


def verify(kernel: NativeKernel, book: CaseBook, thorough: bool) -> Verdict:
    """Check one kernel. Quick: its first oracle on one seed, one run. Thorough: every oracle and the guards."""
    letters = oracles_of(kernel.entry, book.program)
    plan = [(letter, seed) for letter in letters for seed in book.seeds(letter)] if thorough else [(letters[0], 0)]
    seeds = tuple(sorted({seed for _, seed in plan}))
    worst, used = 0.0, ""
    for letter, seed in plan:
        case = book.get(letter, seed)
        run = Run(kernel, book.program, case)
        reason = run.first()
        used += "" if letter in used else letter
        if reason is None:
            ratio, reason = compare(run.result(), case, letter, book.program)
            worst = max(worst, ratio)
        if reason is None and thorough:
            reason = run.second()
        if reason is not None:
            return Verdict(False, worst, f"oracle {letter}, seed {seed}: {reason}", used + "G", seeds)
    return Verdict(True, worst, None, used + "G", seeds)


def compare(result: np.ndarray, case: Case, letter: str, program) -> tuple[float, str | None]:
    """(error over bound, reason of failure or None) of a logical result."""
    expected = case.expected
    if is_float(program.output.dtype) and not np.isfinite(result).all():
        where = np.unravel_index(int(np.argmin(np.isfinite(result))), result.shape)
        if np.isfinite(expected).all():
            return float("inf"), f"output{_index(where)} is {result[where]}: not written or not finite"
    if letter == "E":
        wrong = result != expected
        if wrong.any():
            return float("inf"), _difference(result, expected, np.abs(result - expected), int(wrong.sum()))
        return 0.0, None
    error = np.abs(result - expected)
    if letter == "N":
        size = float(np.linalg.norm(expected))
        ratio = float(np.linalg.norm(error)) / max(size, 1e-30) / NORM_BOUND[program.output.dtype]
        return ratio, None if ratio <= 1 else f"relative L2 error is {ratio:.3g} times its bound; " + _difference(result, expected, error)
    bound = float_bound(case, accumulator(program), program.output.dtype)
    ratios = np.where(error == 0, 0.0, error / np.maximum(bound, 1e-300))
    ratio = float(ratios.max()) if ratios.size else 0.0
    return ratio, None if ratio <= 1 else f"error is {ratio:.3g} times its bound; " + _difference(result, expected, ratios, int((ratios > 1).sum()))


def _index(where) -> str:
    return "[" + ",".join(str(int(i)) for i in where) + "]"


def _difference(result, expected, score, count: int | None = None) -> str:
    where = np.unravel_index(int(np.argmax(score)), score.shape)
    many = f"{count} of {result.size} elements differ, " if count else ""
    return f"{many}worst at output{_index(where)}: expected {expected[where]:.8g}, got {result[where]:.8g}"


class Run:
    """One kernel on one case: prepare, call, look at every byte it was not to touch."""

    def __init__(self, kernel: NativeKernel, program, case: Case):
        self.kernel, self.case = kernel, case
        self.arguments = kernel.entry["args"]
        prepare = kernel.entry.get("prepare")
        self.prepare_arguments = prepare["args"] if prepare else []
        self.buffers = kernel.buffers(self.prepare_arguments)
        self.buffers |= kernel.buffers(self.arguments, self.buffers)
        self.output = next(a for a in self.arguments if a["kind"] == "output")
        self.output_shape = program.output.shape
        self.sources = {a["name"]: a for a in [*self.prepare_arguments, *self.arguments] if a["kind"] in ("input", "param")}
        self.produced = [a["name"] for a in self.prepare_arguments if a["kind"] == "packed"]
        for argument in self.sources.values():
            fill(self.buffers[argument["name"]].array, argument, case.tensors)

    def first(self) -> str | None:
        """Prepare and run once over NaN-filled outputs; the reason of a guard failure or None."""
        return self._once(stale=0xFF, canary=0xA5)

    def second(self) -> str | None:
        """Again over other stale memory and other surroundings: nothing of either may show in the result."""
        before = self.buffers[self.output["name"]].bytes.copy()
        reason = self._once(stale=0x3C, canary=0xFF)
        if reason:
            return reason
        differ = np.flatnonzero(before != self.buffers[self.output["name"]].bytes)
        return f"a second run differs in {differ.size} bytes of the output, first at byte {differ[0]}" if differ.size else None

    def _once(self, stale: int, canary: int) -> str | None:
        written = [self.output["name"], *self.produced, *(a["name"] for a in self.arguments if a["kind"] == "workspace")]
        for buffer in self.buffers.values():
            buffer.set_canary(canary)
        for name in written:
            self.buffers[name].bytes[:] = stale
        inputs = {name: self.buffers[name].bytes.copy() for name in self.sources}
        prepare = self.kernel.preparer(self.buffers)
        if prepare:
            prepare()
        packed = {name: self.buffers[name].bytes.copy() for name in self.produced}
        self.kernel.caller(self.buffers)()
        for name, buffer in self.buffers.items():
            where = buffer.damaged()
            if where:
                return f"memory {where} {name} was overwritten"
        for name, before in {**inputs, **packed}.items():
            if not np.array_equal(before, self.buffers[name].bytes):
                return f"{name} was changed by the kernel"
        return None

    def result(self) -> np.ndarray:
        """The output in logical order as numbers."""
        raw = self.buffers[self.output["name"]].array
        permutation = self.output.get("perm")
        logical = raw.transpose(np.argsort(permutation)) if permutation else raw
        return from_raw(np.ascontiguousarray(logical), self.output["dtype"]).reshape(self.output_shape)


def fill(target: np.ndarray, argument: dict, tensors: dict[str, np.ndarray]) -> None:
    """Write a logical tensor's values into an argument's physical memory."""
    logical = np.asarray(tensors[argument["name"]])
    permutation = argument.get("perm")
    target[...] = to_raw(logical.transpose(permutation) if permutation else logical, argument["dtype"]).reshape(target.shape)

