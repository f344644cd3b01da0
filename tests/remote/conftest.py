"""A tracker and servers of this checkout on the loopback, each a process of its own."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MISSING = [name for name in ("tvm", "tornado") if importlib.util.find_spec(name) is None]


class Farm:
    """Starts `convgen device ...` processes; `address` is the tracker's HOST:PORT."""

    def __init__(self):
        self.processes = []
        tracker = self.start("tracker", "--port", str(free_port()))
        self.address = self.line(tracker, "tracking at ").split("; ")[0].removeprefix("tracking at ")

    def start(self, *words):
        """A process of `convgen device`, in a session of its own."""
        process = subprocess.Popen([sys.executable, "-m", "convgen", "device", *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                                   cwd=ROOT, start_new_session=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})
        self.processes.append(process)
        return process

    def serve(self, *keys):
        """A server per key, listening; it is registered a moment later."""
        started = [self.start("serve", "--tracker", self.address, "--key", key, "--threads", "1", "--port", str(free_port())) for key in keys]
        for process in started:
            self.line(process, "serving on ")
        time.sleep(0.5)
        return started

    @staticmethod
    def line(process, begin: str) -> str:
        for line in process.stdout:
            if line.startswith(begin):
                return line.strip()
        raise AssertionError(f"the process ended without saying {begin!r}")

    def close(self):
        for process in self.processes:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()


def free_port() -> int:
    """A port that nobody listens on now."""
    import socket
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def farm():
    if MISSING:
        pytest.skip(f"needs {', '.join(MISSING)}, convgen[tune,device]")
    made = Farm()
    yield made
    made.close()


@pytest.fixture(scope="session")
def key(farm):
    """Key of two servers that live as long as the tests."""
    farm.serve("lasting", "lasting")
    return "lasting"
