"""The test library: its signatures, its kernels compiled once per session, and the folder they are linked into.

Its fixtures are imported by conftest.py.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from convgen.export.link import link_library

BUILDER = Path(__file__).with_name("kernel_builder.py")
SPATIAL = [2, 3]


def tensor(name, kind, dims, dtype="float32", spatial=()):
    return {"name": name, "kind": kind, "dims": dims, "dtype": dtype, "spatial": list(spatial)}


def _out(size, kernel, axis):
    window = ["-", ["-", ["+", ["+", size, f"padding.{axis}.lo"], f"padding.{axis}.hi"], kernel], -1]
    return ["+", ["//", ["-", window, 1], f"stride.{axis}"], 1]


def conv2d(bias=False):
    return {
        "operator": "conv2d", "hash": "0badc0de", "summary": "2-D convolution", "formula": "",
        "tensors": [tensor("x", "input", ["N", "C", "H", "W"], spatial=SPATIAL), tensor("weight", "param", ["O", ["//", "C", "groups"], "KH", "KW"]),
                    *([tensor("bias", "param", ["O"])] if bias else [])],
        "attributes": [{"name": "stride", "type": "ints", "rank": 2, "default": 1, "minimum": 1},
                       {"name": "padding", "type": "pads", "rank": 2, "default": 0}, {"name": "groups", "type": "int", "default": 1, "minimum": 1}],
        "positional": ["x", "weight", "bias", "stride", "padding", "groups"], "when": [],
        "checks": [{"test": ["==", ["%", "C", "groups"], 0], "message": "in_channels must be divisible by groups"}],
        "output": {"dims": ["N", "O", _out("H", "KH", 0), _out("W", "KW", 1)], "dtype": "float32", "spatial": SPATIAL},
        "pad_window": {"padding": [["-", "KH", 1], ["-", "KW", 1]]},
    }


def elementwise(name, tensors, out_channels="C", dtype="float32"):
    return {"operator": name, "hash": "0badcafe", "summary": "", "formula": "", "tensors": tensors, "attributes": [],
            "positional": [t["name"] for t in tensors], "when": [], "checks": [],
            "output": {"dims": ["N", out_channels, "H", "W"], "dtype": dtype, "spatial": SPATIAL}, "pad_window": {}}


def image(dtype="float32", channels="C"):
    return tensor("x", "input", ["N", channels, "H", "W"], dtype, SPATIAL)


SIGNATURES = {
    "conv2d": [conv2d(), conv2d(bias=True)],
    "gate2d": [elementwise("gate2d", [image(d), tensor("gate", "input", ["N", "C"], d)], dtype=d) for d in ("float32", "bfloat16", "float16")],
    "edge2d": [elementwise("edge2d", [image()], out_channels=4)],
    "square2d": [elementwise("square2d", [image()])],
}


@pytest.fixture(scope="session")
def kernels(tmp_path_factory):
    """{target name: (target, [entry with "object"])}, compiled by a process of its own."""
    folder = tmp_path_factory.mktemp("kernels")
    done = subprocess.run([sys.executable, str(BUILDER), str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((folder / "entries.json").read_text())
    return {name: (variant["target"], variant["entries"]) for name, variant in found.items()}


@pytest.fixture(scope="session")
def library_path(kernels, tmp_path_factory):
    """A library for AVX2, which every machine that runs the tests has."""
    return link_library({"x86:avx2": kernels["x86:avx2"]}, SIGNATURES, tmp_path_factory.mktemp("library") / "ops.cvg", "tested")
