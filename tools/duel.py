"""What tools share that race one kernel of convgen against another: command line, libraries and exit code."""

from __future__ import annotations

import argparse
import os
import sys

import convgen
from convgen.cli import arguments

_OPTIONS = ("output", "target", "threads", "seconds", "rounds", "resume", "logs")


def parser(purpose: str, seconds: float) -> argparse.ArgumentParser:
    """A command line with the options of every race. seconds: of timing for each, if nothing else is said."""
    made = argparse.ArgumentParser(description=purpose)
    arguments.add(made, suites=True)
    made.add_argument("-o", "--output", required=True, metavar="DATA.jsonl")
    made.add_argument("--target", default="native")
    made.add_argument("--threads", type=int)
    made.add_argument("--seconds", type=float, default=seconds, help=f"of timing for each race (default {seconds:g})")
    made.add_argument("--rounds", type=int, default=15)
    made.add_argument("--resume", action="store_true", help="what the file holds is not raced again")
    made.add_argument("--logs", action="append")
    return made


def options(parsed) -> dict:
    """What was said of them."""
    return {name: getattr(parsed, name) for name in _OPTIONS}


def machine(target, threads: int | None):
    """The Target, with so many threads unless None."""
    found = convgen.targets.resolve(target)
    return found.with_threads(threads) if threads else found


def exported(workload, machine, logs, folder: str) -> str:
    """Path of a library of one kernel, in a folder of such libraries."""
    path = os.path.join(folder, f"kernel{len(os.listdir(folder))}.cvg")
    return convgen.export(workload, path, machine, logs=logs).path


def finished(name: str, run, overview) -> int:
    """The exit code of a tool. run() races; overview(result) is printed."""
    try:
        result = run()
    except convgen.Error as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    print(overview(result))
    return 0 if all(row["ok"] for row in result.rows) else 1
