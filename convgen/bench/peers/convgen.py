"""convgen's own kernel, as serving calls it: an exported library, parameters bound once."""

from __future__ import annotations

import threading

import torch

from ...lang.sampling import to_numpy
from ...runtime.kernel import Kernel
from ..case import Case, Ready


def bound(case: Case, library: str) -> Ready:
    """The bound call of the one-kernel library at `library`."""
    torch.set_num_threads(case.threads)
    kernel = Kernel.load(library)
    call, inputs = kernel.bind(**case.parameters), list(case.inputs.values())
    entry = kernel.entry
    facts = {"origin": entry["origin"], "tuned_us": entry.get("measured_us"), "choice": entry["choice"]}
    return Ready(lambda: call(*inputs), to_numpy, columns={"facts": facts, "memory": _memory(case, kernel, call, inputs)})


def _memory(case: Case, kernel: Kernel, call, inputs) -> dict:
    """Bytes: what a call reads and writes ("border"), its scratch memory, the parameters as given ("weights") and as held by the bound call ("prepared").

    Scratch memory belongs to threads and stays with them, so it is measured on a fresh one, with the helpers that thread gets; it has found its size when a second call is through.
    """
    found = {}

    def first_calls():
        before = kernel.library.stats()["workspace_bytes"]
        with torch.inference_mode():
            for _ in range(2):
                found["border"] = call(*inputs).nbytes + sum(t.nbytes for t in inputs)
        found["scratch"] = kernel.library.stats()["workspace_bytes"] - before
    torch.set_num_threads(case.threads)
    thread = threading.Thread(target=first_calls)
    thread.start()
    thread.join()
    return {**found, "weights": sum(t.nbytes for t in case.parameters.values()), "prepared": call.nbytes}
