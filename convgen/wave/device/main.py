"""`python3 run.py`: check the bundle, try every candidate, race the best, and keep each result as soon as it is there."""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import re
import sys
import time

from .child import Child, serve
from .journal import append, read
from .trouble import Trouble
from .work import Wave

FORMAT = 1
KEPT = 4  # fastest candidates that race the default at the end
TOGETHER = 24  # candidates that one process tries before it is replaced
START = 60.0  # seconds for a fresh process to load the driver and draw the inputs
HOPELESS = 4.0  # a candidate this many times slower than the best is not timed to the end


class Damaged(Exception):
    """The bundle is not what was made."""


def check_bundle(root: str) -> str:
    """Compare every file with SHA256SUMS; the wave's id. Raises Damaged. Nothing of the bundle is used before this."""
    listed = {}
    with open(os.path.join(root, "SHA256SUMS")) as file:
        for line in file:
            digest, _, name = line.rstrip("\n").partition("  ")
            if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or ".." in name:
                raise Damaged("SHA256SUMS names a strange file: %r" % name)
            listed[name] = digest
    for name in ("wave.json", "run.py"):
        if name not in listed:
            raise Damaged("SHA256SUMS does not list " + name)
    for name, digest in listed.items():
        try:
            with open(os.path.join(root, name), "rb") as file:
                found = hashlib.sha256(file.read()).hexdigest()
        except OSError as error:
            raise Damaged("%s cannot be read: %s" % (name, error.strerror))
        if found != digest:
            raise Damaged("%s is damaged: its sha256 is %s and should be %s" % (name, found[:16], digest[:16]))
    return listed["wave.json"][:16]


