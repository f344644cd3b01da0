"""Loading: everything is checked before dlopen, and every refusal is one sentence that says what to do."""

import json
import os
import shutil
import subprocess
import sys
import warnings

import pytest
import torch

from convgen.errors import ArgumentError, LibraryError, NoKernel
from convgen.export.link import link_library
from convgen.runtime import Kernel, cpu, load, manifest as manifests
from convgen.runtime.__main__ import main as health_check
from convgen.runtime.library import open_unregistered
from tests.kernel_library import SIGNATURES

from .test_call import LAST, W, WANTED, X, whole

KERNELS = "kernels-x86-avx2.so"


@pytest.fixture
def damaged(library_path, tmp_path):
    """A copy of the library, and a function that rewrites its manifest."""
    copy = tmp_path / "ops.cvg"
    shutil.copytree(library_path, copy)

    def edit(change):
        data = json.loads((copy / "manifest.json").read_text())
        change(data)
        (copy / "manifest.json").write_text(json.dumps(data))

    return copy, edit


def refused(path, sentence, **options):
    with pytest.raises(LibraryError, match=sentence) as caught:
        load(path, name="refused", **options)
    assert "\n" not in str(caught.value)


def test_no_library(tmp_path):
    refused(tmp_path / "nothing.cvg", "does not exist")
    refused(tmp_path, "has no manifest.json")
    (tmp_path / "manifest.json").write_text("[")
    refused(tmp_path, "manifest .* is damaged")
    (tmp_path / "manifest.json").write_text("{}")
    refused(tmp_path, "names no format")


def test_torn_file(damaged):
    path, _ = damaged
    content = (path / KERNELS).read_bytes()
    (path / KERNELS).write_bytes(content[:-100])
    refused(path, "is torn, copy it again")
    (path / KERNELS).write_bytes(content + b"\0")
    refused(path, "must have .* bytes and has more")


