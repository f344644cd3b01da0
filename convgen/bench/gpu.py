"""`python -m convgen.bench.gpu`: one visit to a GPU. Prepared where there is a compiler, run where there is only a card.

    python -m convgen.bench.gpu --prepare visit --suite spine --target cuda:sm_90     here: needs the compiler and nvcc
    python -m convgen.bench.gpu visit --out results                                   there: needs numpy and torch, no network

There it checks kernels of every operator against the oracle's answers, measures the suite's candidates, and races each workload's fastest
against PyTorch. Everything is kept as soon as it is there, and the same command goes on. `--read results` prints and draws again.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from ..errors import ArgumentError, Error, WorkerError
from ..wave import bundle
from ..wave.device import journal
from ..wave.device.cuda import Driver
from ..wave.device.main import plain
from ..wave.device.trouble import Trouble
from . import data
from .report import Result, read

CHECK, SUITE, VISIT = "check", "suite", "visit.json"
DATA, TABLE, PICTURE = "data.jsonl", "README.md", "ratios.svg"
SEEDS = (1, 2, 3)  # of random small shapes of each operator that are checked in float32; the first in 16 bits, too
COMPILE_LIMIT = 600.0  # seconds that torch.compile's search may take for a workload
RACE_LIMIT = 300.0  # and a race without it


def prepare(folder, cases, target: str, count: int, logs=None, tell=print) -> None:
    """Write what a visit needs to `folder`: a wave of every operator to check, a wave of `cases` to measure, and what the report must know of them.

    cases: as `race.merged` takes them; count: candidates per workload of the suite.
    """
    from ..wave.making import make
    from .race import merged

    folder, entries = Path(folder), merged(cases)
    folder.mkdir(parents=True, exist_ok=True)
    for name, workloads, each in ((CHECK, everything(), 1), (SUITE, [entry.workload for entry in entries], count)):
        made = make(workloads, folder / name, target, count=each, logs=logs, progress=lambda text: tell(text, flush=True))
        tell(str(made).splitlines()[-1])
    (folder / VISIT).write_text(json.dumps({"plan": [entry.plan() for entry in entries]}, indent=1) + "\n")


def everything() -> list:
    """Small workloads of every operator of the catalogue: odd sizes, both layouts, and 16-bit storage where the operator has it."""
    from ..ops.table import TABLE
    from ..shapes import small

    found = []
    for op in TABLE:
        found += [small(op, seed) for seed in SEEDS]
        for dtype in ("float16", "bfloat16"):
            try:
                found.append(small(op, SEEDS[0], dtype=dtype))
            except ArgumentError:
                continue  # an operator of integers
    return found


class Visit:
    """One run over a prepared folder. `dry`: PyTorch runs on the processor and the driver is a stand-in, to try the command out; such figures mean nothing."""

    def __init__(self, folder, options):
        self.folder, self.options, self.begun = Path(folder), options, time.monotonic()
        self.plan = {entry["workload"]: entry for entry in json.loads((self.folder / VISIT).read_text())["plan"]}
        self.card = card_name(options.libcuda, options.device)
        self.out = Path(options.out or f"docs/measured/gpu-{plain(self.card)}-{datetime.date.today().isoformat()}")
        self.out.mkdir(parents=True, exist_ok=True)

    def go(self) -> bool:
        """Every step that the time allows; False if something is missing or wrong."""
        done = self._measure(CHECK, "0.02", "0.05") and self._measure(SUITE, "0.1", "0.5")
        done = done and all(e["status"] == "ok" for e in tried(self.out / f"{CHECK}.jsonl"))
        for compiled in ((False,) if self.options.no_compile else (False, True)):
            done = self._race(compiled) and done
        report(self.out, self.plan)
        return done

    def left(self) -> float | None:
        """Seconds left, None without a limit."""
        return None if self.options.seconds is None else max(0.0, self.options.seconds - (time.monotonic() - self.begun))

    def _measure(self, name: str, budget: str, final: str) -> bool:
        """Run a wave's own script, in pieces that the time allows."""
        print(f"-- {name}: {self.card}", flush=True)
        limit = [] if self.left() is None else ["--seconds", f"{self.left():.0f}"]
        command = [sys.executable, str(self.folder / name / bundle.SCRIPT), "--no-torch", "--result", str((self.out / f"{name}.jsonl").absolute()), "--budget", budget, "--final", final,
                   "--device", str(self.options.device), "--libcuda", self.options.libcuda, *limit]
        return subprocess.run(command).returncode == 0

    def _race(self, compiled: bool) -> bool:
        """The fastest candidate of each workload against PyTorch; what earlier runs raced is left alone."""
        from ..workers import Worker

        entries = journal.read(self.out / f"{SUITE}.jsonl")[0]
        _, manifest = bundle.read(self.folder / SUITE)
        device = next((e["device"] for e in entries if e["kind"] == "device"), None)
        if device is None:
            return False
        known = {(r["workload"], r["contestant"] == COMPILED) for r in read(self.out / DATA).rows} if (self.out / DATA).exists() else set()
        conditions = facts(device, manifest, self.options.dry_run)
        worker, whole = Worker("convgen.bench.gpu_race", memory=0, timeout_kind="run_timeout"), True
        try:
            for number, workload in enumerate(manifest["workloads"]):
                if (workload["id"], compiled) in known:
                    continue
                if self.left() is not None and self.left() < 1:
                    return False
                winner = fastest(manifest, entries, number)
                try:
                    rows = [failed(kind, message) for kind, message in [first_failure(manifest, entries, number)]] if winner is None else worker.request(
                        {"cmd": "race", "folder": str((self.folder / SUITE).absolute()), "candidate": winner, "compiled": compiled, "libcuda": self.options.libcuda,
                         "device": self.options.device, "budget": self.options.budget, "rounds": self.options.rounds, "dry": self.options.dry_run},
                        min(COMPILE_LIMIT if compiled else RACE_LIMIT, self.left() or COMPILE_LIMIT))
                except WorkerError as error:
                    rows = [] if compiled else [failed(error.kind, str(error))]
                    rows += [{**failed(error.kind, str(error)), "contestant": COMPILED, "ours": False}] if compiled else []
                work = {"flops": workload["flops"], "bytes": workload["bytes"], "rate": 1, "roofline_us": None}
                data.append(self.out / DATA, [{**conditions, **work, **self.plan[workload["id"]], **row} for row in rows])
                whole = whole and all(row["ok"] for row in rows if row["ours"])
                print(f"{workload['id']}: " + ", ".join(f"{r['contestant']} {r['median_us']:.4g} us" if r["ok"] else f"{r['contestant']}: {r['reason']}" for r in rows), flush=True)
        finally:
            worker.close()
        return whole


