"""The process that talks to servers, `python -m convgen.remote.client`: the only one that holds TVM's RPC client.

Its commands answer plain JSON. References are made here, outside any session; a session holds a server for one candidate,
so that TVM's tracker shares the servers out, and a candidate that crashes or hangs costs one session.
"""

from __future__ import annotations

import time
from typing import Callable

from ..errors import WorkerError
from ..tune import timing
from ..tune.runner import book_of, prepared, references, refuse_impossible
from ..tune.verify import verify
from ..workers.child import import_without_torch, serve

MOST_SAMPLES = 20  # of one contestant in one round of a race


def warm(description: dict, folder: str) -> dict:
    """Make the references; {"elements": size of the output}."""
    return references(description, folder)


def registered(tracker: dict) -> list[tuple[str, str]]:
    """(address, key) of every server that the tracker knows."""
    from .session import TrackerLink

    link = TrackerLink(tracker["host"], tracker["port"])
    try:
        return link.registered()
    finally:
        link.close()


def check(tracker: dict, target: dict, seconds: float, wait: float, emulated: bool, path: str, entry: dict, description: dict, folder: str) -> dict:
    """Verdict of every oracle and the guards as a dict."""
    from .session import session

    book = book_of(description, folder)
    with session(tracker, target, seconds, wait, emulated) as opened:
        return verify(opened.load(path, entry, description["dims"]), book, thorough=True).to_json()


def measure(tracker: dict, target: dict, seconds: float, wait: float, emulated: bool, path: str, entry: dict, description: dict, folder: str,
            budget: float, hopeless_us: float | None) -> dict:
    """Quick oracle, then time: {"verdict", "time" (as timing.measure), "facts", "server"}; raises WorkerError("wrong")."""
    from .session import session

    book = book_of(description, folder)
    with session(tracker, target, seconds, wait, emulated) as opened:
        return {"facts": opened.facts, "server": opened.address} | _measure(opened, target, path, entry, description, book, budget, hopeless_us)


def _measure(opened, target, path, entry, description, book, budget, hopeless_us) -> dict:
    kernel = opened.load(path, entry, description["dims"])
    verdict = verify(kernel, book, thorough=False)
    if not verdict.ok:
        raise WorkerError("wrong", verdict.reason)
    taken = timed(_evaluator(kernel, book), budget, hopeless_us * 1e-6 if hopeless_us else None)
    refuse_impossible(taken["median_us"], entry, book.program, target)
    return {"verdict": verdict.to_json(), "time": taken}


def race(tracker: dict, target: dict, seconds: float, wait: float, emulated: bool, candidates: list[dict], description: dict, folder: str,
         rounds: int, budget: float) -> dict[str, list[list[float]]]:
    """Interleaved rounds on one server, as `tune.runner.race`."""
    from .session import session

    book = book_of(description, folder)
    with session(tracker, target, seconds, wait, emulated) as opened:
        evaluators = [_evaluator(opened.load(c["path"], c["entry"], description["dims"]), book) for c in candidates]
        once = [max(min(evaluate(1, 3)), 1e-9) for evaluate in evaluators]
        share = budget / max(1, len(once)) / rounds

        def contestant(evaluate, seconds):
            calls = timing.calls_of(seconds)
            samples = max(1, min(MOST_SAMPLES, int(share / (seconds * calls))))

            def turn() -> tuple[float, float]:
                times = evaluate(calls, samples)
                return timing.quartiles(times)[1], min(times)
            return turn

        rows = timing.in_turns([contestant(*c) for c in zip(evaluators, once)], budget, rounds)
    for candidate, row in zip(candidates, rows["median"]):
        refuse_impossible(timing.quartiles(row)[1], candidate["entry"], book.program, target)
    return rows


def survey(tracker: dict, target: dict, seconds: float, wait: float, path: str, entry: dict, description: dict, folder: str) -> list[dict]:
    """One kernel on every server of the key: [{"server", "facts", "us" or None, "error" or None, "seconds"}].

    Sessions are held until all are open, so that the tracker hands out each server once.
    """
    from .session import Session

    book, opened, rows = book_of(description, folder), [], []
    why = ""
    listed, end = [address for address, key in registered(tracker) if key == tracker["key"]], time.monotonic() + wait
    for _ in listed:
        try:
            opened.append(Session(tracker, seconds + wait, max(0.5, end - time.monotonic())))
        except WorkerError as failure:
            why = str(failure)
            break
    for one in opened:
        begun, us, error = time.monotonic(), None, None
        try:
            one.prepare(target, True)
            us = _measure(one, target, path, entry, description, book, 0.05, None)["time"]["median_us"]
        except WorkerError as failure:
            error = str(failure)
        except Exception as failure:  # tvm raises many types for one thing
            error = str(one.failure(failure))
        rows.append({"server": one.address, "facts": one.facts, "us": us, "error": error, "seconds": round(time.monotonic() - begun, 3)})
    for one in opened:
        one.close()
    missed = [address for address in listed if address not in {row["server"] for row in rows}]
    return rows + [{"server": address, "facts": {}, "us": None, "error": f"no session within {wait:.0f} s: {why}", "seconds": None}
                   for address in missed]


def _evaluator(kernel, book) -> Callable[[int, int], list[float]]:
    """A function (calls, samples) → seconds per call of each sample, timed by the server; every use begins with an untimed call."""
    arguments = kernel.settle(prepared(kernel, book))

    def evaluate(calls: int, samples: int) -> list[float]:
        return [float(t) for t in kernel.module.time_evaluator(kernel.entry["symbol"], kernel.device, number=calls, repeat=samples)(*arguments).results]

    return evaluate


def timed(evaluate: Callable[[int, int], list[float]], budget: float, hopeless: float | None) -> dict:
    """As `timing.measure`, with samples taken in few requests: what goes over the network stands between samples, not in them."""
    singles = evaluate(1, 2)
    if hopeless is not None and min(singles) > hopeless:
        singles += evaluate(1, timing.SINGLES - 2)  # perhaps something else was running just then
        if min(singles) > hopeless:
            return timing.summary(singles[1:], len(singles) - 1)
    estimate = max(min(singles + evaluate(1, 3)), 1e-9)
    calls = max(1, min(1000, round(timing.SAMPLE_SECONDS / estimate)))
    fewest = max(1, min(timing.MIN_SAMPLES, int(2 * budget / (calls * estimate))))
    count = max(fewest, min(timing.MAX_SAMPLES, int(budget / (calls * estimate))))
    times = evaluate(calls, count)
    low, _, high = timing.quartiles(times)
    if high > 1.3 * low:
        times += evaluate(calls, count)  # something else ran on that machine: look longer, once
    return timing.summary(times, calls * len(times))


COMMANDS = {"warm": warm, "registered": registered, "check": check, "measure": measure, "race": race, "survey": survey}


def main() -> None:
    """Serve until the parent closes the pipe."""
    import_without_torch("tvm.rpc")
    serve(COMMANDS, default_kind="crash")


if __name__ == "__main__":
    main()
