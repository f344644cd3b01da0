"""The process that candidates run in, and the parent's hold on it. Requests and answers are JSON lines."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import signal
import subprocess
import sys
import time

from .cpu import HostDevice
from .cuda import CardDevice
from .peers import race_torch
from .trouble import Trouble
from .work import Wave, race, try_candidate


def open_device(wave: Wave, options: dict):
    """The device that a wave is for; raises Trouble("device") where it is not this machine's."""
    target = wave.manifest["target"]
    if target["family"] == "cuda":
        return CardDevice(target, options["device"], options["libcuda"])
    most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 3 // 4
    resource.setrlimit(resource.RLIMIT_AS, (most, most))  # a kernel that eats memory must not take the machine down
    return HostDevice(wave.file(wave.manifest["runtime"]), target)


def serve(root: str) -> None:
    """Answer requests until the parent goes away."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG: no orphan keeps the device busy
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.dup(1)  # what a kernel prints must not mix with the answers, nor flood the terminal
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    with open(os.path.join(root, "wave.json")) as file:
        wave = Wave(root, json.load(file))
    device = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if device is None:
                device = open_device(wave, request["options"])
            answer = {"ok": COMMANDS[request["command"]](device, wave, *request["arguments"])}
        except Trouble as trouble:
            answer = {"kind": trouble.kind, "message": str(trouble)}
        except MemoryError:
            answer = {"kind": "oom", "message": "out of memory"}
        except Exception as error:  # whatever else goes wrong with a candidate costs that candidate
            answer = {"kind": "crash", "message": "%s: %s" % (type(error).__name__, error)}
        data = (json.dumps(answer) + "\n").encode()
        while data:
            data = data[os.write(answers, data):]


# A process that does not run, since others have the processors or it was stopped, does not hang: so many times its limit may pass, and a minute at least.
PATIENCE, LEAST_PATIENCE = 4, 60.0

COMMANDS = {"facts": lambda device, wave: device.facts(), "candidate": try_candidate, "race": race, "torch": race_torch}


class Child:
    """A measuring process. `script` runs `serve`; `options` are those of `open_device`."""

    def __init__(self, command: list, options: dict, environment: dict):
        self.options, self.served = options, 0
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True)

    def ask(self, limit: float, command: str, *arguments):
        """The answer to a request; raises Trouble of the failure's kind. After any Trouble the process must be ended."""
        self.served += 1
        request = json.dumps({"command": command, "arguments": arguments, "options": self.options}) + "\n"
        try:
            self._process.stdin.write(request.encode())
            self._process.stdin.flush()
        except OSError:
            raise self._died()
        answer = json.loads(self._line(limit))
        if "ok" in answer:
            return answer["ok"]
        raise Trouble(answer["kind"], answer["message"])

    def _line(self, limit: float) -> bytes:
        begun, ran, found = time.monotonic(), self._ran(), b""
        end, descriptor = begun + limit, self._process.stdout.fileno()
        while not found.endswith(b"\n"):
            if not select.select([descriptor], [], [], max(0.0, end - time.monotonic()))[0]:
                left = min(0.9 * limit - (self._ran() - ran), begun + max(PATIENCE * limit, LEAST_PATIENCE) - time.monotonic())
                if left <= 0:
                    raise Trouble("run_timeout", "no result within %.3g s" % limit)
                end = time.monotonic() + max(0.05, left)  # it was stopped, or others have the processors
                continue
            part = os.read(descriptor, 1 << 16)
            if not part:
                raise self._died()
            found += part
        return found

    def _ran(self) -> float:
        """Processor seconds of the process so far."""
        with open("/proc/%d/stat" % self._process.pid) as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _died(self) -> Trouble:
        status = self._process.wait()
        return Trouble("crash", "the process ended by signal %d (%s)" % (-status, signal.Signals(-status).name) if status < 0 else "the process ended with status %d" % status)

    def end(self) -> None:
        """Kill the process and what it started."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            try:
                pipe.close()
            except OSError:
                pass
