"""convgen's own kernel, as serving calls it: an exported library, parameters bound once."""

from __future__ import annotations

import torch

from ...runtime.kernel import Kernel
from ..case import Case, Ready, numpy_of


def bound(case: Case, library: str) -> Ready:
    """The bound call of the one-kernel library at `library`."""
    torch.set_num_threads(case.threads)
    kernel = Kernel.load(library)
    call, inputs = kernel.bind(**case.parameters), list(case.inputs.values())
    entry = kernel.entry
    return Ready(lambda: call(*inputs), numpy_of, facts={"origin": entry["origin"], "tuned_us": entry.get("measured_us"), "choice": entry["choice"]})
