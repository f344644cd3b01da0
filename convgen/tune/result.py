"""What a tuning run hands back."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field


@dataclass
class Row:
    """One workload. Times in microseconds; ratios say how many times faster than the other (above 1 is faster), None if unknown.

    `us` and `spread` are median and interquartile range of the final race; ratios and `curve` compare least times, which other
    work on the machine does not change. `trials` counts candidates tried, earlier runs included; `failures` counts them by kind;
    `record` is the winning record (None if nothing passed); `curve` holds (seconds, trials, best µs) of this run; `note` says
    why the workload has no result or was stopped.
    """

    workload: str
    us: float | None = None
    spread: float | None = None
    baseline_ratio: float | None = None
    default_ratio: float | None = None
    trials: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    record: dict | None = None
    curve: list[tuple[float, int, float]] = field(default_factory=list)
    count: int = 1
    note: str | None = None


@dataclass
class TuneResult:
    """Rows in the order of the workloads. `interrupted`: Ctrl-C ended the run, everything measured so far is saved.

    `store` is the folder that records were written to (None: memory only), `seconds` the time the call took.
    """

    rows: list[Row]
    interrupted: bool = False
    store: str | None = None
    seconds: float = 0.0

    def to_json(self) -> dict:
        """The result as plain JSON."""
        return asdict(self)

    def __str__(self) -> str:
        head = ("workload", "µs", "spread", "vs torch", "vs default", "trials", "failures")
        table = [head] + [(
            row.workload, _number(row.us), _number(row.spread), _ratio(row.baseline_ratio), _ratio(row.default_ratio), str(row.trials),
            failures_text(row.failures) or "-") for row in self.rows]
        widths = [max(len(line[i]) for line in table) for i in range(len(head))]
        lines = ["  ".join([line[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(line[1:6], widths[1:6])), line[6]]) for line in table]
        lines += [f"{row.workload}: {row.note}" for row in self.rows if row.note]
        if self.interrupted:
            lines.append("interrupted; everything measured so far is saved, the same call continues")
        return "\n".join(line.rstrip() for line in lines)


def failures_text(failures: dict[str, int]) -> str:
    """Failures by kind in one short text."""
    return ", ".join(f"{count} {kind}" for kind, count in sorted(failures.items()))


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.4g}" if value < 1000 else f"{value:,.0f}"


def _ratio(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.2f}x"
