"""`convgen.wave.make`: propose candidates as tuning does, build them here, and pack them for a device that has no compiler."""

from __future__ import annotations

import os
import tempfile
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

import numpy as np

from ..errors import TuneError, WorkerError
from ..runtime.sizes import evaluate
from ..tune.builder import LocalBuilder
from ..tune.context import Context, Environment
from ..tune.records import Store, choice_key
from ..tune.search import counted
from ..tune.storage import DLPACK, RAW
from ..tune.task import Task
from ..tune.verify import oracles_of
from . import bundle
from .cases import cases_of
from .identity import continued

ROUNDS = 3  # of proposing again in place of candidates that do not compile


@dataclass
class Made:
    """What `make` did: the wave's id and path, and per workload how many candidates it holds and how many could not be built."""

    id: str
    path: str
    bytes: int
    target: str
    rows: list[dict] = field(default_factory=list)

    def to_json(self) -> dict:
        """Plain values."""
        return dict(vars(self))

    def __str__(self) -> str:
        return "\n".join([*map(line, self.rows), f"wave {self.id} for {self.target}: {self.path}, {self.bytes / 1e6:.2f} MB"])


def line(row: dict) -> str:
    """A workload's row as text."""
    return f"{row['workload']}: {row['candidates']} candidates" + (f", {row['failed']} could not be built" if row["failed"] else "") + (
        ", the space is exhausted" if row["exhausted"] else "")


def make(workloads, path: str | os.PathLike, target="native", count: int = 16, logs=None, threads: int | None = None, seed: int = 0,
         device: str | None = None, workers: int | None = None, environment: Environment | None = None, progress: Callable[[str], None] | None = None) -> Made:
    """Write a wave of `count` candidates per workload to `path` (a folder, or a file if it ends in .tar).

    workloads, target, logs, seed: as for `convgen.tune`; threads: those that CPU kernels are for. The default and the best of earlier waves are
    among the candidates, since the new ones race them (1: only these). device: fingerprint of the device that earlier waves of this target were measured on, if
    there were several. progress(text): told of each workload as it is ready. Raises TuneError, TargetError, WaveError.
    """
    if count < 1:
        raise TuneError(f"a wave needs at least 1 candidate per workload, got {count}")
    store, counts = Store.open(logs), counted(workloads)
    machine = _machine(target, threads)
    made_for = machine["fingerprint"]
    machine = continued(machine, store, [w.description["operator"] for w in counts], device)
    with closing(environment or Environment(LocalBuilder(machine, workers), None)) as env:
        context = Context(env, machine, store, seed)
        packing = _Packing(machine, made_for)
        rows = []
        for workload, number in counts.items():
            rows.append(packing.add(Task(workload, number, context), count))
            if progress:
                progress(f"[{len(rows)}/{len(counts)}] {line(rows[-1])}")
        if not packing.candidates:
            raise TuneError(f"no candidate for a wave could be built: {packing.workloads[0]['failed'][0]['message']}")
        identity = packing.write(path)
    return Made(identity, str(path), bundle.size(path), machine["fingerprint"], rows)


def _machine(target, threads: int | None) -> dict:
    from ..targets import resolve

    if isinstance(target, dict):
        return target
    found = resolve(target)
    return (found.with_threads(threads) if threads else found).to_json()


class _Packing:
    """A wave in the making."""

    def __init__(self, target: dict, made_for: str):
        self.target, self.made_for = target, made_for
        self.files: dict[str, bytes] = {}
        self.workloads: list[dict] = []
        self.candidates: list[dict] = []

    def add(self, task: Task, count: int) -> dict:
        """Propose and build a workload's candidates; a row for the report."""
        number, program = len(self.workloads), _program(task)
        built, failed = _built(task, count)
        self.workloads.append(self._workload(task, program, failed))
        by_code: dict[str, dict] = {}
        for choice, outcome in built:
            twin = by_code.get(outcome.digest)
            if twin is not None:  # the same machine code takes the same time
                twin["choices"].append(choice)
                continue
            entry = candidate(outcome.entry, task.description["dims"])
            name = f"code/{outcome.digest[:16]}.z"
            self.files[name] = Path(outcome.path).read_bytes()
            by_code[outcome.digest] = {**entry, "id": f"{number}.{len(by_code)}", "workload": number, "code": name, "digest": outcome.digest,
                                       "oracles": oracles_of(outcome.entry, program), "oracle": outcome.entry.get("oracle", "EF"),
                                       "role": _role(task, choice), "choices": [choice]}
        self.candidates += by_code.values()
        return {"workload": task.workload.id, "candidates": len(by_code), "failed": len(failed), "exhausted": len(built) + len(failed) < count}

    def _workload(self, task: Task, program, failed: list[dict]) -> dict:
        cases = cases_of(program, self.files)
        sizes = {t.name: int(np.prod(t.shape, dtype=np.int64)) * np.dtype(RAW[t.dtype]).itemsize for t in (*program.tensors, program.output)}
        return {"id": task.workload.id, "description": task.description, "count": task.count, "flops": task.workload.flops, "bytes": task.workload.bytes,
                "bytes_compared": sum(sizes.values()) * len(cases), "cases": cases, "failed": failed, "torch": _plain_form(task.workload),
                "tensors": {t.name: _memory(program, t) for t in program.tensors}, "output": _memory(program, program.output)}

    def write(self, path) -> str:
        """The finished bundle's id."""
        manifest = {"target": self.target, "made_for": self.made_for, "threads": self.target.get("threads", 1), "runtime": None,
                    "workloads": self.workloads, "candidates": self.candidates}
        if self.target["family"] != "cuda":
            manifest["runtime"] = "code/runtime.z"
            self.files["code/runtime.z"] = _runtime(self.target["family"])
        return bundle.write(path, manifest, self.files)