COMPILED = "torch compile max-autotune"


def failed(kind: str, message: str) -> dict:
    """Our row where nothing could be timed."""
    return {"contestant": "convgen", "ours": True, "counts": True, "ok": False, "kind": kind, "reason": message[:300]}


def fastest(manifest: dict, entries: list[dict], number: int) -> str | None:
    """The candidate that won a workload's final race on the card, or was fastest if there was none; None if none passed."""
    from ..tune.finals import pick

    final = next((e for e in entries if e["kind"] == "final" and e["workload"] == number), None)
    if final is not None:
        return final["candidates"][pick(final["least"])]
    mine = {c["id"] for c in manifest["candidates"] if c["workload"] == number}
    passed = [e for e in entries if e["kind"] == "candidate" and e["status"] == "ok" and e["candidate"] in mine]
    return min(passed, key=lambda e: e["min_us"])["candidate"] if passed else None


def first_failure(manifest: dict, entries: list[dict], number: int) -> tuple[str, str]:
    """(kind, message) of why a workload has no kernel that passed."""
    mine = {c["id"] for c in manifest["candidates"] if c["workload"] == number}
    lines = [(e["status"], e["message"]) for e in entries if e["kind"] == "candidate" and e["candidate"] in mine and e["status"] != "ok"]
    lines += [(f["kind"], f["message"]) for f in manifest["workloads"][number]["failed"]]
    return lines[0] if lines else ("missing", "no candidate was measured")


def facts(device: dict, manifest: dict, dry: bool) -> dict:
    """The conditions of every row."""
    from ..wave.identity import measured_on
    from . import environment

    return {"format": data.FORMAT, "date": datetime.date.today().isoformat(), "threads": 1, "cold": False, "seed": 0, "busy": False, "target": measured_on(manifest["target"], device)["fingerprint"],
            "cpu": device["card"] + (" (dry run: figures mean nothing)" if dry else ""), "driver": device.get("driver"), "cuda": device.get("cuda"), "kernel": device["kernel"],
            "python": device["python"], "versions": environment.versions(), "roofline": None}


def tried(path: Path) -> list[dict]:
    """The candidates' lines of a result file."""
    return [e for e in journal.read(path)[0] if e["kind"] == "candidate"]


def card_name(libcuda: str, ordinal: int) -> str:
    """Name of the card. Raises Trouble("device") in one sentence where there is none."""
    import ctypes

    cu = Driver(libcuda)
    cu("cuInit", ctypes.c_uint(0))
    card, text = cu.number("cuDeviceGet", ctypes.c_int(ordinal)), ctypes.create_string_buffer(256)
    cu("cuDeviceGetName", text, ctypes.c_int(256), card)
    return text.value.decode()


# -- report ---------------------------------------------------------------------------------------------------------------------