@pytest.mark.parametrize("file", [KERNELS, "shim.so"])
def test_modified_file(damaged, file):
    path, _ = damaged
    content = bytearray((path / file).read_bytes())
    content[len(content) // 2] ^= 1
    (path / file).write_bytes(content)
    refused(path, f"{file} was modified")


def test_missing_file(damaged):
    path, _ = damaged
    (path / "shim.so").unlink()
    refused(path, "lacks the file shim.so")


def test_other_format(damaged):
    path, edit = damaged
    edit(lambda d: d.update(format=2))
    refused(path, "has manifest format 2 and this convgen reads format 1; use a newer convgen")


@pytest.mark.parametrize("change, sentence", [
    (lambda d: d.pop("variants"), "the top level needs variants"),
    (lambda d: d["variants"][0]["kernels"][0].pop("args"), "a kernel of x86:avx2 needs args"),
    (lambda d: d["files"].update({"../shim.so": d["files"]["shim.so"]}), "outside the library"),
    (lambda d: d["files"].pop("shim.so"), "lists no shim.so"),
    (lambda d: d.update(name="a b"), "no identifier"),
    (lambda d: d["variants"][0].update(file="else.so"), "lists no hash of it"),
    (lambda d: d["variants"][0]["kernels"][0].update(operator="conv9d"), "which the manifest does not describe"),
    (lambda d: d["variants"][0]["kernels"][0].update(symbol="cg_gone_run"), "does not export the kernel cg_gone_run"),
    (lambda d: d.update(tvm_ffi_min="0.9.0"), "needs apache-tvm-ffi 0.9.0"),
    (lambda d: d.update(tvm_ffi_min="0.1.999"), "needs apache-tvm-ffi 0.1.999 or a later 0.1 release"),
])
def test_wrong_manifest(damaged, change, sentence):
    path, edit = damaged
    edit(change)
    refused(path, sentence)


def test_manifest_that_lies_about_shapes_never_reaches_a_kernel(damaged):
    path, edit = damaged

    def lie(data):
        kernel = next(k for k in data["variants"][0]["kernels"] if k["symbol"] == "cg_square_run")
        kernel["dims"]["H"] = 32
        kernel["args"][0]["shape"][2] = 64
    edit(lie)
    lib = open_unregistered(path)
    with pytest.raises(LibraryError, match="takes x as float32"):
        lib.square2d(whole(1, 8, 32, 64))


def test_wrong_cpu(damaged, monkeypatch):
    path, edit = damaged
    monkeypatch.setattr(cpu, "features", lambda: frozenset({"sse2", "fma"}))
    refused(path, r"cannot run on this machine \(x86:avx2: this CPU lacks avx2\)")
    monkeypatch.setattr(cpu, "family", lambda: "arm")
    refused(path, "it is for x86 and this machine is arm")


def test_nothing_runs_before_the_checks(damaged, monkeypatch):
    from convgen.runtime import native

    path, _ = damaged
    content = bytearray((path / KERNELS).read_bytes())
    content[-1] ^= 1
    (path / KERNELS).write_bytes(content)
    monkeypatch.setattr(native, "open_library", lambda p: pytest.fail("dlopen of an unchecked library"))
    refused(path, "was modified")


def test_pinned_hash(library_path, lib):
    pinned = load(library_path, name="pinned", expect_sha256=lib.sha256.upper())
    assert pinned.sha256 == lib.sha256
    refused(library_path, "was expected", expect_sha256="0" * 64)


def test_library_may_be_replaced_and_deleted_while_in_use(library_path, tmp_path):
    copy = tmp_path / "ops.cvg"
    shutil.copytree(library_path, copy)
    lib = load(copy, name="replaced")
    (copy / KERNELS).write_bytes(b"\0" * 100)
    shutil.rmtree(copy)
    assert torch.equal(lib.conv2d(X, W, padding=1), WANTED)


@pytest.fixture(scope="module")
def both(kernels, tmp_path_factory):
    return link_library(kernels, SIGNATURES, tmp_path_factory.mktemp("both") / "both.cvg", "both")


def test_best_variant_is_taken(both, monkeypatch):
    monkeypatch.setattr(cpu, "features", lambda: frozenset({"avx2", "fma"}))
    lib = open_unregistered(both)
    assert lib.variant == "x86:avx2" and torch.equal(lib.conv2d(X, W, padding=1), WANTED)
    text = str(lib.explain("conv2d", X, W, padding=1))
    assert "variant x86:avx512 not taken: this CPU lacks avx512f" in text


@pytest.mark.skipif("avx512f" not in cpu.features(), reason="needs AVX-512")
def test_wider_variant_where_it_runs(both):
    lib = open_unregistered(both)
    assert lib.variant == "x86:avx512" and torch.equal(lib.conv2d(X, W, padding=1), WANTED)
    assert lib.explain("conv2d", X, W, padding=1).refused == (("x86:avx2", "x86:avx512 is the better one"),)


def test_explain(lib):
    facts = lib.explain("conv2d", X.to(memory_format=LAST), W, padding=1)
    assert facts.how == "exact" and facts.prepares and facts.layout == "channels_last" and facts.origin == "exact"
    assert "lib.bind does it once" in str(facts) and "measured 10.0 µs when tuned, PyTorch 20.0 µs" in str(facts)
    json.dumps(facts.to_json())
    with pytest.raises(NoKernel):
        lib.explain("conv2d", X, W)


def test_self_description(lib):
    assert "conv2d:n1,c4,o8,h6,w6,k3x3;padding=1:f32.f32.f32:nhwc" in lib.workloads() and len(lib.workloads()) == 11
    assert lib.manifest["format"] == 1 and lib.operators == ["conv2d", "edge2d", "gate2d", "square2d"]
    assert "conv2d" in dir(lib) and repr(lib.conv2d) == "<operator conv2d(x, weight, bias, stride, padding, groups)>"


def test_many_libraries_cost_one_descriptor_each(library_path):
    def memory_files():  # whatever else the process opens and closes meanwhile
        return sum("/memfd:" in os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd"))
    open_unregistered(library_path)
    before = memory_files()
    libraries = [open_unregistered(library_path) for _ in range(5)]
    assert memory_files() == before + 5
    assert all(torch.equal(lib.conv2d(X, W, padding=1), WANTED) for lib in libraries)


def test_stats_count_calls(library_path):
    lib = open_unregistered(library_path)
    f = lib.bind("conv2d", weight=W, padding=1)
    for _ in range(3):
        f(X), lib.conv2d(X, W, padding=1)
    calls = lib.stats()["calls"]
    assert calls.pop("conv2d:n1,c4,o8,h6,w6,k3x3;padding=1:f32.f32.f32:nchw") == 6 and not any(calls.values())


def test_selftest_and_warmup(library_path):
    lib = open_unregistered(library_path)
    lib.warmup()
    assert len(lib.selftest()) == 11 and all(f.problem is None for f in lib.selftest())
    assert lib.explain("conv2d", X, W, padding=1).threads == torch.get_num_threads()


SICK = """
#include <string.h>
typedef struct {{ float* data; }} Tensor;
typedef struct {{ int type; unsigned zero; Tensor* p; }} Any;
int __tvm_ffi_cg_sick_run(void* self, const Any* args, int n, Any* result) {{
  float* y = args[1].p->data;
  static int calls;
  {body}
  return 0;
}}
"""


@pytest.mark.parametrize("body, problem", [
    ("memset(y, 0, 143 * 4);", "it leaves a part of its output unwritten"),
    ("memset(y, 0, 145 * 4);", "it writes outside its output"),
    ("memset(y - 1, 0, 145 * 4);", "it writes outside its output"),
    ("memset(y, ++calls, 144 * 4);", "its result depends on the number of threads"),
    ("return -1;", "it failed: .*without a message"),
])
def test_selftest_finds_sick_kernels(kernels, tmp_path, body, problem):
    (tmp_path / "k.c").write_text(SICK.format(body=body))
    subprocess.run(["gcc", "-O1", "-fPIC", "-c", "k.c"], cwd=tmp_path, check=True)
    target, entries = kernels["x86:avx2"]
    entry = next(e for e in entries if e["symbol"] == "cg_edge_run")
    sick = {**entry, "symbol": "cg_sick_run", "object": str(tmp_path / "k.o")}
    path = link_library({"x86:avx2": (target, [sick])}, SIGNATURES, tmp_path / "sick.cvg", "sick")
    with pytest.raises(LibraryError, match=f"the kernel of edge2d:.* is not healthy here: {problem}"):
        open_unregistered(path).selftest()


def test_kernel_converts_formats(kernels, tmp_path):
    target, entries = kernels["x86:avx2"]
    entry = next(e for e in entries if e["symbol"] == "cg_last_run")
    path = link_library({"x86:avx2": (target, [entry])}, {"conv2d": SIGNATURES["conv2d"][:1]}, tmp_path / "one.cvg", "one")
    kernel = Kernel.load(path)
    assert kernel.id == entry["id"]
    for fmt in (LAST, torch.contiguous_format):
        x = X.contiguous(memory_format=fmt)
        for y in (kernel(x=x, weight=W), kernel(x, W), kernel.bind(weight=W)(x)):
            assert torch.equal(y, WANTED) and y.is_contiguous(memory_format=fmt)
    assert kernel.explain(x=X, weight=W).copies == ("x", "out")


def test_kernel_is_of_one_workload(library_path):
    with pytest.raises(LibraryError, match="holds 11 kernels for x86:avx2, and a Kernel is exactly one"):
        Kernel.load(library_path)


def test_on_missing_torch(library_path):
    lib = load(library_path, name="lenient", on_missing="torch")
    x = whole(1, 4, 7, 6)
    with pytest.warns(RuntimeWarning, match="computing it with PyTorch"):
        y = lib.conv2d(x, W, padding=1)
    assert torch.equal(y, torch.nn.functional.conv2d(x, W, padding=1))
    with pytest.warns(RuntimeWarning, match=r"padding=\(\(2, 2\), \(2, 2\)\)"):
        assert torch.equal(lib.bind("conv2d", weight=W, padding=2)(X), torch.nn.functional.conv2d(X, W, padding=2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the second time is silent
        lib.conv2d(x, W, padding=1)
    assert lib.stats()["missing"] == {"conv2d": 3}
    with pytest.raises(NoKernel):  # not in the catalogue: there is nothing to fall back to
        lib.edge2d(whole(1, 1, 7, 7))
    with pytest.raises(LibraryError, match="loaded with on_missing='torch'"):
        load(library_path, name="lenient")
    with pytest.raises(ArgumentError, match="on_missing must be"):
        load(library_path, name="strange", on_missing="guess")


def test_health_check_command(library_path, damaged, capsys):
    path, edit = damaged
    assert health_check(["check", str(library_path)]) == 0
    assert "11 kernels of x86:avx2 are healthy" in capsys.readouterr().out
    edit(lambda d: d.update(format=7))
    assert health_check(["check", str(path)]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "format 7" in said
    done = subprocess.run([sys.executable, "-m", "convgen.runtime", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "check" in done.stdout


def test_manifest_limits(tmp_path, monkeypatch):
    monkeypatch.setattr(manifests, "_LIMIT", 10)
    (tmp_path / "manifest.json").write_text(json.dumps({"format": 1, "name": "long"}))
    refused(tmp_path, "larger than")


def test_unreadable_manifest(tmp_path):
    os.mkdir(tmp_path / "manifest.json")
    refused(tmp_path, "cannot be read")
