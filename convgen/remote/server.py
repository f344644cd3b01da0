"""A server for a board: TVM's RPC server, kept alive when a candidate takes its process along. Needs the runtime of TVM only.

It serves from the process that calls `serve`, one session at a time, each in a fork of its own.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time

from ..workers import default_memory_limit
from ..workers.child import die_with_parent, import_without_torch
from ..workers.scratch import scratch_folder
from .facts import FUNCTION, LIMIT, facts

PORTS = range(9091, 9200)  # the first free one is taken


def serve(tracker: tuple[str, int], key: str, host: str = "127.0.0.1", port: int | None = None, advertised: str | None = None,
          threads: int | None = None, verbose: bool = False, ready=None) -> None:
    """Serve until SIGINT or SIGTERM, then end, children included.

    tracker: where to register; it may come up later. key: the name that clients ask for. host, port: where to listen (default: the
    first free of PORTS); `advertised` is the address that clients are told (default: the one that the tracker sees). threads:
    those of kernels, default all usable here. ready(port) is called once the server listens.
    """
    os.environ["TVM_NUM_THREADS"] = str(threads or len(os.sched_getaffinity(0)))
    os.environ.setdefault("TVM_USE_RUNTIME_LIB", "1")
    try:
        import_without_torch("tvm.rpc")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("a server needs the runtime of apache-tvm: pip install 'convgen[device]'", name=error.name) from None
    import tvm_ffi

    about = facts()
    tvm_ffi.register_global_func(FUNCTION, lambda: json.dumps(about), override=True)
    tvm_ffi.register_global_func(LIMIT, lambda seconds: signal.setitimer(signal.ITIMER_PROF, seconds)[0], override=True)
    if multiprocessing.get_start_method(allow_none=True) != "fork":
        multiprocessing.set_start_method("fork", force=True)  # a session inherits what is registered here, at no cost
    folder = scratch_folder("serve")
    tempfile.tempdir = folder  # of sessions; those of crashed ones are left behind there
    os.register_at_fork(after_in_child=_in_session)
    threading.excepthook = lambda failure: None  # a session that crashed ends the listening thread, with a traceback
    signal.signal(signal.SIGTERM, lambda *_: _end(folder))
    try:
        _listen(tracker, key, host, range(port, port + 1) if port else PORTS, advertised, verbose, ready)
    except KeyboardInterrupt:
        _end(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _listen(tracker, key, host, ports, advertised, verbose, ready) -> None:
    from tvm.rpc import server

    here = os.getcwd()
    while True:
        begun = time.monotonic()
        state = server.PopenRPCServerState(host, ports.start, ports.stop, tracker_addr=tracker, key=key, custom_addr=advertised, silent=not verbose)
        ports = range(state.port, state.port + 1)
        if ready:
            ready(state.port)
            ready = None
        state.thread.join()  # ends with a session whose process crashed, and where something else answers in the tracker's place
        state.sock.close()
        os.chdir(here)
        time.sleep(max(0.0, begun + 0.5 - time.monotonic()))


def _in_session() -> None:
    """In each session's process: Ctrl-C is the server's business, its end ends the session, memory is bounded, no core files."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    die_with_parent()
    limit = default_memory_limit()
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def _end(folder: str) -> None:
    for child in multiprocessing.active_children():
        child.kill()
    shutil.rmtree(folder, ignore_errors=True)
    sys.stdout.flush()
    os._exit(0)  # the listening thread waits for a connection and cannot be asked to stop
