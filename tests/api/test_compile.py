"""`convgen.compile`: the best record or the default, once per process and once on disk."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import convgen
from convgen import building, cache, exporting
from convgen.cli import main
from convgen.errors import ArgumentError, TargetError
from convgen.runtime.cpu import family

ROOT = Path(__file__).resolve().parents[2]


def result(w, **options):
    tensors = {name: np.asarray(value) for name, value in w.sample(0).items()}
    return convgen.compile(w, **options)(**tensors)


def test_default_then_record(compiler, conv, record):
    w = conv()
    y = result(w)
    assert y.shape == (1, 4, 6, 5) and set(np.unique(y)) == {1.0}
    logs = record(w, fill=9)
    assert set(np.unique(result(w, logs=logs))) == {9.0}
    assert [choice for _, _, choice in compiler.built] == [None, {"fill": 9}]


def test_built_once_per_machine_and_loaded_once_per_process(compiler, conv, monkeypatch):
    w = conv()
    assert convgen.compile(w) is convgen.compile(conv())
    monkeypatch.setattr(exporting, "_kernels", {})
    result(w)
    assert len(compiler.built) == 1


@pytest.mark.parametrize("change", [{"threads": 5}, {"target": "x86:avx2"}])
def test_another_target_is_another_kernel(compiler, conv, change):
    w = conv()
    convgen.compile(w)
    convgen.compile(w, **change)
    assert len(compiler.built) == 2 and cache.size()[0] == 2


def test_another_compiler_is_another_kernel(compiler, conv, monkeypatch):
    w = conv()
    convgen.compile(w)
    monkeypatch.setattr(building, "compiler", lambda: "newer")
    convgen.compile(w)
    assert len(compiler.built) == 2


def test_a_damaged_entry_is_made_again(compiler, conv, monkeypatch):
    w = conv()
    convgen.compile(w)
    for file in cache.paths.cache_dir().rglob("kernels-*.so"):
        file.write_bytes(file.read_bytes()[:-1])
    monkeypatch.setattr(exporting, "_kernels", {})
    assert set(np.unique(result(w))) == {1.0}
    assert len(compiler.built) == 2


def test_mistakes(compiler):
    with pytest.raises(ArgumentError, match="compile: expected a Workload, got str; convgen.workload"):
        convgen.compile("conv2d:n1")


def test_a_kernel_takes_tensors_alone(compiler, conv):
    with pytest.raises(ArgumentError, match=r"conv2d: this kernel is for padding = .*; it takes tensors alone, got padding = 2"):
        convgen.compile(conv())(padding=2)


def test_another_family_is_refused_before_it_is_built(compiler, conv):
    with pytest.raises(TargetError, match="target .* cannot run here: this machine lacks"):
        convgen.compile(conv(), "arm:cortex-a72" if family() == "x86" else "x86:avx2")
    assert not compiler.built


def test_command_line(compiler, conv, capsys):
    assert main(["compile", conv().id]) == 0
    assert capsys.readouterr().out == f"{conv().id}: default\n"


def test_compiler_state_follows_the_sources():
    building.compiler.cache_clear()
    assert building.compiler() == building.compiler() and len(building.compiler()) == 64


@pytest.mark.parametrize("name", ["compile", "export", "tune", "load", "operator", "operators", "workload"])
def test_public_functions_are_documented(name):
    from convgen import api
    assert len(getattr(api, name).__doc__.split()) > 8


def test_compiling_loads_no_compiler(home):
    """The parts of `compile` in this process import neither TVM nor torch; the worker does that elsewhere."""
    code = "import sys, convgen.api, convgen.exporting, convgen.building, convgen.cache, convgen.emit.service, convgen.tune.lookup; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=280).stdout.split()
    assert {"tvm", "torch", "xgboost"} & {name.partition(".")[0] for name in loaded} == set()
