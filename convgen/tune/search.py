"""`tune`: share a budget among workloads, try candidates, keep everything, settle on winners."""

from __future__ import annotations

import importlib.util
import logging
import math
from contextlib import closing
from typing import Any, Callable, Iterable, Mapping

from ..errors import TargetError, TuneError
from .context import Context, Environment
from .finals import confirm, settle
from .interrupt import Interrupts
from .records import Store
from .result import Row, TuneResult
from .task import Task

log = logging.getLogger("convgen")

WORTH = 0.01  # without a budget, tuning stops when less than this fraction is expected to be gained
FAIR = 0.5  # of an equal part of the time: what every workload is searched for before the rest goes where it saves most
FINAL_SECONDS = 1.0  # timing of one workload's final race
BASELINE_NEEDS = 8.0  # seconds left of a workload's share below which PyTorch is not timed: importing it takes half of that


def tune(workloads, target="native", seconds: float | None = None, trials: int | None = None, logs=None, seed: int = 0,
         retune: bool = False, progress: Callable[[dict], None] | None = None, *, strategy: str = "model", workers: int | None = None,
         environment: Environment | None = None, rpc: str | None = None, key: str | None = None, emulated: bool = False) -> TuneResult:
    """Search fast kernels for workloads and record them; anytime, resumable, Ctrl-C safe.

    workloads: one Workload, several, or {layer name: Workload} (a workload that stands several times counts as often).
    target: name, Target or its JSON. seconds: wall time of the whole call, compilation included; trials: candidates per
    workload, those of earlier runs included. With neither, stops when under 1 % is expected to be saved. Every workload is searched
    for half of an equal part of `seconds`, or until nothing is left to try; the rest goes where it saves most.
    logs: record folder(s) read first, the first is written to. A workload that was tuned before costs one re-measure unless
    `retune`. progress: called with a dict per event (store, trial, row, done). strategy: "model", or "random" for comparison.
    workers: parallel compile processes (default: one per core). rpc, key: measure on the servers that are registered under this
    key at the tracker "HOST:PORT", instead of on this machine; `target` then describes the servers. emulated: their processors
    may be emulated; nothing is saved. Raises TuneError for arguments that cannot be tuned or when no server is left, and
    TargetError for a target that this machine cannot run.
    """
    counts = counted(workloads)
    if strategy not in ("model", "random"):
        raise TuneError(f"strategy must be 'model' or 'random', got {strategy!r}")
    for name, value in (("seconds", seconds), ("trials", trials)):
        if value is not None and not (isinstance(value, (int, float)) and value > 0):
            raise TuneError(f"{name} must be positive, got {value!r}")
    machine = target if isinstance(target, dict) else _resolved(target)
    if rpc is not None:
        from ..remote.environment import remote_environment

        _compiler_here()
        environment = remote_environment(machine, rpc, key, workers, emulated)
    elif key is not None or emulated:
        raise TuneError("key and emulated belong to rpc, the tracker's HOST:PORT")
    elif environment is None:
        _possible_here(machine)
    with Interrupts() as interrupts, closing(environment or local_environment(machine, workers)) as env:
        store = Store.open(logs) if env.saves else Store([])
        context = Context(env, machine, store, seed, trials, retune, strategy, progress, begun=env.clock(), interrupts=interrupts, origin=dict(env.origin))
        return _Run(context, counts, seconds).go()


def local_environment(target: dict, workers: int | None = None) -> Environment:
    """Compiling, measuring and the PyTorch baseline on this machine."""
    from .baseline import TorchBaseline
    from .builder import LocalBuilder
    from .measure import LocalRunner

    return Environment(LocalBuilder(target, workers), LocalRunner(target), TorchBaseline(target))


def _resolved(target: Any) -> dict:
    if isinstance(target, str):
        from ..targets import resolve

        target = resolve(target)
    return target.to_json()


def _possible_here(target: dict) -> None:
    """Refuse in one sentence what cannot be compiled or measured on this machine."""
    from ..targets import Target

    _compiler_here()
    missing = Target.runs_here(target["features"])
    if missing:
        raise TargetError(f"tuning for {target['name']} measures on this machine, which lacks {', '.join(missing)}")


def _compiler_here() -> None:
    if importlib.util.find_spec("tvm") is None:
        raise ModuleNotFoundError("tuning needs apache-tvm: pip install 'convgen[tune]'", name="tvm")


def counted(workloads) -> dict[Any, int]:
    """Workload → how often it stands, in order of first appearance. Raises TuneError for what is no workload."""
    if isinstance(workloads, Mapping):
        workloads = list(workloads.values())
    elif hasattr(workloads, "description"):
        workloads = [workloads]
    elif isinstance(workloads, str) or not isinstance(workloads, Iterable):
        raise TuneError(f"workloads must be Workload objects, got {workloads!r}; convgen.workload(id) makes one from an id")
    counts: dict[str, int] = {}
    known: dict[str, Any] = {}
    for workload in workloads:
        if not hasattr(workload, "description"):
            raise TuneError(f"workloads must be Workload objects, got {workload!r}; convgen.workload(id) makes one from an id")
        known.setdefault(workload.id, workload)
        counts[workload.id] = counts.get(workload.id, 0) + 1
    if not known:
        raise TuneError("there is no workload to tune")
    return {known[name]: count for name, count in counts.items()}