def report(out: Path, plan: dict | None = None) -> str:
    """Write README.md and the picture from the data in `out`; the table's text."""
    result = read(out / DATA) if (out / DATA).exists() else Result()
    result.plan = list((plan or {}).values())
    parts = [checked(out), str(result)]
    if result.rows:
        parts.append(result.details())
    device = next((e for e in journal.read(out / f"{SUITE}.jsonl")[0] if e["kind"] == "device"), None)
    head = f"# {result.rows[0]['cpu'] if result.rows else device['device']['card'] if device else 'A GPU'}\n\n"
    head += _conditions(device) if device else ""
    (out / TABLE).write_text(head + _NOTES + "".join(f"```text\n{part}\n```\n\n" for part in parts if part).rstrip() + "\n")
    if result.rows:
        try:
            from .plot import draw

            draw(result, out / PICTURE)
        except ModuleNotFoundError as error:
            print(f"no picture: {error.name} is not installed; `--read {out}` draws it elsewhere")
    return "\n\n".join(part for part in parts if part)


_NOTES = """Medians of interleaved rounds between CUDA events, caches warm, cuDNN's benchmark mode on. "graph": several calls as one CUDA graph, which takes the cost of launching out; convgen is
timed so, and PyTorch both ways. "channels_last" inputs were converted beforehand, which favours PyTorch where the workload is channels_first. Rows with TF32 compute at
lower precision and are shown only. Our kernels passed every oracle on this card before they were timed.

"""


def _conditions(device: dict) -> str:
    d = device["device"]
    clock = f", up to {d['boost_mhz']} MHz" if d.get("boost_mhz") else ""
    return f"{device['date'][:10]}, {d['card']} ({d.get('isa', '')}{clock}), driver {d.get('driver') or 'unknown'}, CUDA {d.get('cuda')}, kernel {d['kernel']}, Python {d['python']}.\n\n"


def checked(out: Path) -> str:
    """What the check of every operator found, a line each."""
    entries = tried(out / f"{CHECK}.jsonl")
    if not entries:
        return ""
    right = [e for e in entries if e["status"] == "ok"]
    wrong = [f"{e['candidate']} {e['status']}: {e['message']}" for e in entries if e["status"] != "ok"]
    worst = max((e["ratio"] for e in right), default=0.0)
    return "\n".join([f"every operator on the card: {len(right)} of {len(entries)} kernels are right by every oracle; the largest error is {worst:.2f} of its bound", *wrong])


# -- command line ---------------------------------------------------------------------------------------------------------------


def main(words=None) -> int:
    """0 done, 1 something failed or the time was over, 2 usage, 3 no GPU."""
    from ..cli import arguments

    parser = argparse.ArgumentParser(prog="python -m convgen.bench.gpu", description=__doc__.partition("\n")[0])
    arguments.add(parser, required=False, suites=True)  # without any workload: the suite spine
    parser.add_argument("--prepare", metavar="DIR", help="build what a visit needs, here")
    parser.add_argument("--target", default="cuda:sm_90", help="CUDA target (default cuda:sm_90)")
    parser.add_argument("--count", type=int, default=8, help="candidates per workload (default 8)")
    parser.add_argument("--logs", action="append", help="folder of records; may be repeated")
    parser.add_argument("--read", metavar="DIR", help="print and draw the data of an earlier visit")
    parser.add_argument("--out", help="folder of the results (default docs/measured/gpu-CARD-DATE)")
    parser.add_argument("--seconds", type=float, help="stop after that long; the same command goes on")
    parser.add_argument("--budget", type=float, default=2.0, help="seconds of each race (default 2)")
    parser.add_argument("--rounds", type=int, default=15, help="interleaved rounds (default 15)")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out: its search takes minutes")
    parser.add_argument("--device", type=int, default=0, help="number of the card (default 0)")
    parser.add_argument("--libcuda", default="libcuda.so.1", help="the driver's library")
    parser.add_argument("--dry-run", action="store_true", help="PyTorch on the processor, to try this out with a stand-in driver; figures mean nothing")
    options = parser.parse_args(words)
    try:
        if options.read:
            print(report(Path(options.read)))
            return 0
        if options.prepare:
            prepare(options.prepare, _suite(options), options.target, options.count, options.logs)
            return 0
        if len(options.words) != 1 or not (Path(options.words[0]) / VISIT).is_file():
            raise ArgumentError("name the folder that --prepare made (or --prepare DIR, or --read DIR)")
        visit = Visit(options.words[0], options)
        whole = visit.go()
        print((visit.out / TABLE).read_text())
        return 0 if whole else 1
    except Trouble as trouble:
        print(f"no visit: {trouble}", file=sys.stderr)
        return 3
    except (Error, OSError) as error:
        print(f"convgen.bench.gpu: {error}", file=sys.stderr)
        return 2 if isinstance(error, ArgumentError) else 1


def _suite(options) -> list:
    from ..cli import arguments
    return arguments.cases(options) or arguments.layers(["spine"])


if __name__ == "__main__":
    os.environ.setdefault("CUDA_MODULE_LOADING", "EAGER")  # the first call of a kernel must not load it between two events
    sys.exit(main())