def _memory(program, tensor) -> dict:
    """How a tensor lies in memory: the order of its dims, and its shape in that order."""
    order = tensor.permutation(program.layout)
    return {"dtype": tensor.dtype, "perm": list(order), "shape": [tensor.shape[d] for d in order]}


def _program(task: Task):
    from ..lang.program import Program

    return Program.from_json(task.description)


def _runtime(family: str) -> bytes:
    from ..export.link import compile_wave_runtime

    with tempfile.TemporaryDirectory(prefix="convgen-wave-") as scratch:
        path = Path(scratch, "runtime.so")
        compile_wave_runtime(path, family)
        return path.read_bytes()


def _built(task: Task, count: int) -> tuple[list, list[dict]]:
    """([(choice, Built)], failures) of the candidates that this wave is to hold: what must race again, then what is worth trying."""
    must = [task.default]
    if task.previous.choice and choice_key(task.previous.choice) != choice_key(task.default):
        must.append(task.previous.choice)
    for choice in must:
        task.proposer.mark(choice)
    ranked = [trial.choice for trial in task.ranked()]
    built, failed, wanted = [], [], list(must)
    for turn in range(ROUNDS):
        missing = count - len(built) - len(wanted)
        wanted += task.proposer.next(missing, ranked) if missing > 0 else []
        if not wanted:
            break
        outcomes = task.context.environment.builder.build(task.description, wanted)
        for choice, outcome in zip(wanted, outcomes):
            if isinstance(outcome, WorkerError):
                failed.append({"choice": choice, "kind": outcome.kind, "message": str(outcome)[:200]})
            else:
                built.append((choice, outcome))
        wanted = []
    return built, failed


def _role(task: Task, choice: dict) -> str:
    if choice_key(choice) == choice_key(task.default):
        return "default"
    return "best" if task.previous.choice and choice_key(choice) == choice_key(task.previous.choice) else "new"


def candidate(entry: dict, dims: dict) -> dict:
    """What the device's script needs of a kernel entry, with every size worked out."""
    prepare = entry.get("prepare") or {"args": []}
    buffers = {a["name"]: _buffer(a, dims) for a in [*prepare["args"], *entry["args"]]}
    if "launches" not in entry:
        function = lambda e: {"symbol": e["symbol"], "args": [a["name"] for a in e["args"]]}  # noqa: E731
        return {"buffers": buffers, "run": function(entry), "prepare": function(prepare) if prepare["args"] else None}
    parts = {}
    for name, part in (("launches", entry), ("prepare_launches", prepare)):
        own = {t["name"]: f"{name}/{t['name']}" for t in part.get("temporaries", [])}  # both parts may use a name for different memory
        buffers |= {own[t["name"]]: _buffer({**t, "kind": "temporary"}, dims) for t in part.get("temporaries", [])}
        parts[name] = [_launch(launch, own, dims) for launch in part.get("launches", [])]
    return {"buffers": buffers, **parts}


def _buffer(argument: dict, dims: dict) -> dict:
    shape = [int(evaluate(tree, dims)) for tree in argument["shape"]]
    code, bits = DLPACK[argument["dtype"]]
    return {"kind": argument["kind"], "shape": shape, "dtype": argument["dtype"], "code": code, "bits": bits,
            "nbytes": int(np.prod(shape, dtype=np.int64)) * np.dtype(RAW[argument["dtype"]]).itemsize}


def _launch(launch: dict, own: dict, dims: dict) -> dict:
    arguments = [{"value": int(evaluate(a["size"], dims))} if isinstance(a, dict) else own.get(a, a) for a in launch["args"]]
    return {"symbol": launch["symbol"], "args": arguments, "grid": [int(evaluate(g, dims)) for g in launch["grid"]],
            "block": [int(b) for b in launch["block"]], "shared": int(launch["shared"])}


def _plain_form(workload) -> dict | None:
    """The workload as a call of torch.nn.functional, for a device that happens to have PyTorch; None for anything else."""
    plain = getattr(getattr(workload, "op", None), "convolution", None)
    if plain is None:
        return None
    names = {t["name"]: t["name"] for t in workload.description["tensors"] if t["kind"] == "param"}
    extra = {t["name"] for t in workload.description["tensors"]} - set(names) - {"x"}
    activation = workload.description["attributes"].get("activation")
    try:
        facts = plain(workload, **names)
    except Exception:  # names do not stand for numbers: its weight is computed from others, or an epilogue adds more tensors
        return None
    if facts is None or extra or not isinstance(facts["weight"], str) or activation not in (None, "relu", "gelu", "silu", "sigmoid", "tanh"):
        return None
    if any(low != high for low, high in facts["padding"]):
        return None
    return {"weight": facts["weight"], "bias": facts["bias"], "stride": list(facts["stride"]), "padding": [low for low, _ in facts["padding"]],
            "dilation": list(facts["dilation"]), "groups": facts["groups"], "transposed": facts["transposed"],
            "output_padding": list(facts.get("output_padding") or []), "activation": activation}