class _Run:
    """One call of tune."""

    def __init__(self, context: Context, counts: dict[Any, int], seconds: float | None):
        self.context, self.seconds, self.counts = context, seconds, counts
        self.tasks: list[Task] = []
        self.compared: set[Task] = set()  # those whose PyTorch baseline was timed, or cannot be
        self.final = FINAL_SECONDS
        if seconds is not None:
            context.end = context.begun + seconds
            self.final = min(FINAL_SECONDS, max(0.05, 0.1 * seconds / len(counts)))
            context.deadline = context.end - 2 * self.final * len(counts)  # verification and races come out of the budget, too

    def go(self) -> TuneResult:
        context, interrupted = self.context, False
        written = str(context.store.write_to) if context.store.write_to else None
        context.report("store", path=written)
        try:
            context.environment.builder.load(context.begun)  # which passes while the tasks are made
            for workload, count in self.counts.items():
                self.tasks.append(Task(workload, count, context))
            self._search()
            for task in self.tasks:
                if task.row is None:
                    settle(task, self.final)
        except KeyboardInterrupt:
            interrupted = True
            log.info("interrupted: everything measured so far is saved")
        rows = [task.row or task.summary() for task in self.tasks]
        rows += [Row(w.id, count=n, note="interrupted before it began") for w, n in list(self.counts.items())[len(self.tasks):]]
        result = TuneResult(rows, interrupted, str(context.store.write_to) if context.store.write_to else None, context.elapsed())
        context.report("done", interrupted=interrupted)
        return result

    def _search(self) -> None:
        self.context.environment.builder.load(self.context.deadline)  # else it would be the first workload's time
        self._in_turns(self.tasks, self._begin)
        if len(self.tasks) > 1:  # all have something to compare before the time goes where it is worth most
            self._in_turns(self.tasks, self._second)
            self._in_turns([t for t in self.tasks if not t.trials], self._second, 0.5)
        part = self._fair_part()
        while not self.context.late():
            open_tasks = [t for t in self.tasks if t.row is None and not t.finished]
            if self.seconds is None and self.context.trials is None:
                open_tasks = [t for t in open_tasks if t.hope >= WORTH]
            if not open_tasks:
                return
            task, size = min(open_tasks, key=lambda t: t.searched), self._batch_size()
            if task.searched < part:  # whoever had least comes first, so that all are alike if the time ends here
                size = max(self._workers, min(size, math.ceil((part - task.searched) / task.seconds_each))) if task.seconds_each else size
                with self.context.share(2 * part - task.searched):
                    task.batch(size)
            else:  # what a trial may save of the network's time
                max(open_tasks, key=lambda t: t.hope * t.count * (t.best.least_us if t.best else 1.0)).batch(size)

    def _fair_part(self) -> float:
        """Seconds of searching that each workload has a right to, what it had already included."""
        left, tasks = self.context.left(), [t for t in self.tasks if t.row is None]
        return 0.0 if left is None or not tasks else FAIR * (left + sum(t.searched for t in tasks)) / len(tasks)

    def _in_turns(self, tasks: list[Task], step: Callable[[Task], None], part: float = 1.0) -> None:
        """A step for each, which takes no more than an equal share of the whole run, nor of the `part` of what is left."""
        left = self.context.left()
        end = None if left is None else self.context.environment.clock() + part * left
        longest = None if end is None else (self.context.deadline - self.context.begun) / len(tasks or self.tasks)
        for done, task in enumerate(tasks):
            with self.context.share(None if end is None else min(longest, (end - self.context.environment.clock()) / (len(tasks) - done))):
                step(task)

    def _begin(self, task: Task) -> None:
        """Confirm an earlier result, or measure the default so that there is one whatever happens next."""
        context = self.context
        if task.tuned:
            record = task.previous.record
            task.torch = {"median_us": record["torch_us"], "min_us": record["torch_min_us"]} if "torch_min_us" in record else None
            if task.torch is not None:
                self.compared.add(task)
            if confirm(task, self.final):
                return
            log.warning("%s: its record does not stand any more, it is tuned again", task.workload.id)
        self._give_inputs(task)
        if task.seeds and not context.late() and not task.finished:
            task.batch(1)
        self._time_baseline(task)

    def _time_baseline(self, task: Task) -> None:
        """Time PyTorch once, where enough is left of this workload's share."""
        context, left = self.context, self.context.left()
        if context.environment.baseline is None or task in self.compared or (left is not None and left <= BASELINE_NEEDS):
            return
        self.compared.add(task)
        task.torch = context.environment.baseline.time(task.workload.id, 120.0 if left is None else left / 2)
        context.report("trial", task)

    def _second(self, task: Task) -> None:
        """Measure something beside the default, or the default itself where it took more than its share."""
        if task.row is None and not task.finished and len(task.trials) < 2 and not self.context.late():
            task.batch(self._workers)
        if task.row is None:
            self._time_baseline(task)  # where the default, or a compiler that had to load, took the first share

    def _give_inputs(self, task: Task) -> None:
        """Hand the operator's own input generator (offsets, indices) to the measuring process, which knows descriptions only."""
        sampler = getattr(getattr(task.workload, "op", None), "sampler", None)
        if sampler is not None:
            from ..lang.sampling import realistic

            self.context.environment.runner.provide(task.description, realistic(task.workload.program, 0, sampler, task.workload))

    def _batch_size(self) -> int:
        """Enough to keep the compile workers busy, few enough that the model learns between batches."""
        return max(8, 4 * self._workers)

    @property
    def _workers(self) -> int:
        return getattr(self.context.environment.builder, "workers", 1)
