"""Contestants whose times are known: in their process the clock is a counter that their calls advance."""

import os
import threading
import time
from pathlib import Path

from convgen.bench.case import NotOffered, Ready
from convgen.tune import timing


class Clock:
    """Stands for the module time. From `slow_from` seconds on everything takes twice as long, as on a machine that got warm."""

    def __init__(self):
        self.now, self.slow_from = 0.0, float("inf")

    def perf_counter(self):
        self.now += 1e-9  # reading a clock takes time, so loops that wait for it end
        return self.now

    def work(self, us):
        self.now += us * 1e-6 * (2 if self.now > self.slow_from else 1)


CLOCK = timing.time = Clock()


def timed(case, us, add=0.0, drift=None, output="fresh"):
    """Correct up to `add`, and `us` microseconds long."""
    right = case.workload.baseline(**case.tensors)
    if drift:
        CLOCK.slow_from = CLOCK.now + drift

    def call():
        CLOCK.work(us)
        return right + add
    return Ready(call, lambda y: y.numpy(), output)


def misshapen(case):
    ready = timed(case, 1)
    return Ready(ready.call, lambda y: y.numpy()[:, 1:])


def undefined(case):
    return timed(case, 1, float("nan"))


def absent(case):
    raise NotOffered("it has the day off")


def broken(case):
    raise ValueError("no such layer")


def dying(case, calls):
    """Ends its process after that many calls."""
    ready, left = timed(case, 50), [calls]

    def call():
        left[0] -= 1
        if left[0] < 0:
            os._exit(3)
        return ready.call()
    return Ready(call, ready.result)


def doomed(case):
    """Ends its process while it is prepared."""
    os._exit(4)


def meeting(case, folder, me, other):
    """Ready once another contestant is being prepared, too."""
    Path(folder, me).touch()
    for _ in range(6000):
        if Path(folder, other).exists():
            return timed(case, 100)
        time.sleep(0.02)
    raise ValueError(f"{other} did not come")


def spinning(case):
    """Leaves a thread that never rests."""
    def spin():
        while True:
            pass
    threading.Thread(target=spin, daemon=True).start()
    return timed(case, 10)
