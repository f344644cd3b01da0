"""Is somebody else using this machine while we measure? Read from /proc; None where that is missing."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

BUSY = 0.05  # processors' worth of foreign work per processor that is used, above which a row is marked


@dataclass(frozen=True)
class Load:
    """Means over an interval, in processors: `others` ran here besides us, `stolen` was taken by the hypervisor."""

    others: float
    stolen: float

    def busy(self, threads: int) -> bool:
        return max(self.others, self.stolen) > BUSY * threads

    def to_json(self) -> dict:
        return {"others": round(self.others, 3), "stolen": round(self.stolen, 3)}


class Watch:
    """Compares all processors' time with that of our own processes from its start to `stop`."""

    def __init__(self, groups=()):
        """groups: process groups that count as ours, besides this process and its waited-for children."""
        self.groups = set(groups)
        self.begun, self.total, self.own = time.monotonic(), _total(), self._own()

    def stop(self) -> Load | None:
        """The load since the start, None where it cannot be known."""
        seconds, total = time.monotonic() - self.begun, _total()
        if self.total is None or total is None or seconds <= 0:
            return None
        ran, stolen = total[0] - self.total[0], total[1] - self.total[1]
        return Load(max(0.0, ran - (self._own() - self.own)) / seconds, stolen / seconds)

    def _own(self) -> float:
        times = os.times()
        return times.user + times.system + times.children_user + times.children_system + sum(map(seconds_of_group, self.groups))


def await_quiet(longest: float, threads: int, groups=(), window: float = 0.5) -> bool:
    """Wait until nobody else computes here, at most `longest` seconds; whether it came to that."""
    end = time.monotonic() + longest
    while time.monotonic() < end:
        watch = Watch(groups)
        time.sleep(min(window, longest))
        load = watch.stop()
        if load is None or not load.busy(threads):
            return True
    return False


def _total() -> tuple[float, float] | None:
    """(seconds that all processors worked, seconds stolen) since boot."""
    try:
        with open("/proc/stat") as file:
            fields = [int(f) for f in file.readline().split()[1:9]]
    except (OSError, ValueError):
        return None
    user, nice, system, _, _, irq, softirq, stolen = (fields + [0] * 8)[:8]
    tick = os.sysconf("SC_CLK_TCK")
    return (user + nice + system + irq + softirq) / tick, stolen / tick


def seconds_of_group(group: int) -> float:
    """Processor seconds of all processes of a group and of children they waited for."""
    total, tick = 0, os.sysconf("SC_CLK_TCK")
    try:
        pids = [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return 0.0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        if int(fields[2]) == group:
            total += sum(map(int, fields[11:15]))
    return total / tick
