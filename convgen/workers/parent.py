"""The parent's half: start a worker, ask it, enforce the time limit, kill and restart it."""

from __future__ import annotations

import atexit
import fcntl
import json
import logging
import os
import queue
import select
import shutil
import signal
import site
import struct
import subprocess
import sys
import termios
import threading
import time
import weakref
from typing import Any, Mapping, Sequence

from ..errors import WorkerError
from .scratch import scratch_folder

log = logging.getLogger("convgen")

_TAIL = 8192  # bytes of a worker's stderr that are kept for messages
_LONGEST_ANSWER = 64 << 20
_START_LIMIT = 240.0  # seconds for the interpreter to come up on a busy machine
_REST_LIMIT = 60.0  # seconds for the rest of an answer that began in time and is longer than a pipe holds
_live: "weakref.WeakSet[Worker]" = weakref.WeakSet()


def default_memory_limit() -> int:
    """Address space one worker may use, in bytes: three quarters of the machine, at least 4 GiB."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        total = 0
    return max(4 << 30, total * 3 // 4)


class _Spawner:
    """One lasting thread that starts every child.

    PDEATHSIG fires when the *thread* that started a child ends, so children must not be started from short-lived threads.
    """

    def __init__(self):
        self.pid, self.jobs, self.lock = -1, None, threading.Lock()

    def popen(self, *arguments, **options) -> subprocess.Popen:
        with self.lock:
            if self.pid != os.getpid():  # first use, or first use after a fork
                self.pid, self.jobs = os.getpid(), queue.SimpleQueue()
                threading.Thread(target=self._run, args=(self.jobs,), name="convgen-spawner", daemon=True).start()
            jobs = self.jobs
        reply: queue.SimpleQueue = queue.SimpleQueue()
        jobs.put((arguments, options, reply))
        result = reply.get()
        if isinstance(result, BaseException):
            raise result
        return result

    @staticmethod
    def _run(jobs):
        while True:
            arguments, options, reply = jobs.get()
            try:
                reply.put(subprocess.Popen(*arguments, **options))
            except BaseException as error:  # handed to the caller of popen()
                reply.put(error)


_spawner = _Spawner()


def _environment(extra: Mapping[str, str] | None, memory: int) -> dict[str, str]:
    env = dict(os.environ)
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    installed = [os.path.abspath(p) for p in (*site.getsitepackages(), site.getusersitepackages())]
    if root not in installed:  # a checkout that was only put on sys.path
        env["PYTHONPATH"] = os.pathsep.join([root] + [p for p in [env.get("PYTHONPATH")] if p])
    env.update(extra or {})
    env["CONVGEN_WORKER_PARENT"] = str(os.getpid())
    env["CONVGEN_WORKER_MEMORY"] = str(memory)
    return env


class Worker:
    """A long-lived child that answers JSON requests; killed on timeout, restarted at the next request.

    `command` is the child's argument list (or a module name to run with `python -m`). `max_jobs` and `max_rss` (bytes) bound
    what one child may accumulate before it is replaced by a fresh one. A request that a child did not read before it died is
    given to a fresh one, once; `repeat=False` where requests build on what earlier ones left in the child. Not thread-safe: one
    request at a time.
    """

    def __init__(self, command: str | Sequence[str], *, env: Mapping[str, str] | None = None, memory: int | None = None,
                 max_jobs: int = 200, max_rss: int = 3 << 30, crash_kind: str = "crash", timeout_kind: str = "compile_timeout",
                 repeat: bool = True):
        self.command = [sys.executable, "-m", command] if isinstance(command, str) else list(command)
        self.env, self.memory = env, default_memory_limit() if memory is None else memory
        self.max_jobs, self.max_rss = max_jobs, max_rss
        self.crash_kind, self.timeout_kind, self.repeat = crash_kind, timeout_kind, repeat
        self.process: subprocess.Popen | None = None
        self.jobs = 0
        self.starts = 0
        self._busy = False
        self._deadline = self._limit = 0.0
        self._extended = False
        self._processor: float | None = None
        self._request: bytes | None = None  # the one in flight, if it may be repeated
        self._directory: str | None = None
        self._owner = -1
        self._buffer, self._errors = b"", b""
        _live.add(self)

    # -- life ---------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the child if none runs; raises WorkerError("crash") if it does not come up."""
        if self._owner != os.getpid():  # after a fork the child belongs to the other process: forget it, never kill it
            self.process, self._directory, self._busy, self._owner = None, None, False, os.getpid()
        if self.process is not None and self.process.poll() is None:
            return
        self.kill()
        self._directory = scratch_folder("worker")  # so that a stray file cannot land in the user's folder
        self._buffer = self._errors = b""
        try:
            self.process = _spawner.popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=self._directory,
                env=_environment(self.env, self.memory), start_new_session=True, bufsize=0, umask=0o077)
            for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
                os.set_blocking(stream.fileno(), False)
            self.jobs, self.starts = 0, self.starts + 1
            self._arm(_START_LIMIT)
            while True:  # lines before the handshake are noise of the interpreter's start, not protocol
                answer = self._wait()
                if isinstance(answer, dict) and "ready" in answer:
                    break
        except BaseException:  # Ctrl-C: a child that is not up yet must not be taken for one that is
            self.kill()
            raise
        self._busy = False

    @property
    def busy(self) -> bool:
        """True while a request of this process is in flight."""
        return self._busy and self._owner == os.getpid()

    @property
    def running(self) -> bool:
        """True if the child is up and belongs to this process."""
        return self.process is not None and self._owner == os.getpid() and self.process.poll() is None

    def kill(self) -> None:
        """End the child and everything it started, at once."""
        process, self.process, self._busy, self._request = self.process, None, False, None
        if self._owner != os.getpid():  # a fork's copy: child and folder are the other process's
            self._directory = None
        if process is not None and self._owner == os.getpid():
            if process.returncode is None:  # not reaped, so its number cannot belong to someone else
                try:
                    os.killpg(process.pid, signal.SIGKILL)
                except (ProcessLookupError, PermissionError):
                    process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                stream.close()
        if self._directory:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    close = kill

    # -- asking -------------------------------------------------------------------------------------------------------------

    def request(self, message: Mapping[str, Any], timeout: float, processor: float | None = None) -> Any:
        """Send one request and wait for its result; raises WorkerError with the kind of failure."""
        self.send(message, timeout, processor)
        return self.answer()

    def answer(self) -> Any:
        """Wait for the request in flight; raises WorkerError with the kind of failure."""
        try:
            while True:
                done, value = self.poll(self._deadline)
                if done:
                    return value
        except BaseException:
            if self.busy:  # Ctrl-C: the answer of an abandoned request must never be taken for the next one's
                self.kill()
            raise

    def send(self, message: Mapping[str, Any], timeout: float, processor: float | None = None) -> None:
        """Send a request without waiting; `poll` collects the answer.

        Limits: `timeout` in seconds, the child's start not counted, and `processor` in seconds that its threads may compute together.
        """
        if self.busy:
            raise RuntimeError("the worker still has a request in flight")
        self._processor = processor
        data = json.dumps(dict(message) if processor is None else {**message, "processor_seconds": processor}).encode() + b"\n"
        self._give(data, timeout, self.repeat)

    def _give(self, data: bytes, timeout: float, repeat: bool) -> None:
        self.start()
        try:
            self._arm(timeout)
            self._request = data if repeat else None
            self.jobs += 1
            self._write(data)
        except BaseException:
            if self.busy:
                self.kill()
            raise

    def descriptors(self) -> list[int]:
        """What to select on while a request is in flight."""
        return [self.process.stdout.fileno(), self.process.stderr.fileno()] if self.process else []

    @property
    def deadline(self) -> float:
        """Monotonic time at which the request in flight is over its limit."""
        return self._deadline

    def poll(self, until: float) -> tuple[bool, Any]:
        """(True, result) once the answer is here, (False, None) if monotonic time `until` came first."""
        answer = self._wait(until)
        if answer is None:
            return False, None
        self._busy = False
        if not isinstance(answer, dict) or not ("ok" in answer or "error" in answer):
            self.kill()
            raise WorkerError(self.crash_kind, "the worker answered something that is no answer")
        if self.jobs >= self.max_jobs or answer.get("rss", 0) > self.max_rss:
            self.kill()
        if "error" in answer:
            log.debug("worker: %s", answer.get("traceback") or answer.get("message"))
            raise WorkerError(answer["error"], answer.get("message", ""))
        return True, answer["ok"]

    # -- the pipe -----------------------------------------------------------------------------------------------------------

    def _arm(self, timeout: float) -> None:
        self._busy, self._limit, self._deadline, self._extended = True, timeout, time.monotonic() + timeout, False

    def _write(self, data: bytes) -> None:
        target = self.process.stdin.fileno()
        while data:
            left = self._deadline - time.monotonic()
            out, err = self.process.stdout.fileno(), self.process.stderr.fileno()
            readable, writable, _ = select.select([out, err], [target], [], max(0.0, left))
            if left <= 0 and not writable:
                self._over_limit()
            if err in readable:
                self._drain_errors()
            if writable:
                try:
                    data = data[os.write(target, data):]
                except BlockingIOError:
                    continue
                except BrokenPipeError:
                    return self._died(unread=True)
            elif out in readable and self.process.poll() is not None:
                return self._died(unread=True)

    def _wait(self, until: float | None = None) -> Any:
        """Next JSON line of the child, or None at `until`; raises WorkerError when it dies or is over its limit."""
        while True:
            line, found, rest = self._buffer.partition(b"\n")
            if found:
                self._buffer = rest
                try:
                    return json.loads(line)
                except ValueError:
                    return {}
            now = time.monotonic()
            end = self._deadline if until is None else min(until, self._deadline)
            out, err = self.process.stdout.fileno(), self.process.stderr.fileno()
            readable, _, _ = select.select([out, err], [], [], max(0.0, end - now))
            if now >= self._deadline and out not in readable:  # an answer that came while this process was held up counts
                self._over_limit()
            if not readable and until is not None and end == until:
                return None
            if err in readable:
                self._drain_errors()
            if out in readable:
                try:
                    data = os.read(out, 1 << 20)
                except BlockingIOError:
                    continue
                if not data:
                    self._died()
                    continue
                self._buffer += data
                if now >= self._deadline and b"\n" not in self._buffer:
                    if self._extended:
                        self._over_limit()
                    self._extended, self._deadline = True, now + _REST_LIMIT
                if len(self._buffer) > _LONGEST_ANSWER:
                    self.kill()
                    raise WorkerError(self.crash_kind, "the worker flooded its answer channel")
            if until is not None and time.monotonic() >= until and b"\n" not in self._buffer:
                return None  # a worker that prints without end must not hold up the others

    def _drain_errors(self) -> bool:
        """Keep the end of what the child wrote to stderr; False when there is no more of it now."""
        try:
            data = os.read(self.process.stderr.fileno(), 1 << 20)
        except BlockingIOError:
            return False
        if data:
            self._errors = (self._errors + data)[-_TAIL:]
        else:
            time.sleep(0.01)  # stderr is closed but the child lives on: do not spin
        return bool(data)

    def _over_limit(self):
        limit = self._limit
        self.kill()
        raise WorkerError(self.timeout_kind, f"no answer within {limit:.3g} s")

    def _died(self, unread: bool = False) -> None:
        """Raise why the child died; where it did not read the request to its end, which then cannot be the cause, give it to a fresh child."""
        process, request, limit = self.process, self._request, self._limit
        for _ in range(1000):  # a child may close its pipe a moment before it ends, or never end
            try:  # look without reaping: until it is reaped its process group is still ours to kill
                if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG):
                    break
            except ChildProcessError:
                break
            time.sleep(0.01)
        while self._drain_errors():
            pass
        unread = unread or _unread(process.stdin.fileno()) > 0
        self.kill()
        if request is not None and unread:
            return self._give(request, limit, False)
        if process.returncode == -signal.SIGPROF and self._processor is not None:
            raise WorkerError(self.timeout_kind, f"no answer within {self._processor:.3g} s of processor time")
        raise _death(process.returncode, self._errors.decode(errors="replace").strip(), self.crash_kind)


def _unread(pipe: int) -> int:
    """Bytes in a pipe, by its writing end too."""
    return struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))[0]


def _death(code: int, errors: str, kind: str) -> WorkerError:
    last = errors.splitlines()[-1][:300] if errors else ""
    if any(sign in errors for sign in ("bad_alloc", "MemoryError", "LLVM ERROR: out of memory", "Cannot allocate memory")):
        return WorkerError("oom", f"out of memory: {last}")
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = str(-code)
        return WorkerError(kind, f"the worker died of {name}" + (f": {last}" if last else ""))
    return WorkerError(kind, f"the worker exited with code {code}" + (f": {last}" if last else ""))


@atexit.register
def _close_all() -> None:
    for worker in list(_live):
        worker.kill()
