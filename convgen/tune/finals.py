"""The end of tuning a workload: the fastest race the default, and the winner is recorded.

The fastest wins unless it cannot be told from someone simpler, or holds far more memory than someone hardly slower; only what passed every oracle may race.
"""

from __future__ import annotations

import logging
from typing import Sequence

from ..errors import WorkerError
from ..lang.count import CALL
from .lines import Trial, measured_line
from .records import choice_key
from .result import Row
from .task import KEPT, Task
from .timing import quartiles

log = logging.getLogger("convgen")

CLEAR = 1.005  # a median ratio below this is no difference
HARDLY = 1.02  # how much slower may be what holds less memory
MOST = 0.75  # a real difference shows in at least this share of the paired rounds


def pick(rows: Sequence[Sequence[float]]) -> int:
    """Index of the winner among contestants in order of simplicity (the default first).

    `rows` holds times per contestant and round. The fastest median wins; a contestant that stands before it takes its place
    when the paired rounds do not clearly favour the fastest.
    """
    medians = [quartiles(list(row))[1] for row in rows]
    fastest = min(range(len(rows)), key=lambda i: (medians[i], i))
    for index in range(fastest):
        if not clearly_faster(rows[fastest], rows[index]):
            return index
    return fastest


def frugal(winner: int, rows: Sequence[Sequence[float]], ratios: Sequence[float]) -> int:
    """The winner, or where it holds too much memory the fastest of those that do not and are hardly slower. `ratios`: what calls hold over their inputs and output."""
    medians = [quartiles(list(row))[1] for row in rows]
    modest = [i for i, ratio in enumerate(ratios) if ratio <= CALL and medians[i] <= HARDLY * medians[winner]]
    return winner if ratios[winner] <= CALL or not modest else min(modest, key=lambda i: medians[i])


def clearly_faster(first: Sequence[float], second: Sequence[float]) -> bool:
    """True if `first` beats `second` in most paired rounds, by more than noise in the median."""
    ratios = [b / a for a, b in zip(first, second)]
    wins = sum(r > 1.0 for r in ratios)
    return wins >= MOST * len(ratios) and quartiles(ratios)[1] > CLEAR


def settle(task: Task, budget: float) -> Row:
    """Race the fastest verified candidates against the default for `budget` seconds and record the winner."""
    contestants = _contestants(task)
    if not contestants:
        return task.summary()
    winner, ratio, rounds = _race(task, contestants, budget)
    record = {**measured_line(task, winner, rounds), "final": True, "searched_s": task.searched_so_far()}
    if ratio is not None:
        record["default_ratio"] = round(ratio, 4)
    task.save(record)
    return _report(task, winner, ratio, record)


def confirm(task: Task, budget: float) -> bool:
    """Measure again what an earlier run found, without a search. False if its winner does not pass any more."""
    winner = task.previous.record
    for choice in (task.default, winner["choice"]):
        task.proposer.mark(choice)
        task.trials.setdefault(choice_key(choice), Trial(choice, winner["median_us"], winner["spread_us"], winner["median_us"], 0))
    chosen, default = task.trials[choice_key(winner["choice"])], task.trials[choice_key(task.default)]
    for trial in {id(t): t for t in (default, chosen)}.values():
        trial.built, trial.verified = None, ""
    ready = [trial for trial in {id(t): t for t in (default, chosen)}.values() if _ready(task, trial)]
    task.seeds = []
    if chosen not in ready and task.context.over():
        task.row = task.summary(chosen, winner.get("default_ratio"), winner)  # as recorded: there was no time to look
        return True
    if chosen not in ready:
        task.seeds = [] if default in ready else [task.default]
        return False
    settled, ratio, _ = _race(task, ready, budget, only=chosen)
    _report(task, settled, ratio, winner)
    return True


def _report(task: Task, winner: Trial, ratio: float | None, record: dict) -> Row:
    task.row = task.summary(winner, ratio, record)
    task.context.report("row", task)
    return task.row


def _race(task: Task, contestants: list[Trial], budget: float, only: Trial | None = None) -> tuple[Trial, float | None, int]:
    """(winner, how many times faster than the default or None, rounds run); `only` is the winner whatever the race says."""
    runner, rows = task.context.environment.runner, None
    try:
        rows = runner.race([(t.built.path, t.built.entry) for t in contestants], task.description, max(t.median_us for t in contestants),
                           budget=budget)
    except WorkerError as error:
        log.warning("%s: the final race failed (%s); single measurements decide", task.workload.id, error)
        chosen = only or min(contestants, key=lambda t: (t.least_us, t.number))
        return chosen, None, 1
    for trial, medians, leasts in zip(contestants, rows["median"], rows["least"]):
        low, trial.median_us, high = quartiles(medians)
        trial.spread_us, trial.least_us = high - low, min(leasts)
    winner = contestants.index(only) if only else frugal(pick(rows["least"]), rows["least"], [(t.built.entry.get("memory") or {}).get("ratio", 0.0) for t in contestants])
    first = contestants[0]
    if choice_key(first.choice) != choice_key(task.default):
        return contestants[winner], None, len(rows["least"][0])
    ratios = [d / w for d, w in zip(rows["least"][0], rows["least"][winner])]
    return contestants[winner], quartiles(ratios)[1], len(ratios)


def _contestants(task: Task) -> list[Trial]:
    """The default first, then the fastest in the order they were found, each built and thoroughly verified."""
    ranked, by_default = task.ranked(), choice_key(task.default)
    held = choice_key(task.previous.choice) if task.previous.choice else None
    default = [t for t in ranked if choice_key(t.choice) == by_default]
    others = sorted((t for t in ranked if choice_key(t.choice) != by_default), key=lambda t: choice_key(t.choice) != held)
    ready: list[Trial] = []
    for trial in default + others:  # the record holder always races
        if len(ready) > KEPT:
            break
        if _ready(task, trial) and all(trial.digest != other.digest for other in ready):
            ready.append(trial)
    head = [t for t in ready if choice_key(t.choice) == by_default]
    return head + sorted((t for t in ready if t not in head), key=lambda t: t.number)


def _ready(task: Task, trial: Trial) -> bool:
    """Built here and thoroughly verified; whoever fails is out of the race and out of the trials."""
    context = task.context
    if context.over() and not (trial.built and trial.verified):
        return False  # no time left to look at it
    try:
        if trial.built is None:
            outcome = context.environment.builder.build(task.description, [trial.choice], context.end)[0]
            if outcome is None:
                return False
            if isinstance(outcome, WorkerError):
                raise outcome
            trial.built, trial.digest = outcome, outcome.digest
            trial.verified = ""  # other code than the one that was verified then
        if not trial.verified:
            task.verify(trial)
    except WorkerError as error:
        if not context.over():
            log.debug("%s: out of the final race", task.workload.id)
            task.trials.pop(choice_key(trial.choice), None)
            task.failed(trial.choice, error)
        return False
    return True
