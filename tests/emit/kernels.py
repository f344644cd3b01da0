"""Kernels under test: jobs go to worker processes that compile and check them; a crash is a result like any other."""

import os
import sys
from pathlib import Path

from convgen.errors import WorkerError
from convgen.lang import parse
from convgen.targets import resolve
from convgen.workers import Worker

ROOT = Path(__file__).parents[2]


def target(name="native"):
    """Target JSON of a name."""
    return resolve(name).to_json()


class Kernels:
    """Two processes of tests/emit/batch.py."""

    def __init__(self, workers=2):
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.workers = [Worker([sys.executable, str(Path(__file__).with_name("batch.py"))], env={"PYTHONPATH": path}, max_jobs=150) for _ in range(workers)]

    def ask(self, jobs, timeout=280.0):
        """One answer or WorkerError per job (a dict with "cmd"), in order."""
        jobs, answers, running = list(enumerate(jobs)), {}, {}
        while jobs or running:
            for worker in self.workers:
                if jobs and worker not in running:
                    index, job = jobs.pop(0)
                    try:
                        worker.send(job, timeout)
                        running[worker] = index
                    except WorkerError as error:
                        answers[index] = error
            for worker, index in list(running.items()):
                try:
                    done, value = worker.poll(_soon())
                except WorkerError as error:
                    done, value = True, error
                if done:
                    answers[index] = value
                    del running[worker]
        return [answers[i] for i in sorted(answers)]

    def check(self, workloads, target=None, choice=None):
        """What went wrong, one line per workload, and the answers. `target` and `choice` as in build_kernel."""
        answers = self.ask([job(w, target, choice) for w in workloads])
        return [line for w, a in zip(workloads, answers) for line in complaints(w, a)], answers

    def check_batches(self, w, batches=(1, 3, 8)):
        """What is wrong with the kernel of an open batch ("n2+" in its id) at its own and at other batches, one line each, and the number of verdicts."""
        head, tail = w.id.split("+", 1)
        others = [parse(head.rstrip("0123456789") + f"{n}{tail}") for n in batches]
        (answer,) = self.ask([job(w, others=others)])
        wrong = complaints(w, answer)
        return wrong, 0 if wrong else len(answer["verdicts"])

    def close(self):
        for worker in self.workers:
            worker.close()


def job(w, machine=None, choice=None, others=()):
    """The request that builds and checks one workload."""
    return {"cmd": "check", "description": w.description, "target": machine or target(), "choice": choice, "others": [o.description for o in others]}


def complaints(w, answer):
    """Lines that say what is wrong with an answer; none for a right kernel."""
    if isinstance(answer, WorkerError):
        return [f"{w}: {answer.kind}: {answer}"]
    return [f"{w}: {v['reason']}" for v in answer["verdicts"] if not v["ok"]]


def _soon():
    import time
    return time.monotonic() + 0.05
