"""Exit codes and the shape of errors."""

import errno
import json

import pytest

import convgen
from convgen.cli import main as main_module
from convgen.errors import ArgumentError, TargetError

main_file = __import__("sys").modules["convgen.cli.main"]

VERBS = ["ops", "show", "check", "trace", "tune", "compile", "export", "inspect", "bench", "logs", "targets", "doctor"]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(run, verb):
    result = run(verb, "--help")
    assert result.code == 0 and result.out.startswith(f"usage: convgen {verb}")


def test_help_lists_every_verb(run):
    result = run("--help")
    assert result.code == 0
    assert [verb for verb in VERBS if f"\n    {verb} " not in result.out] == []


def test_version(run):
    assert run("--version").out.split() == ["convgen", convgen.__version__]


@pytest.mark.parametrize("words", [[], ["fly"], ["ops", "--fast"], ["logs"], ["logs", "eat"], ["trace", "a:b"]])
def test_wrong_usage_is_one_line_and_2(run, words):
    result = run(*words)
    assert result.code == 2 and result.out == ""
    assert result.err.startswith("convgen") and len(result.err.splitlines()) == 1


@pytest.mark.parametrize("error, code, text", [
    (ArgumentError("conv2d: bad\n  thing"), 2, "convgen: conv2d: bad thing"),
    (TargetError("no such target"), 1, "convgen: no such target"),
    (FileNotFoundError(errno.ENOENT, "No such file or directory", "x.cvg"), 1, "convgen: No such file or directory: x.cvg"),
    (ModuleNotFoundError("No module named 'tvm'", name="tvm.target"), 3, "convgen: this needs the module tvm.target: pip install 'convgen[tune]'"),
    (KeyboardInterrupt(), 130, "convgen: interrupted"),
])
def test_errors_become_a_sentence_and_a_code(run, monkeypatch, error, code, text):
    def fail(options):
        raise error

    def add(verbs):
        from convgen.cli.output import common
        common(verbs.add_parser("fail"), fail)

    monkeypatch.setattr(main_file, "_MODULES", ("failing",))
    monkeypatch.setattr(main_file.importlib, "import_module", lambda name, package: type("Module", (), {"add": staticmethod(add)}))
    result = run("fail")
    assert (result.code, result.err) == (code, text)


def test_a_defect_of_convgen_is_not_hidden(monkeypatch):
    monkeypatch.setattr(main_file, "parser", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main_module(["ops"])


def test_targets(run):
    names = [row["name"] for row in json.loads(run("targets", "--json").out)]
    assert names[:3] == ["native", "x86:avx2", "x86:avx512"] and "cuda:sm_90" in names
    facts = json.loads(run("targets", "x86:avx2", "--json").out)
    assert facts["mcpu"] == "x86-64-v3" and facts["lanes"]["float32"] == 8
    assert "vector_registers" in run("targets", "x86:avx512").out


def test_limits_of_a_gpu_are_shown(run):
    facts = json.loads(run("targets", "cuda:sm_90", "--json").out)
    assert facts["limits"]["threads_per_block"] == 1024 and facts["missing_here"] == ["sm_90"]


def test_an_arm_target_elsewhere(run):
    facts = json.loads(run("targets", "arm:cortex-a72", "--json").out)
    assert (facts["family"], facts["lanes"]["float32"], facts["threads"]) == ("arm", 4, 4)
