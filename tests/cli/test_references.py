"""Operators by name, by module, by file and by entry point."""

import importlib.metadata
import sys

import pytest

import convgen
from convgen import references
from convgen.errors import ArgumentError


def offer(monkeypatch, *points):
    found = [importlib.metadata.EntryPoint(name, value, references.ENTRY_POINTS) for name, value in points]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: found if group == references.ENTRY_POINTS else [])


@pytest.fixture
def package(own, monkeypatch, tmp_path):
    """The own operators as an importable module."""
    (tmp_path / "my_ops.py").rename(tmp_path / "pkg_of_ops.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "pkg_of_ops:my_blur2d"
    sys.modules.pop("pkg_of_ops", None)


def test_by_module(package):
    assert convgen.operator(package).name == "my_blur2d"


def test_by_file_is_the_same_object_each_time(own):
    assert convgen.operator(own) is convgen.operator(own)


def test_an_operator_passes_through(own):
    op = convgen.operator(own)
    assert convgen.operator(op) is op


def test_by_entry_point(package, monkeypatch):
    offer(monkeypatch, ("my_blur2d", package), ("my_blur2d", package))
    assert "my_blur2d" in convgen.operators()
    w = convgen.operator("my_blur2d")(N=1, C=2, H=4, W=4, kernel=3)
    assert convgen.workload(w.id) == w


def test_a_name_offered_twice_names_both(package, monkeypatch):
    offer(monkeypatch, ("conv2d", package))
    with pytest.raises(ArgumentError, match="'conv2d' is offered twice, by convgen and by pkg_of_ops:my_blur2d"):
        convgen.operator("conv2d")


@pytest.mark.parametrize("reference, message", [
    ("missing.py:op", "there is no file missing.py"),
    ("no_such_module_here:op", "ModuleNotFoundError: No module named 'no_such_module_here'"),
    ("math:pi", "'math:pi' is not an operator: the module has none"),
    ("conv2e", "unknown operator 'conv2e': did you mean conv2d"),
    ("zzzzzz", "unknown operator 'zzzzzz': `convgen ops` lists them"),
    (7, "expected an operator or its name, got int"),
])
def test_mistakes_are_named(reference, message):
    with pytest.raises(ArgumentError, match=message):
        convgen.operator(reference)


def test_a_wrong_name_in_a_file_lists_its_operators(own):
    with pytest.raises(ArgumentError, match="is not an operator: the module has my_blur2d"):
        convgen.operator(own.replace(":my_blur2d", ":not_an_operator"))


def test_a_file_that_fails_is_one_sentence(tmp_path):
    (tmp_path / "broken.py").write_text("1 / 0\n")
    with pytest.raises(ArgumentError, match="ZeroDivisionError: division by zero$"):
        convgen.operator(f"{tmp_path}/broken.py:op")
