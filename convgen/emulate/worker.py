"""The emulating worker, `python -m convgen.emulate.worker`: verifies kernels of other targets; what they do to it is its own end."""

from __future__ import annotations

from ..tune.cases import CaseBook
from ..tune.verify import verify
from ..workers.child import import_without_torch, serve
from . import opener


def check(entry: dict, target: dict, folder: str, description: dict, thorough: bool = True) -> dict:
    """Verdict of the oracles as a dict, of the kernel whose files lie in `folder`."""
    from ..lang.program import Program

    kernel = opener(entry, folder, target)(description["dims"])
    return verify(kernel, CaseBook(Program.from_json(description)), thorough).to_json()


def main() -> None:
    """Serve until the parent closes the pipe."""
    import_without_torch("tvm_ffi")
    serve({"check": check}, default_kind="crash")


if __name__ == "__main__":
    main()
