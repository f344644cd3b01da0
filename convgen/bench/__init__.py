"""Races between convgen's kernels and what people run today, on this machine: `convgen.bench.run([workload, ...])`."""

from .contestants import Contestant, offered
from .overhead import overhead, overhead_table
from .race import run
from .report import Result, read

__all__ = ["Contestant", "Result", "offered", "overhead", "overhead_table", "read", "run"]
