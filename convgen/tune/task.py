"""Tuning one workload: what was tried, what is best, what comes next, and the final race."""

from __future__ import annotations

import logging

from ..errors import WorkerError
from .context import Context
from .lines import Trial, failed_line, measured_line
from .lookup import least_of, look_up
from .model import workload_features
from .propose import Proposer
from .records import choice_key
from .result import Row

log = logging.getLogger("convgen")

KEPT = 4  # fastest candidates that race the default at the end, and whose code is kept until then
HALVING = 8  # candidates that gained nothing and halve the hope for more
BUSY = 1.5  # median over least time above which something else took the cores
FIRST = 5.0  # seconds for the references and the first candidate of a workload, whatever building it left of its share
LOOK = 32  # trials after which a workload where nearly all fail alike is given up


class Task:
    """State of one workload in a run. `count` is how many layers of a network it stands for."""

    def __init__(self, workload, count: int, context: Context):
        self.workload, self.count, self.context = workload, count, context
        self.description = workload.description
        self.hash = context.environment.hash(self.description)
        self.space = context.environment.space(self.description, context.target)
        self.default = self.space.default()
        names = tuple(getattr(self.space, "feature_names", ()))
        self.group = f"{self.description['operator']}:{self.hash}:{self.space.version}:{','.join(names)}"
        self.model = context.model(self.group)
        self.roof = workload_features(workload.flops, workload.bytes, self.description["dims"])
        self.proposer = Proposer(self.space, self.model, self.features, f"{context.seed}:{workload.id}", context.strategy)
        self.trials: dict[str, Trial] = {}
        self.failures: dict[str, int] = {}
        self.digests: dict[str, Trial] = {}
        self.attempts = 0
        self.hope = 0.5  # fraction of its time that more trials are expected to save
        self.tried = 0  # candidates of this run
        self.searched = 0.0  # seconds of this run that went into this workload
        self.building = 0.0  # and into building its candidates, of those
        self.torch: dict | None = None  # median_us and min_us of the PyTorch baseline
        self.curve: list[tuple[float, int, float]] = []
        self.stopped: str | None = None
        self.row: Row | None = None
        self.previous = look_up(context.store, self.description, self.hash, context.target, self.space)
        self._remember()
        self.seeds = self._seeds()
        self.sown = {choice_key(choice) for choice in self.seeds}

    # -- what earlier runs left ---------------------------------------------------------------------------------------------

    def _remember(self) -> None:
        """Take over this workload's trials of earlier runs, and let the model learn from every shape of the structure."""
        for group in self.context.store.records(self.context.target["family"], self.description["operator"]):
            for record in group:
                if record["description"] != self.hash or record["space"] != self.space.version:
                    continue
                if record["target"] != self.context.target["fingerprint"]:
                    continue
                if record["kind"] == "ok":
                    self._teach(record)
                if record["workload"] == self.workload.id and not self.context.retune:
                    self._resume(record)

    def _resume(self, record: dict) -> None:
        key = choice_key(record["choice"])
        if record.get("final") or key in self.proposer.tried:
            return
        self.proposer.mark(record["choice"])
        self.attempts += 1
        if record["kind"] == "ok":
            self.trials[key] = Trial(record["choice"], record["median_us"], record["spread_us"], least_of(record), self.attempts,
                                     record.get("error", 0.0), record["verified"])
        else:
            self.failures[record["kind"]] = self.failures.get(record["kind"], 0) + 1

    def _teach(self, record: dict) -> None:
        if self.context.taught(self.group, record):
            return
        try:
            roof = workload_features(record["flops"], record["bytes"], record["dims"])
            features = [*self.space.features(record["choice"]), *roof]
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            return  # knobs of another shape that this space cannot describe teach nothing
        self.model.add(record["workload"], features, least_of(record))

    def _seeds(self) -> list[dict]:
        """What is tried before anything is proposed: the default, then the best record's knobs, near ones included."""
        wanted = [self.default] + ([self.previous.choice] if self.previous.choice else [])
        fresh = []
        for choice in wanted:
            if choice_key(choice) not in self.proposer.tried:
                self.proposer.mark(choice)
                fresh.append(choice)
        return fresh

    def features(self, choice: dict) -> list[float]:
        """The model's row for a choice."""
        return [*self.space.features(choice), *self.roof]

    # -- state --------------------------------------------------------------------------------------------------------------

    @property
    def tuned(self) -> bool:
        """True if an earlier run finished this workload on this very target."""
        return self.previous.step == "exact" and bool(self.previous.record.get("final")) and not self.context.retune

    def ranked(self) -> list[Trial]:
        """Trials, fastest first."""
        return sorted(self.trials.values(), key=lambda t: (t.least_us, t.number))

    @property
    def best(self) -> Trial | None:
        """The fastest thoroughly verified trial."""
        return next((t for t in self.ranked() if t.verified), None)

    @property
    def seconds_each(self) -> float:
        """What a candidate of this run took, building and references included; 0 before the first."""
        return self.searched / self.tried if self.tried else 0.0

    def _learn(self, before: float | None, candidates: int) -> None:
        """Expect as much again as the last candidates saved (`before`: the best time without them), less with each that saved nothing.

        The cost model cannot say this: trees promise no time below the least that they were taught.
        """
        best = self.best
        if before is None and best is not None:
            return  # the first time of all is no gain
        self.hope = max(1.0 - best.least_us / before if best else 0.0, self.hope * 0.5 ** (candidates / HALVING))

    @property
    def finished(self) -> bool:
        """True when nothing more is to be tried in this run."""
        limit = self.context.trials
        return bool(self.stopped) or self.proposer.exhausted or (limit is not None and self.attempts >= limit)

    # -- trying -------------------------------------------------------------------------------------------------------------

    def batch(self, size: int) -> None:
        """Try up to `size` candidates, or fewer when the time is over."""
        context = self.context
        begun = context.environment.clock()
        if context.trials is not None:
            size = min(size, context.trials - self.attempts)
        choices, self.seeds = self.seeds[:size], self.seeds[size:]
        if not choices:  # the default goes alone: everything later is judged against it
            choices = self.proposer.next(size, [t.choice for t in self.ranked()])
        before, attempts = self.best.least_us if self.best else None, self.attempts
        if choices:
            context.environment.runner.begin(self.description)
        outcomes = context.environment.builder.build(self.description, choices, context.until(), context.grace()) if choices else []
        self.building += context.environment.clock() - begun
        measured = self._measure_together(choices, outcomes)
        for choice, outcome in zip(choices, outcomes):
            if outcome is None or (context.closed() and self._can_wait(outcome, measured)):
                self._postpone(choice)  # the clock ended it, not the candidate
                continue
            self.attempt(choice, outcome, measured)
        self.tried += self.attempts - attempts
        self._learn(before, self.attempts - attempts)
        self.searched += context.environment.clock() - begun
        self._give_up()

    def _measure_together(self, choices: list, outcomes: list) -> dict:
        """What a runner of several devices measured, by digest; {} where candidates are measured one after another.

        If it ends early (Ctrl-C, no device left), what is finished is recorded, and verified when the next call builds it again.
        """
        together = getattr(self.context.environment.runner, "measure_many", None)
        new = {o.digest: o for o in outcomes if o is not None and not isinstance(o, WorkerError) and o.digest not in self.digests}
        if together is None or len(new) < 2:
            return {}
        best, digests, finished = self.best, list(new), {}

        def done(index: int, taken) -> None:
            finished[digests[index]] = taken

        try:
            taken = together([(o.path, o.entry) for o in new.values()], self.description, best.least_us if best else None, self._longest(), done)
        except WorkerError:  # of what comes before any candidate (references); each will say so
            return {}
        except BaseException:
            with self.context.interrupts.hold():
                for choice, outcome in zip(choices, outcomes):
                    self._keep_unverified(choice, outcome, finished)
            raise
        return dict(zip(digests, taken))

    def _keep_unverified(self, choice: dict, outcome, finished: dict) -> None:
        taken = finished.pop(getattr(outcome, "digest", None), None)
        if isinstance(taken, WorkerError):
            self._fail(choice, taken)
        elif taken is not None:
            self._keep(Trial(choice, taken.median_us, taken.spread_us, taken.min_us, self.attempts + 1, taken.ratio, "", outcome, outcome.digest), taken.repeats)

    def attempt(self, choice: dict, outcome, measured: dict | None = None) -> None:
        """Measure one candidate that the builder made (Built, or the WorkerError of its failure), and record what came of it.

        `measured` holds by digest what `_measure_together` has measured already.
        """
        if isinstance(outcome, WorkerError):
            self._fail(choice, outcome)
            return
        twin = self.digests.get(outcome.digest)
        if twin is not None:  # the same machine code: it takes the same time
            trial = Trial(choice, twin.median_us, twin.spread_us, twin.least_us, self.attempts + 1, twin.ratio, twin.verified, twin.built, twin.digest)
            self._keep(trial, 1)
            return
        runner, best = self.context.environment.runner, self.best
        try:
            if measured and outcome.digest in measured:
                taken = measured[outcome.digest]
                if taken is None:  # its turn did not come in time
                    self._postpone(choice)
                    return
                if isinstance(taken, WorkerError):
                    raise taken
            else:
                taken = runner.measure(outcome.path, outcome.entry, self.description, best.least_us if best else None, self._longest())
            trial = Trial(choice, taken.median_us, taken.spread_us, taken.min_us, self.attempts + 1, taken.ratio, "", outcome, outcome.digest)
            if best is None or taken.min_us < best.least_us:
                self.verify(trial)
        except WorkerError as error:
            if error.kind == "run_timeout" and self.context.late():
                self._postpone(choice)
            else:
                self._fail(choice, error)
            return
        self.digests[outcome.digest] = trial
        self._keep(trial, taken.repeats)

    def _longest(self) -> float | None:
        """Seconds that measuring may take. Only references can be long: when they are there, what is built is worth measuring."""
        rest, left = self.context.rest(), self.context.left()
        return rest if rest is None or self.best is not None else min(rest, max(left, FIRST))

    def _can_wait(self, outcome, measured: dict) -> bool:
        """Whether a candidate is not looked at when the time is over: its failure may be the clock's, and there is another to serve."""
        return isinstance(outcome, WorkerError) or (self.best is not None and outcome.digest not in measured)

    def _postpone(self, choice: dict) -> None:
        """Allow a choice again that was never really tried; the default and the best record's come before others."""
        if choice_key(choice) in self.sown:
            self.seeds.insert(0 if choice == self.default else len(self.seeds), choice)
        else:
            self.proposer.forget(choice)

    def verify(self, trial: Trial) -> None:
        """Every oracle and the guards; raises WorkerError if one fails."""
        verdict = self.context.environment.runner.check(trial.built.path, trial.built.entry, self.description, trial.median_us, self._until_end())
        trial.verified, trial.ratio = verdict["oracles"], max(trial.ratio, verdict["ratio"])

    def _until_end(self) -> float | None:
        """Seconds until the call must return: verifying a new best may use what is set aside for the end."""
        end = self.context.end
        return None if end is None else max(0.5, end - self.context.environment.clock())

    def _keep(self, trial: Trial, repeats: int) -> None:
        self.attempts += 1
        self.trials[choice_key(trial.choice)] = trial
        record = measured_line(self, trial, repeats)
        self.save(record)
        if not self.context.taught(self.group, record):
            self.model.add(self.workload.id, self.features(trial.choice), trial.least_us)
        if self.best is not None:
            self.curve.append((self.context.elapsed(), self.attempts, self.best.least_us))
        self._discard_losers()
        self.context.report("trial", self)

    def _fail(self, choice: dict, error: WorkerError) -> None:
        self.attempts += 1
        self.failed(choice, error)
        self.context.report("trial", self)

    def failed(self, choice: dict, error: WorkerError) -> None:
        """Count a failure and record it in compact form."""
        self.failures[error.kind] = self.failures.get(error.kind, 0) + 1
        log.debug("%s: %s: %s", self.workload.id, error.kind, error)
        self.save(failed_line(self, choice, error))

    def _give_up(self) -> None:
        worst = max(self.failures.values(), default=0)
        if not self.stopped and self.attempts >= LOOK and worst > 0.9 * self.attempts:
            kind = max(self.failures, key=self.failures.get)
            self.stopped = f"given up: {worst} of {self.attempts} candidates failed with {kind}; try `convgen doctor`"
            log.warning("%s: %s", self.workload.id, self.stopped)

    def _discard_losers(self) -> None:
        """Delete the code of candidates that cannot reach the final race any more."""
        keep = {id(t.built) for t in self.ranked()[:2 * KEPT]} | {id(t.built) for k, t in self.trials.items() if k == choice_key(self.default)}
        for trial in self.trials.values():
            if trial.built is not None and id(trial.built) not in keep:
                self.context.environment.builder.discard(trial.built)
                trial.built = None

    # -- results ------------------------------------------------------------------------------------------------------------

    def _where(self) -> str:
        """Where the time of a workload went, in parentheses."""
        return f" (building took {self.building:.1f} s, references and measuring {self.searched - self.building:.1f} s)" if self.searched else ""

    def summary(self, chosen: Trial | None = None, default_ratio: float | None = None, record: dict | None = None) -> Row:
        """The row of the result; before the final race it speaks of the best verified trial."""
        chosen = chosen or self.best
        row = Row(self.workload.id, trials=self.attempts, failures=dict(self.failures), curve=list(self.curve), count=self.count,
                  note=self.stopped)
        if chosen is None:
            row.note = row.note or f"no candidate was measured in the time given{self._where()}; the default schedule will be used"
            return row
        if self.context.end is not None and len(self.trials) == 1 and not self.finished and not self.tuned:
            row.note = row.note or f"only one candidate was measured in the time given{self._where()}"
        default = self.trials.get(choice_key(self.default))
        if default_ratio is None and default is not None:
            default_ratio = default.least_us / chosen.least_us
        row.us, row.spread, row.default_ratio = round(chosen.median_us, 3), round(chosen.spread_us, 3), default_ratio and round(default_ratio, 4)  # as recorded
        least = round(chosen.least_us, 3)
        if row.us > BUSY * least:
            row.note = row.note or f"the machine was busy while measuring: undisturbed it took {least:.4g} µs"
        row.record = record or measured_line(self, chosen, 1)
        row.baseline_ratio = self.torch["min_us"] / chosen.least_us if self.torch else None
        return row

    # -- records ------------------------------------------------------------------------------------------------------------

    def searched_so_far(self) -> float:
        """Seconds that this run and those before it spent searching for this workload on this target."""
        earlier = self.previous.record.get("searched_s", 0.0) if self.previous.step == "exact" else 0.0
        return round(earlier + self.searched, 1)

    def save(self, record: dict) -> None:
        """Append a record; Ctrl-C waits for the end of it."""
        with self.context.interrupts.hold():
            self.context.store.add(record)
