"""A compiler made of gcc: kernels that fill their output with the choice's number, so that results tell which choice was built."""

from __future__ import annotations

import subprocess
import sys
import types
from math import prod
from pathlib import Path

import pytest

import convgen
from convgen import exporting
from convgen.emit import service
from convgen.errors import WorkerError

SOURCE = """
#include <stdint.h>
typedef struct { void* data; int32_t device[2]; int32_t ndim; uint8_t code, bits; uint16_t lanes; int64_t* shape; int64_t* strides; uint64_t offset; } Tensor;
typedef struct { int32_t type; uint32_t zero; Tensor* tensor; } Any;
int __tvm_ffi_SYMBOL(void* handle, const Any* arguments, int32_t count, Any* result) {
    float* out = (float*)arguments[count - 1].tensor->data;
    for (int64_t i = 0; i < SIZE; i++) out[i] = VALUE;
    return 0;
}
"""


class Space:
    """One knob, `fill`; its default is 1."""

    version = 1

    def valid(self, choice):
        return None if set(choice) == {"fill"} else "it has other knobs"


class Compiler:
    """Stands for the compile workers. `built` lists (workload id, target name, choice)."""

    def __init__(self):
        self.built = []

    def build_many(self, jobs, *_, **__):
        return [self.one(**job) for job in jobs]

    def one(self, description, target, choice, directory, symbol):
        self.built.append((description["id"], target["name"], choice))
        if choice and choice["fill"] < 0:
            return WorkerError("invalid", "fill is negative")
        fill = (choice or {"fill": 1})["fill"]
        source = Path(directory, f"{symbol}.c")
        output = description["output"]
        source.write_text(SOURCE.replace("SYMBOL", f"{symbol}_run").replace("SIZE", str(prod(output["shape"]))).replace("VALUE", str(fill)))
        subprocess.run(["gcc", "-c", "-fPIC", "-O1", "-o", f"{directory}/{symbol}.o", source], check=True)
        arguments = [{"name": t["name"], "kind": t["kind"], "shape": t["shape"], "perm": None, "dtype": t["dtype"]} for t in description["tensors"]]
        return {
            "id": description["id"], "operator": description["operator"], "dims": description["dims"], "attributes": description["attributes"],
            "layout": description["layout"], "dtypes": {t["name"]: t["dtype"] for t in description["tensors"]}, "output_dtype": output["dtype"],
            "symbol": f"{symbol}_run", "prepare": None, "workspace": 0, "target": target["name"], "features": [], "threads": target["threads"],
            "choice": choice or {"fill": 1}, "object": f"{symbol}.o",
            "args": [*arguments, {"name": "out", "kind": "output", "shape": output["shape"], "perm": None, "dtype": output["dtype"]}],
        }


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A home, a cache and a working directory of the test's own."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CONVGEN_CACHE", str(tmp_path / "cache"))
    for name in ("CONVGEN_LOGS", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(exporting, "_kernels", {})
    return tmp_path


@pytest.fixture
def compiler(monkeypatch):
    """The gcc compiler in place of the workers, and its space in place of the schedules."""
    compiler = Compiler()
    monkeypatch.setattr(service, "shared_service", lambda workers=1: compiler)
    schedules = types.ModuleType("convgen.schedules")
    schedules.space = lambda description, target: Space()
    monkeypatch.setitem(sys.modules, "convgen.schedules", schedules)
    monkeypatch.setattr(convgen, "schedules", schedules, raising=False)
    return compiler


@pytest.fixture
def conv():
    """A conv2d Workload by its channels."""
    return lambda channels=3, **more: convgen.operator("conv2d")(**{"N": 1, "C": channels, "O": 4, "H": 6, "W": 5, "kernel": 3, "padding": 1, **more})


@pytest.fixture
def record(home):
    """record(workload, target, fill, ...) appends a winning record and returns its folder."""
    from convgen.targets import resolve
    from convgen.tune.identity import description_hash
    from convgen.tune.lookup import dtypes_of
    from convgen.tune.records import append, file_of

    def write(w, target="native", fill=7, us=10.0, torch_us=None, threads=None):
        machine = resolve(target).with_threads(threads) if threads else resolve(target)
        append(file_of(home / "logs", machine.family, w.operator), {
            "format": 1, "operator": w.operator, "workload": w.id, "description": description_hash(w.description), "target": machine.fingerprint,
            "family": machine.family, "microarchitecture": machine.microarchitecture, "isa": machine.isa, "threads": machine.threads, "space": 1,
            "choice": {"fill": fill}, "layout": w.layout, "dims": w.dims, "dtypes": dtypes_of(w.description), "kind": "ok", "median_us": us, "spread_us": 0.1, "repeats": 5, "verified": "EF", "torch_us": torch_us, "final": True,
        })
        return str(home / "logs")

    return write
