"""Candidates for other machines: built as for this one, with the guarded entry points linked in."""

from __future__ import annotations

from pathlib import Path

from ..errors import TargetError
from ..export.link import compile_object, link_objects
from ..tune.builder import LocalBuilder

FAMILIES = ("x86", "arm")  # whose kernels TVM's runtime can call as they are
SOURCE = Path(__file__).with_name("guarded.c")


class RemoteBuilder(LocalBuilder):
    """As LocalBuilder; what it links can be called between canaries by `remote.kernel.RemoteKernel`."""

    def __init__(self, target: dict, workers: int | None = None):
        if target["family"] not in FAMILIES:
            raise TargetError(f"kernels for {target['name']} cannot be measured through RPC, only those of processors ({', '.join(FAMILIES)}); "
                              "`convgen wave` measures them on another machine")
        super().__init__(target, workers)

    def link(self, source: Path, entry: dict, target: Path) -> None:
        names = {"RUN": entry, **({"PREPARE": entry["prepare"]} if entry.get("prepare") else {})}
        guarded = Path(self.root, f"guarded-{entry['symbol']}-{len(names)}.o")
        if not guarded.exists():
            compile_object(SOURCE, guarded, [f"-D{name}=__tvm_ffi_{part['symbol']}" for name, part in names.items()], self.target)
        link_objects([source, guarded], target)
