"""TVM's tracker, run from this process until it is told to stop."""

from __future__ import annotations

import os
import signal

from ..workers.child import import_without_torch

PORTS = range(9190, 9200)  # the first free one is taken


def track(host: str = "127.0.0.1", port: int | None = None, verbose: bool = False, ready=None) -> None:
    """Hand out servers to clients until SIGINT or SIGTERM. ready(port) is called once the tracker listens."""
    os.environ.setdefault("TVM_USE_RUNTIME_LIB", "1")
    try:
        import_without_torch("tvm.rpc")
        tracker = import_without_torch("tvm.rpc.tracker")
    except ImportError as error:
        name = error.name or "tornado"
        raise ModuleNotFoundError(f"a tracker needs {name}: pip install 'convgen[device]'", name=name) from None
    ports = range(port, port + 1) if port else PORTS
    state = tracker.PopenTrackerServerState(host, ports.start, ports.stop, silent=not verbose)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    if ready:
        ready(state.port)
    try:
        state.thread.join()
    except KeyboardInterrupt:
        os._exit(0)  # nothing is kept, and the thread cannot be asked to stop
