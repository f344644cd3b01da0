"""The test library's CUDA variants: entries for the kernels of kernels.cu, with words in place of machine code."""

from __future__ import annotations

from pathlib import Path

from convgen.export import cuda
from convgen.export.link import link_library
from tests.kernel_library import SIGNATURES

CUBIN = "a cubin of {isa}"
PTX = ".version 9.0\n.target {isa}\n"


def argument(name, kind, shape):
    return {"name": name, "kind": kind, "shape": shape, "perm": None, "dtype": "float32"}


def launch(symbol, args, grid, block, shared=0):
    return {"symbol": symbol, "args": args, "grid": [grid, 1, 1], "block": [block, 1, 1], "shared": shared}


def conv(batch, size, name, **code):
    n = batch or "N"
    return {
        "id": f"conv2d:n{batch or '8+'},c4,o8,h{size},w{size},k3x3;padding=1:f32.f32.f32:nchw", "operator": "conv2d",
        "dims": {"N": batch or {"min": 1}, "C": 4, "O": 8, "H": size, "W": size, "KH": 3, "KW": 3},
        "attributes": {"stride": [1, 1], "padding": [[1, 1], [1, 1]], "groups": 1}, "layout": "channels_first",
        "dtypes": {"x": "float32", "weight": "float32"}, "output_dtype": "float32", "symbol": f"{name}_run", "prepare": None, "temporaries": [],
        "args": [argument("x", "input", [n, 4, size, size]), argument("weight", "param", [8, 4, 3, 3]), argument("out", "output", [n, 8, size, size])],
        **code,
    }


def entries(isa: str) -> list[dict]:
    packed = argument("packed", "packed", [4, 3, 3, 8])
    prepared = conv(
        1, 6, "conv", temporaries=[{"name": "padded", "shape": [1, 4, 8, 8], "dtype": "float32"}],
        args=[argument("x", "input", [1, 4, 6, 6]), packed, argument("out", "output", [1, 8, 6, 6])],
        launches=[launch("conv_run_kernel", ["padded", "x"], 4, 64), launch("conv_run_kernel_1", ["out", "packed", "padded"], 5, 64)],
        prepare={"symbol": "conv_prepare", "args": [argument("weight", "param", [8, 4, 3, 3]), packed], "temporaries": [],
                 "launches": [launch("conv_prepare_kernel", ["packed", "weight"], 5, 64)]}, workspace=1024)
    blocks = ["//", ["+", ["*", "N", 200], 127], 128]
    batch = conv(None, 5, "batch", launches=[launch("batch_run_kernel", ["out", "weight", "x", {"size": "N"}], blocks, 128)], workspace=0)
    shape = [2, 3, 4, 5]
    gate = {
        "id": "gate2d:n2,c3,h4,w5:f32.f32.f32:nchw", "operator": "gate2d", "dims": dict(zip("NCHW", shape)), "attributes": {},
        "layout": "channels_first", "dtypes": {"x": "float32", "gate": "float32"}, "output_dtype": "float32", "symbol": "gate_run", "prepare": None,
        "temporaries": [], "workspace": 0, "args": [argument("x", "input", shape), argument("gate", "input", [2, 3]), argument("out", "output", shape)],
        "launches": [launch("gate_run_kernel", ["gate", "out", "x"], 1, 120, 60_000)],
    }
    facts = {"target": f"cuda:{isa}", "features": [isa], "threads": 1, "choice": {}, "origin": "exact", "measured_us": 5.0, "torch_us": 9.0}
    return [entry | facts for entry in (prepared, batch, gate)]


def target(isa: str) -> dict:
    return {"name": f"cuda:{isa}", "family": "cuda", "isa": isa, "features": [isa], "threads": 1, "microarchitecture": "generic"}


def variants(isas, folder: Path) -> dict:
    """{target name: (target, entries with the files that a build leaves)}."""
    found = {}
    for isa in isas:
        made = []
        for entry in entries(isa):
            cubin = folder / f"{entry['symbol']}-{isa}.cubin"
            cubin.write_text(CUBIN.format(isa=isa))
            made.append(entry | {"object": str(cubin), "source": str(folder / "kernels.cu")})
        found[f"cuda:{isa}"] = (target(isa), made)
    return found


class Nvcc:
    """In place of convgen.emit.nvcc: PTX in words."""

    release = 13000

    @staticmethod
    def compile_cuda(source, target, arch, format):
        target.write_text(PTX.format(isa=arch))


def link(monkeypatch, path: Path, isas, others=None, name="gpu", release=13000) -> str:
    """A library of these architectures and of other variants, without nvcc."""
    path.parent.mkdir(exist_ok=True, parents=True)
    monkeypatch.setattr(cuda, "nvcc", Nvcc)
    monkeypatch.setattr(cuda, "toolkit_version", lambda: release)
    return link_library({**variants(isas, path.parent), **(others or {})}, SIGNATURES, path, name)
