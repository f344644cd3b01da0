"""The child's half: answer one JSON line per request, whatever the code it runs prints, leaks or raises."""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import resource
import signal
import sys
import traceback
from typing import Any, Callable, Mapping

from ..errors import EmitError, WorkerError

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int = 0) -> None:
    """Ask the kernel to kill this process when its parent dies (process number `parent`, if known), so that no orphan keeps a core busy."""
    try:
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    except (OSError, AttributeError):
        return  # not Linux: end of input ends the child between two jobs
    if parent and os.getppid() != parent:
        os._exit(1)  # the parent died before prctl took effect


def _limit_memory() -> None:
    limit = int(os.environ.get("CONVGEN_WORKER_MEMORY", "0"))
    if limit:
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def _private_channel() -> tuple[int, int]:
    """Move the protocol off descriptors 0 and 1, so that a print in compiled code cannot corrupt it."""
    requests, answers = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return requests, answers


def import_without_torch(module: str):
    """Import a module that would bring torch along if it could: 2 s per worker, and an LLVM that clashes with the compiler's."""
    absent = "torch" not in sys.modules
    if absent:
        sys.modules["torch"] = None  # makes `import torch` fail, which is how tvm_ffi learns that there is none
    try:
        return importlib.import_module(module)
    finally:
        if absent:
            del sys.modules["torch"]


def resident_bytes() -> int:
    """Resident memory of this process in bytes (0 where /proc is missing)."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data):]


def _resolve(command: Callable | str) -> Callable:
    if isinstance(command, str):
        module, _, name = command.partition(":")
        return getattr(importlib.import_module(module), name)
    return command


def _limit_processor(seconds: float) -> None:
    """Have the kernel end this process by SIGPROF when it used so many more seconds of all its threads; 0 takes the limit away.

    Unlike a limit of wall time it does not count what others have of a busy machine.
    """
    signal.setitimer(signal.ITIMER_PROF, seconds)


def _answer(commands: Mapping[str, Callable | str], request: dict[str, Any], default_kind: str) -> dict[str, Any]:
    name = request.pop("cmd", None)
    _limit_processor(request.pop("processor_seconds", 0.0))
    if name not in commands:
        return {"error": "invalid", "message": f"the worker knows no command {name!r}"}
    try:
        return {"ok": _resolve(commands[name])(**request)}
    except MemoryError as error:
        return {"error": "oom", "message": f"out of memory: {error}"}
    except Exception as error:  # any failure of a job is data for the parent, never the end of the worker
        # RecursionError and friends included; SystemExit and signals end the child and are seen as a crash.
        text = str(error).strip() or type(error).__name__
        return {"error": _kind(error, text, default_kind), "message": text[-2000:], "traceback": traceback.format_exc()[-4000:]}
    finally:
        _limit_processor(0.0)


def _kind(error: Exception, text: str, default_kind: str) -> str:
    if isinstance(error, WorkerError):
        return error.kind
    if isinstance(error, EmitError):
        return "invalid"
    return "oom" if "bad_alloc" in text or "out of memory" in text.lower() else default_kind


def serve(commands: Mapping[str, Callable | str], default_kind: str) -> None:
    """Answer requests until the parent closes the pipe.

    `commands` maps a name to a callable or to "module:function" (imported at first use); it gets the request's other keys as
    keyword arguments and returns something JSON can hold. `default_kind` is the failure kind of an ordinary exception.
    """
    die_with_parent(int(os.environ.get("CONVGEN_WORKER_PARENT", "0")))
    _limit_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    requests, answers = _private_channel()
    _write_all(answers, b'{"ready": %d}\n' % os.getpid())
    with os.fdopen(requests, "rb") as lines:
        for line in lines:
            try:
                answer = _answer(commands, json.loads(line), default_kind)
                answer["rss"] = resident_bytes()
                data = json.dumps(answer, allow_nan=True)
            except (ValueError, TypeError) as error:
                data = json.dumps({"error": default_kind, "message": f"unreadable request or answer: {error}"})
            sys.stdout.flush()
            _write_all(answers, data.encode() + b"\n")
