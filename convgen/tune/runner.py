"""The measuring worker, `python -m convgen.tune.runner`: loads linked candidates, verifies and times them; no compiler inside.

The commands answer plain JSON; `measure.LocalRunner` is the parent's side, which enforces the time limit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import WorkerError
from ..workers.child import import_without_torch, serve
from . import timing
from .cases import CaseBook
from .kernel import NativeKernel, open_shim
from .roofline import fastest_possible_us
from .verify import fill, oracles_of, verify

_books: dict[tuple[str, str | None], CaseBook] = {}


def book_of(description: dict, folder: str | None) -> CaseBook:
    """The cases of a workload; those of a few workloads are kept."""
    key = (description["id"], folder)
    if key not in _books:
        if len(_books) >= 4:  # references of large workloads are large; the run's folder still has them
            _books.clear()
        _books[key] = CaseBook(load_program(description), folder)
    return _books[key]


def load_program(description: dict):
    """The program with its oracle methods, from a description."""
    from ..lang.program import Program

    return Program.from_json(description)


def warm(description: dict, folder: str | None = None, shim: str | None = None) -> dict:
    """Make the references ahead of the candidates, so that a candidate's time limit counts only the candidate."""
    open_shim(shim)
    return references(description, folder)


def references(description: dict, folder: str | None = None) -> dict:
    """Make every case of a workload; {"elements": size of its output}."""
    book = book_of(description, folder)
    for letter in ("E", "F") if getattr(book.program, "exact", False) else ("F",):
        for seed in book.seeds(letter):
            book.get(letter, seed)
    return {"elements": int(np.prod(book.program.output.shape))}


def check(path: str, entry: dict, description: dict, folder: str | None = None, shim: str | None = None,
          thorough: bool = True) -> dict:
    """Verdict of the oracles as a dict; never raises for a wrong kernel."""
    book = book_of(description, folder)
    return verify(NativeKernel(path, entry, description["dims"], shim), book, thorough).to_json()


def measure(path: str, entry: dict, description: dict, target: dict, folder: str | None = None, shim: str | None = None,
            budget: float = 0.1, hopeless_us: float | None = None, cold: bool = False) -> dict:
    """Quick oracle, then time. Returns {"verdict": ..., "time": timing.measure(...)}; raises WorkerError("wrong")."""
    book = book_of(description, folder)
    kernel = NativeKernel(path, entry, description["dims"], shim)
    verdict = verify(kernel, book, thorough=False)
    if not verdict.ok:
        raise WorkerError("wrong", verdict.reason)
    call = _ready(kernel, book)
    hopeless = hopeless_us * 1e-6 if hopeless_us else None
    taken = timing.measure(call, budget, hopeless, _flusher(target) if cold else None)
    refuse_impossible(taken["median_us"], entry, book.program, target)
    return {"verdict": verdict.to_json(), "time": taken}


def race(candidates: list[dict], description: dict, target: dict, folder: str | None = None, shim: str | None = None,
         rounds: int = 16, budget: float = 1.0) -> dict[str, list[list[float]]]:
    """Re-measure kernels in interleaved rounds: {"median": ..., "least": ...}, microseconds per candidate and round (see `timing.in_turns`)."""
    book = book_of(description, folder)
    calls = [_ready(NativeKernel(c["path"], c["entry"], description["dims"], shim), book) for c in candidates]
    rows = timing.race_of(calls, [timing.sample] * len(calls), budget, rounds)
    for candidate, row in zip(candidates, rows["median"]):
        refuse_impossible(timing.quartiles(row)[1], candidate["entry"], book.program, target)
    return rows


def refuse_impossible(median_us: float, entry: dict, program, target: dict) -> None:
    """Raise WorkerError("wrong") for a time that no machine of the target's kind can reach."""
    letter = oracles_of(entry, program)[0]
    floor = fastest_possible_us(getattr(program, "flops", 0), getattr(program, "bytes", 0), target, letter)
    if median_us < floor:
        raise WorkerError("wrong", f"{median_us:.3g} µs is faster than this machine can be ({floor:.3g} µs)")


def _ready(kernel: NativeKernel, book: CaseBook):
    """A call on fixed inputs with the parameters prepared once, outside the timing."""
    return kernel.caller(prepared(kernel, book))


def prepared(kernel, book: CaseBook) -> dict:
    """Buffers of a kernel with fixed inputs, its parameters prepared."""
    case = book.get(oracles_of(kernel.entry, book.program)[0], 0)  # the quick oracle's inputs: their reference exists already
    prepare = kernel.entry.get("prepare")
    buffers = kernel.buffers(prepare["args"] if prepare else [])
    buffers |= kernel.buffers(kernel.entry["args"], buffers)
    for argument in [*(prepare["args"] if prepare else []), *kernel.entry["args"]]:
        if argument["kind"] in ("input", "param"):
            fill(buffers[argument["name"]].array, argument, case.tensors)
        else:
            buffers[argument["name"]].bytes[:] = 0  # maps the pages
    prepare_once = kernel.preparer(buffers)
    if prepare_once:
        prepare_once()
    return buffers


def _flusher(target: dict):
    """Evicts the caches by writing three times the last level's size."""
    junk = np.zeros(3 * int(target.get("l3") or 32 << 20) // 8, np.float64)

    def flush() -> None:
        np.add(junk, 1.0, out=junk)

    return flush


COMMANDS: dict[str, Any] = {"warm": warm, "check": check, "measure": measure, "race": race}


def main() -> None:
    """Serve until the parent closes the pipe."""
    import_without_torch("tvm_ffi")
    serve(COMMANDS, default_kind="crash")


if __name__ == "__main__":
    main()
