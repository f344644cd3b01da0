"""Connections of the client process: to the tracker, and through it to one server at a time. Needs TVM."""

from __future__ import annotations

import json
import select
import signal
import socket
import struct
import time
from contextlib import contextmanager

from tvm import rpc
from tvm.rpc import base

from ..errors import WorkerError
from .facts import FUNCTION, LIMIT, patience, unfit
from .kernel import RemoteKernel

ANSWER = 10.0  # seconds beyond a session's end after which a server that still says nothing is given up
SPOKEN = 40.0  # seconds within which a tracker that is there answers, on a busy machine
PATIENCE = 30.0  # seconds without any server of the key before there is none left; a server that restarts is back sooner
_unlimited: set[str] = set()  # addresses of TVM's own servers: they cannot limit what a session computes, only how long it lasts
LOOK = 0.5  # seconds between two looks whether there is a server; patience counts looks, so that whoever was held up looks again


class TrackerLink:
    """One connection to a tracker, in its protocol: requests of JSON behind their length. Raises WorkerError("device")."""

    def __init__(self, host: str, port: int):
        self.name = f"{host}:{port}"
        try:
            self._socket = socket.create_connection((host, port), timeout=10.0)
            self._socket.settimeout(SPOKEN)
            self._socket.sendall(struct.pack("<i", base.RPC_TRACKER_MAGIC))
            known = struct.unpack("<i", base.recvall(self._socket, 4))[0] == base.RPC_TRACKER_MAGIC
        except OSError as error:
            raise WorkerError("device", f"no tracker answers at {self.name}: {error.strerror or error}") from None
        if not known:
            raise WorkerError("device", f"what listens at {self.name} is no tracker")

    def registered(self) -> list[tuple[str, str]]:
        """(address, key) of every server, busy ones included."""
        base.sendjson(self._socket, [base.TrackerCode.SUMMARY])
        return sorted((f"{s['addr'][0]}:{s['addr'][1]}", s["key"].partition(":")[2]) for s in self.answer()["server_info"])

    def servers(self, key: str) -> list[str]:
        """Addresses of the servers that are registered under a key."""
        return [address for address, theirs in self.registered() if theirs == key]

    def request(self, key: str) -> None:
        """Ask for the next free server of a key; its answer comes when there is one."""
        base.sendjson(self._socket, [base.TrackerCode.REQUEST, key, "", 1])

    def ready(self, seconds: float) -> bool:
        """True once an answer can be read; waits for it at most that long."""
        return bool(select.select([self._socket], [], [], seconds)[0])

    def answer(self):
        """The tracker's answer to the last request."""
        code, value = base.recvjson(self._socket)
        if code != base.TrackerCode.SUCCESS:
            raise WorkerError("device", f"the tracker at {self.name} refused a request: {value}")
        return value

    def close(self) -> None:
        """Give up this connection; a request without an answer is forgotten by the tracker."""
        self._socket.close()


def acquire(tracker: dict, seconds: float, wait: float):
    """(session, address, monotonic time at which it began) of the next free server; the server ends the session after `patience(seconds)`,
    one that cannot limit what is computed after `seconds`.

    Waits at most `wait` seconds while servers are busy, WorkerError("busy"), and PATIENCE where none is registered, "device".
    """
    name, key = f"{tracker['host']}:{tracker['port']}", tracker["key"]
    waited = missed = failed = 0.0
    unreached = None  # a server that the tracker named and that did not answer
    watch = TrackerLink(tracker["host"], tracker["port"])
    try:
        while True:
            asked = TrackerLink(tracker["host"], tracker["port"])
            try:
                asked.request(key)
                while not asked.ready(LOOK):
                    waited, missed = waited + LOOK, 0.0 if watch.servers(key) else missed + LOOK
                    if missed > min(PATIENCE, wait):
                        raise WorkerError("device", f"no server with the key {key!r} is left at the tracker {name}")
                    if waited > wait:
                        raise unreached or WorkerError("busy", f"no server with the key {key!r} at the tracker {name} was free within {wait:.0f} s")
                host, port, matchkey = asked.answer()
                # A machine that was switched off says nothing, and TVM waits for it without end: the alarm then ends this process.
                whole = seconds if f"{host}:{port}" in _unlimited else patience(seconds)
                signal.setitimer(signal.ITIMER_REAL, whole + ANSWER)
                begun = time.monotonic()
                return rpc.connect(host, port, matchkey, session_timeout=whole), f"{host}:{port}", begun
            except OSError as error:
                raise WorkerError("device", f"the tracker at {name} was lost: {error}") from None
            except RuntimeError:  # that server has just died, and the tracker will notice; or its address is no good
                signal.setitimer(signal.ITIMER_REAL, 0)
                unreached = WorkerError("device", f"the server {host}:{port} that the tracker {name} names cannot be reached")
                failed += LOOK
                if failed > min(PATIENCE, wait):
                    raise unreached from None
                time.sleep(LOOK)
            finally:
                asked.close()
    finally:
        watch.close()


