"""How long does a call take: warm-up, repeats adapted to the kernel, median and spread."""

from __future__ import annotations

import statistics
import time
from typing import Callable

SAMPLE_SECONDS = 2e-4  # a sample holds as many calls as fill this, so that the clock's own cost vanishes
SPREAD_GOAL = 0.02  # stop once the interquartile range is this fraction of the median
MIN_SAMPLES, MAX_SAMPLES = 7, 200
SINGLES = 5  # calls after which a candidate may be called hopeless
FEWEST_ROUNDS = 4  # of a race, however busy the machine is


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """(lower quartile, median, upper quartile)."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def sample(call: Callable[[], None], calls: int, before: Callable[[], None] | None = None) -> float:
    """Seconds per call over `calls` calls back to back; `before` runs untimed ahead of them."""
    if before:
        before()
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls


def calls_of(seconds: float) -> int:
    """How many calls of so many seconds a sample holds."""
    return max(1, min(1000, round(SAMPLE_SECONDS / max(seconds, 1e-9))))


def measure(call: Callable[[], None], budget: float, hopeless: float | None = None, before: Callable[[], None] | None = None,
            take: Callable = sample) -> dict:
    """Time a call for about `budget` seconds. `take(call, calls, before)` says how long a call takes, by another clock than this machine's if need be.

    Returns {"median_us", "spread_us" (interquartile range), "min_us", "repeats" (calls timed)}. A call that takes longer than
    `hopeless` seconds each of five times is not timed any further: it cannot win. With `before` (cold cache) every sample is one call.
    """
    singles = [take(call, 1, before) for _ in range(2)]
    while hopeless is not None and min(singles) > hopeless and len(singles) < SINGLES:
        singles.append(take(call, 1, before))  # perhaps something else was running just then
    estimate = min(singles)
    if hopeless is not None and estimate > hopeless:
        return summary(singles[1:], len(singles) - 1)
    warm_until = time.perf_counter() + min(0.02, budget / 5)
    while time.perf_counter() < warm_until:
        estimate = min(estimate, take(call, 1, before))
    calls = 1 if before else calls_of(estimate)
    times, end = [], time.perf_counter() + budget
    disturbed = False
    while len(times) < MIN_SAMPLES or (time.perf_counter() < end and len(times) < MAX_SAMPLES):
        times.append(take(call, calls, before))
        now = time.perf_counter()
        if now > end + budget and MIN_SAMPLES * calls * min(estimate, *times) > budget:
            break  # seven samples of a slow kernel would take longer than it deserves; one that was held up is not slow
        if now >= end and not disturbed and len(times) >= MIN_SAMPLES and quartiles(times)[2] > 1.3 * quartiles(times)[0]:
            disturbed, end = True, end + budget  # something else ran on this machine: look longer, once
        if len(times) >= 2 * MIN_SAMPLES:
            low, middle, high = quartiles(times)
            if high - low <= SPREAD_GOAL * middle:
                break
    return summary(times, calls * len(times))


def round_of(call: Callable[[], None], calls: int, seconds: float, take: Callable = sample) -> tuple[float, float]:
    """(median, least) seconds per call in one round of a race: samples of `calls` calls that fill `seconds`."""
    times, end = [], time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        times.append(take(call, calls))
    return quartiles(times)[1], min(times)


def in_turns(contestants: list[Callable[[], tuple[float, float]]], budget: float, rounds: int) -> dict[str, list[list[float]]]:
    """Interleaved rounds of a race: {"median", "least"}, microseconds per contestant and round. A contestant runs one round and gives (median, least) in seconds.

    Interleaving lets drift of the machine hit all alike; the order of a round rotates so that none always follows another.
    """
    end = time.perf_counter() + 1.5 * budget
    rows = {"median": [[] for _ in contestants], "least": [[] for _ in contestants]}
    for turn in range(rounds):
        if turn >= FEWEST_ROUNDS and time.perf_counter() > end:
            break  # a busy machine makes every round long
        for step in range(len(contestants)):
            index = (turn + step) % len(contestants)
            for name, seconds in zip(("median", "least"), contestants[index]()):
                rows[name][index].append(seconds * 1e6)
    return rows


def race_of(calls: list[Callable[[], None]], takes: list[Callable], budget: float, rounds: int) -> dict[str, list[list[float]]]:
    """`in_turns` for calls, each timed by its own `take` (see `measure`)."""
    chunks = [calls_of(min(take(call, 1, None) for _ in range(3))) for call, take in zip(calls, takes)]
    share = budget / max(1, len(calls)) / rounds

    def contestant(call, take, chunk):
        def turn() -> tuple[float, float]:
            take(call, 1, None)  # brings its own data back into the caches
            return round_of(call, chunk, share, take)
        return turn

    return in_turns([contestant(*c) for c in zip(calls, takes, chunks)], budget, rounds)


def summary(seconds: list[float], repeats: int) -> dict:
    """The figures that records keep, in microseconds."""
    low, middle, high = quartiles(seconds)
    return {"median_us": middle * 1e6, "spread_us": (high - low) * 1e6, "min_us": min(seconds) * 1e6, "repeats": repeats}