class Measuring:
    """One run over a wave: what earlier runs left, the measuring process, the result file."""

    def __init__(self, root: str, identity: str, options):
        with open(os.path.join(root, "wave.json")) as file:
            self.wave = Wave(root, json.load(file))
        self.root, self.identity, self.options = root, identity, options
        self.manifest = self.wave.manifest
        self.child = None
        self.begun = time.monotonic()
        self.device = self._fresh()
        self.path = options.result or os.path.join(root, "result-%s.jsonl" % plain(self.device["card"]))
        self.done, self.finals, self.torch = {}, set(), set()
        self._continue()

    def _continue(self) -> None:
        """Take over what an earlier run on this device measured; refuse a file that is about something else."""
        entries, problems = read(self.path)
        for number, reason in problems:
            say("%s line %d was skipped: %s" % (self.path, number, reason))
        for entry in entries:
            if entry.get("wave") != self.identity:
                raise Trouble("device", "%s holds results of wave %s and this is wave %s; give another file with --result" % (self.path, entry.get("wave"), self.identity))
            if entry["kind"] == "device" and differing(entry["device"], self.device):
                raise Trouble("device", "%s holds results of another device (%s); give another file with --result" % (self.path, differing(entry["device"], self.device)))
            if entry["kind"] == "candidate":
                self.done.setdefault(entry["candidate"], entry)
            elif entry["kind"] == "final":
                self.finals.add(entry["workload"])
            elif entry["kind"] == "torch":
                self.torch.add(entry["workload"])
        if not any(entry["kind"] == "device" for entry in entries):
            self._keep("device", device=self.device, made_for=self.manifest["target"]["name"])

    def _keep(self, kind: str, **fields) -> dict:
        entry = {"format": FORMAT, "wave": self.identity, "kind": kind, "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **fields}
        append(self.path, entry)
        return entry

    # -- the measuring process ----------------------------------------------------------------------------------------------

    def _ask(self, limit: float, command: str, *arguments):
        """Ask the process, a fresh one where the last failed or has served long enough; it is ended by any Trouble."""
        if self.child is not None and self.child.served >= TOGETHER:
            self._end()
        if self.child is None:
            self._fresh()
        try:
            return self.child.ask(limit, command, *arguments)
        except BaseException:
            self._end()
            raise

    def _fresh(self) -> dict:
        """Start a process and have it open the device, which must not count as a candidate's time; the device's facts."""
        options = {"device": self.options.device, "libcuda": self.options.libcuda}
        flags = [flag for flag, given in (("-I", sys.flags.isolated), ("-E", sys.flags.ignore_environment), ("-S", sys.flags.no_site)) if given]
        self.child = Child([sys.executable, *flags, os.path.abspath(sys.argv[0]), "--child"], options, environment(self.manifest["threads"]))
        try:
            facts = self.child.ask(START, "facts")
        except BaseException:
            self._end()
            raise
        self.child.served = 0
        return facts

    def _end(self) -> None:
        if self.child is not None:
            self.child.end()
            self.child = None

    def late(self) -> bool:
        """True once the time given is over."""
        return self.options.seconds is not None and time.monotonic() - self.begun > self.options.seconds

    # -- the steps ----------------------------------------------------------------------------------------------------------

    def go(self) -> bool:
        """Every step that is missing; False if the time ended before."""
        for number, workload in enumerate(self.manifest["workloads"]):
            mine = [c for c in self.manifest["candidates"] if c["workload"] == number]
            for candidate in mine:
                if candidate["id"] not in self.done:
                    if self.late():
                        return False
                    self._try(workload, candidate)
            if self.late():
                return False
            self._final(number, workload, mine)
        self._end()
        return True

    def _try(self, workload: dict, candidate: dict) -> None:
        best = self.best(candidate["workload"])
        limit = self.options.limit or allowance(workload, best, self.options.budget)
        began, fields = time.monotonic(), None
        for attempt in range(2):
            alone = self.child is None or self.child.served == 0
            try:
                fields = {"status": "ok", **self._ask(limit, "candidate", candidate["id"], self.options.budget, best * HOPELESS if best else None)}
                break
            except Trouble as trouble:
                if trouble.kind == "device":
                    raise
                fields = {"status": trouble.kind, "message": str(trouble)[:300]}
                if alone or trouble.kind == "run_timeout":
                    break  # otherwise another candidate may have harmed the process: once more, alone
        entry = self._keep("candidate", candidate=candidate["id"], code=candidate["code"], seconds=round(time.monotonic() - began, 2), **fields)
        self.done[candidate["id"]] = entry
        say("%-6s %s  %s" % (candidate["id"], workload["id"], "%.4g us" % entry["min_us"] if entry["status"] == "ok" else entry["status"] + ": " + entry["message"]))

    def best(self, workload: int):
        """Least microseconds of a workload so far, or None."""
        times = [self.done[c["id"]]["min_us"] for c in self.manifest["candidates"]
                 if c["workload"] == workload and self.done.get(c["id"], {}).get("status") == "ok"]
        return min(times, default=None)

    def _final(self, number: int, workload: dict, candidates: list) -> None:
        """Race the default, the best of before and the fastest of this wave; then the winner against PyTorch."""
        passed = [c for c in candidates if self.done[c["id"]]["status"] == "ok"]
        if not passed:
            return
        speed = lambda c: self.done[c["id"]]["min_us"]  # noqa: E731
        field = [c for c in passed if c["role"] != "new"]
        field += sorted((c for c in passed if c["role"] == "new"), key=speed)[:KEPT]
        names, budget = [c["id"] for c in field], self.options.final
        limit = START + 20 * (budget + sum(map(speed, field)) * 1e-6 * 16)
        try:
            if number not in self.finals:
                rows = self._ask(limit, "race", names, budget, 16)
                self._keep("final", workload=number, candidates=names, **rows)
            if number not in self.torch and not self.options.no_torch and importlib.util.find_spec("torch") is not None:
                winner = min(field, key=speed)["id"]
                self._keep("torch", workload=number, candidate=winner, **self._ask(limit + START, "torch", [winner], budget, 16))
        except Trouble as trouble:
            say("%s: the final race failed (%s); single measurements decide" % (workload["id"], trouble))


def allowance(workload: dict, best_us, budget: float) -> float:
    """Seconds for one candidate: 20 times what the best takes for its repeats and for the comparisons, half a minute while nothing is known."""
    comparing = 5.0 + workload["bytes_compared"] * 2e-7
    if best_us is None:
        return 30.0 + comparing
    return max(2.0, 20 * best_us * 1e-6 * max(40.0, 2 * budget / (best_us * 1e-6))) + comparing


def environment(threads: int) -> dict:
    """Of the measuring process: as many threads as the wave is for, and memory that is not mapped anew at every call."""
    usable = len(os.sched_getaffinity(0))
    return {**os.environ, "OMP_NUM_THREADS": str(min(threads, usable)), "MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 32)}


def differing(there: dict, here: dict):
    """The first fact about the device that is not the same, as words, or None."""
    for key in ("card", "isa", "threads", "driver", "architecture"):
        if there.get(key) != here.get(key):
            return "%s is %r, here %r" % (key, there.get(key), here.get(key))
    return None


def plain(text: str) -> str:
    """A name for a file."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40] or "device"


def say(text: str) -> None:
    print(text, flush=True)


def table(measuring: Measuring) -> str:
    """What is known so far, a line per workload."""
    lines = []
    for number, workload in enumerate(measuring.manifest["workloads"]):
        mine = [measuring.done[c["id"]] for c in measuring.manifest["candidates"] if c["workload"] == number and c["id"] in measuring.done]
        good = [entry for entry in mine if entry["status"] == "ok"]
        default = next((measuring.done[c["id"]] for c in measuring.manifest["candidates"] if c["workload"] == number and c["role"] == "default" and c["id"] in measuring.done), None)
        text = "%s: %d tried, %d failed" % (workload["id"], len(mine), len(mine) - len(good))
        if good:
            least = min(entry["min_us"] for entry in good)
            text += ", best %.4g us" % least
            if default and default["status"] == "ok":
                text += ", %.2fx the default" % (default["min_us"] / least)
        lines.append(text)
    return "\n".join(lines)


def main(arguments=None) -> int:
    """0 all done, 1 failed, 2 wrong device or damaged bundle, 3 time over, 130 interrupted; results so far are kept in every case."""
    root = os.path.dirname(os.path.abspath(sys.argv[0]))
    if arguments is None and sys.argv[1:] == ["--child"]:
        serve(root)
        return 0
    parser = argparse.ArgumentParser(description="Verify and measure the candidates of this wave on this machine; run again to go on where it stopped.")
    parser.add_argument("--result", help="file to append results to (default: beside this script, named after the device)")
    parser.add_argument("--seconds", type=float, help="stop after that long; the next run goes on")
    parser.add_argument("--budget", type=float, default=0.1, help="seconds of timing for each candidate (default 0.1)")
    parser.add_argument("--final", type=float, default=1.0, help="seconds of each final race (default 1)")
    parser.add_argument("--limit", type=float, help="seconds of running after which a candidate hangs (default: from the best so far)")
    parser.add_argument("--device", type=int, default=0, help="number of the CUDA card (default 0)")
    parser.add_argument("--libcuda", default="libcuda.so.1", help="the driver's library")
    parser.add_argument("--no-torch", action="store_true", help="do not race PyTorch even where it is installed")
    parser.add_argument("--check", action="store_true", help="only compare the files with their checksums")
    options = parser.parse_args(arguments)
    measuring = None
    try:
        identity = check_bundle(root)
        if options.check:
            say("wave %s is complete and undamaged" % identity)
            return 0
        measuring = Measuring(root, identity, options)
        say("wave %s on %s, results in %s" % (identity, measuring.device["card"], measuring.path))
        finished = measuring.go()
    except (Damaged, OSError) as error:
        say("run.py: %s" % error)
        return 2
    except Trouble as trouble:
        say("run.py: %s" % trouble)
        return 2 if trouble.kind == "device" else 1
    except KeyboardInterrupt:
        say("\ninterrupted; run again to go on")
        return 130
    finally:
        if measuring is not None:
            measuring._end()
    say(table(measuring))
    say("all done; bring back %s" % measuring.path if finished else "the time is over; run again to go on")
    return 0 if finished else 3


if __name__ == "__main__":
    sys.exit(main())
