"""A target: what schedules, the compiler and the loader need to know about the machine that kernels are made for."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, Iterable, Mapping

from .detect import machine

TRIPLES = {"x86": "x86_64-linux-gnu", "arm": "aarch64-linux-gnu"}  # of the processors' families, as compilers name them
_BYTES = {"float64": 8, "float32": 4, "int32": 4, "float16": 2, "bfloat16": 2, "int8": 1, "uint8": 1}


def lanes(vector_bits: int) -> dict[str, int]:
    """Elements of each dtype in one vector register."""
    return {dtype: vector_bits // (8 * size) for dtype, size in _BYTES.items()}


@dataclass(frozen=True)
class Target:
    """One target. Caches in bytes, `l3` of one instance; `features` are the cpuinfo flags (of a GPU: the architecture) that generated code may use.

    `limits`: of a GPU, what one thread, block and multiprocessor can have (convgen.targets.nvidia); empty for processors. A GPU's lanes are those of one thread.
    """

    name: str
    family: str
    isa: str
    mcpu: str
    attrs: tuple[str, ...]
    features: tuple[str, ...]
    vector_registers: int
    vector_bits: int
    l1: int
    l2: int
    l3: int
    cores: int
    threads: int
    microarchitecture: str = "generic"
    limits: Mapping[str, int] = field(default_factory=dict, hash=False)
    lanes: Mapping[str, int] = field(default_factory=dict, compare=False)

    def __post_init__(self):
        object.__setattr__(self, "attrs", tuple(self.attrs))
        object.__setattr__(self, "features", tuple(self.features))
        object.__setattr__(self, "lanes", lanes(self.vector_bits))

    @property
    def fingerprint(self) -> str:
        """Key of tuning records: family, microarchitecture, instruction set and threads, for example `x86-zen5-avx512-t2`; a GPU has no threads to choose: `cuda-h200-sm_90`."""
        return f"{self.family}-{self.microarchitecture}-{self.isa}" + ("" if self.limits else f"-t{self.threads}")

    def to_json(self) -> dict[str, Any]:
        """The target as plain JSON, with its fingerprint."""
        data = {f.name: getattr(self, f.name) for f in fields(self)}
        return data | {"attrs": list(self.attrs), "features": list(self.features), "limits": dict(self.limits), "lanes": dict(self.lanes), "fingerprint": self.fingerprint}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Target":
        """Inverse of `to_json`; derived and unknown fields are ignored."""
        return cls(**{f.name: data[f.name] for f in fields(cls) if f.name in data and f.name != "lanes"})

    def tvm(self) -> dict[str, Any]:
        """Arguments of `tvm.target.Target`."""
        if self.family == "cuda":
            return {"kind": "cuda", "arch": self.isa, "max_threads_per_block": self.limits["threads_per_block"], "max_shared_memory_per_block": self.limits["shared_per_block"],
                    "thread_warp_size": self.limits["warp"]}
        base = {"kind": "llvm", "mtriple": TRIPLES[self.family], "mcpu": self.mcpu, "num-cores": self.threads}
        return base | ({"mattr": list(self.attrs)} if self.attrs else {})

    def with_threads(self, threads: int) -> "Target":
        """The same target serving on `threads` threads."""
        return replace(self, threads=int(threads))

    @staticmethod
    def runs_here(features: Iterable[str]) -> list[str]:
        """Those of `features` that this machine lacks; empty when code that needs them may run."""
        here = machine().flags
        return [feature for feature in features if feature not in here]