class Session:
    """One server, for `seconds` of computing at most. `facts` is what it says of its machine, {} for a server that says nothing."""

    def __init__(self, tracker: dict, seconds: float, wait: float):
        self.seconds = seconds
        self._again = lambda: acquire(tracker, seconds, wait)
        self.remote, self.address, self.begun = self._again()
        self.facts: dict = {}
        self._count = 0

    def prepare(self, target: dict, emulated: bool) -> None:
        """Limit the session, read the facts and set the threads; WorkerError("device") where this machine cannot measure for the target."""
        while self.address not in _unlimited:
            try:
                self.remote.get_function(LIMIT)(self.seconds * target["threads"])
                break
            except AttributeError:
                _unlimited.add(self.address)
                self.close()
                self.remote, self.address, self.begun = self._again()
        try:
            self.facts = json.loads(self.remote.get_function(FUNCTION)())
        except AttributeError:
            self.facts = {}  # TVM's own server
        reason = unfit(self.facts, target, emulated) if self.facts else None
        if reason is None:
            self.remote.get_function("runtime.config_threadpool")(0, int(target["threads"]))
            threads = self.remote.get_function("runtime.NumThreads")()
            if threads != target["threads"]:
                reason = (f"it offers {threads} thread{'s' * (threads != 1)}, the target asks for {target['threads']}; "
                          f"start it with --threads {target['threads']}, or TVM's own with TVM_NUM_THREADS={target['threads']}")
        if reason:
            raise WorkerError("device", f"the server {self.address} cannot measure for {target['name']}: {reason}")

    def load(self, path: str, entry: dict, dims: dict) -> RemoteKernel:
        """A linked candidate, sent to the server and loaded there."""
        self._count += 1
        name = f"kernel{self._count}.so"
        self.remote.upload(path, name)
        return RemoteKernel(self.remote.load_module(name), self.remote.cpu(0), entry, dims)

    def failure(self, error: Exception) -> WorkerError:
        """What an error of TVM's means: the time was over, the kernel failed, or the server's process is gone ("lost")."""
        text = next((line for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)[:200]
        if "SessionTimeout" in type(error).__name__ or time.monotonic() - self.begun >= self.seconds:
            return WorkerError("run_timeout", f"no answer within {self.seconds:.3g} s")
        try:
            self.remote.get_function(FUNCTION)
        except AttributeError:
            pass
        except Exception:  # the connection is gone
            return WorkerError("lost", f"the connection to {self.address} ended: {text}")
        return WorkerError("crash", text)

    def close(self) -> None:
        """Free the server for the next one."""
        try:
            self.remote.get_function("CloseRPCConnection")()
        except Exception:  # it is closed already
            pass
        signal.setitimer(signal.ITIMER_REAL, 0)


@contextmanager
def session(tracker: dict, target: dict, seconds: float, wait: float, emulated: bool):
    """A Session whose errors are WorkerErrors, closed at the end."""
    opened = Session(tracker, seconds, wait)
    try:
        opened.prepare(target, emulated)
        yield opened
    except WorkerError:
        raise
    except Exception as error:  # tvm raises many types for one thing
        raise opened.failure(error) from None
    finally:
        opened.close()
