"""A tracker and servers of this checkout on the loopback, each a process of its own."""

import importlib.util
import json
import os
import signal
import socket
import struct
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
        _, said = self.listening("tracking at ", "tracker")
        self.address = said.split("; ")[0].removeprefix("tracking at ")

    def start(self, *words):
        """A process of `convgen device`, in a session of its own."""
        process = subprocess.Popen([sys.executable, "-m", "convgen", "device", *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                                   cwd=ROOT, start_new_session=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})
        self.processes.append(process)
        return process

    def listening(self, begin: str, *words):
        """(process, its line that begins so) of a process that listens at a port of its own."""
        for attempt in range(5):  # somebody else may be faster to take the port
            process = self.start(*words, "--port", str(free_port()))
            try:
                return process, self.line(process, begin)
            except AssertionError:
                if attempt == 4:
                    raise

    def serve(self, *keys, more=()):
        """A server per key, registered."""
        before = {key: self.registered(key) for key in keys}
        started = [self.listening("serving on ", "serve", "--tracker", self.address, "--key", key, "--threads", "1", *more)[0] for key in keys]
        for key in keys:
            self.until(key, before[key] + keys.count(key))
            self.wait(lambda: self.summary()["queue_info"].get(key, {"free": 0})["free"] == self.registered(key), f"not all servers of the key {key} became free")
        return started

    def until(self, key: str, count: int) -> None:
        """Wait until so many servers of a key are registered."""
        self.wait(lambda: self.registered(key) == count, f"there never were {count} servers of the key {key}")

    @staticmethod
    def wait(condition, otherwise: str) -> None:
        for _ in range(2400):
            if condition():
                return
            time.sleep(0.05)
        raise AssertionError(otherwise)

    def registered(self, key: str) -> int:
        """How many servers of a key the tracker knows, free or not."""
        return [server["key"] for server in self.summary()["server_info"]].count(f"server:{key}")

    def summary(self) -> dict:
        """What the tracker says of itself, by its protocol: messages of JSON behind their length."""
        with socket.create_connection(("127.0.0.1", int(self.address.rpartition(":")[2])), timeout=120) as link:
            answers, asked = link.makefile("rb"), json.dumps([6]).encode()
            link.sendall(struct.pack("<i", 0x2F271))
            answers.read(4)  # the same number
            link.sendall(struct.pack("<i", len(asked)) + asked)
            _, value = json.loads(answers.read(struct.unpack("<i", answers.read(4))[0]))
        return value

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
