"""Linking: reproducible, atomic, and nothing but convgen libraries is ever replaced."""

import json
import os
import subprocess
import threading
import time
from pathlib import Path

import pytest

from convgen.errors import LibraryError
from convgen.export import link
from convgen.export.inspect import inspect, to_text
from convgen.export.link import compile_shim, foreign_symbols, link_library, link_objects
from convgen.runtime import manifest as manifests
from tests.kernel_library import SIGNATURES


def content(folder):
    return {p.name: p.read_bytes() for p in Path(folder).iterdir()}


def export(kernels, path, name="linked", keep=slice(None)):
    return link_library({n: (target, entries[keep]) for n, (target, entries) in kernels.items()}, SIGNATURES, path, name)


def test_same_bytes_anywhere_and_in_any_order(kernels, tmp_path, monkeypatch):
    first = export(kernels, tmp_path / "a" / "ops.cvg")
    monkeypatch.chdir(tmp_path)
    shuffled = {op: signatures[::-1] for op, signatures in reversed(SIGNATURES.items())}
    second = link_library({n: (t, e) for n, (t, e) in kernels.items()}, shuffled, "elsewhere/other.cvg", "linked")
    assert content(first) == content(second)
    for name, data in content(first).items():
        assert str(tmp_path).encode() not in data and str(Path(link.__file__).parent).encode() not in data, name


def test_order_of_kernels_changes_no_record(kernels, tmp_path):
    a = json.loads(content(export(kernels, tmp_path / "a.cvg"))["manifest.json"])
    b = json.loads(content(export(kernels, tmp_path / "b.cvg", keep=slice(None, None, -1)))["manifest.json"])
    assert [v["kernels"] for v in a["variants"]] == [v["kernels"] for v in b["variants"]]


def test_manifest_says_what_is_there(kernels, tmp_path):
    path = export(kernels, tmp_path / "ops.cvg")
    data = json.loads((Path(path) / "manifest.json").read_text())
    assert {"format", "name", "convgen", "tvm", "tvm_ffi_min", "files", "shims", "operators", "variants"} == set(data)
    assert set(content(path)) == {"manifest.json", *data["files"]} == {"manifest.json", "shim.so", "kernels-x86-avx2.so", "kernels-x86-avx512.so"}
    assert not any("object" in kernel for variant in data["variants"] for kernel in variant["kernels"])
    assert [variant["target"]["name"] for variant in data["variants"]] == ["x86:avx2", "x86:avx512"]


def test_only_kernels_and_hooks_are_exported(library_path):
    symbols = subprocess.run(["nm", "-D", "--defined-only", f"{library_path}/kernels-x86-avx2.so"], capture_output=True, text=True, check=True).stdout
    names = {line.split()[-1] for line in symbols.splitlines()}
    assert "__tvm_ffi_cg_first_run" in names and "__TVMBackendParallelLaunch" in names
    assert all(n.startswith(("__tvm_ffi_", "__TVMBackend")) for n in names), names
    assert not foreign_symbols(f"{library_path}/kernels-x86-avx2.so")


def test_no_build_id_and_no_executable_stack(library_path):
    for file in ("shim.so", "kernels-x86-avx2.so"):
        headers = subprocess.run(["readelf", "-lnW", f"{library_path}/{file}"], capture_output=True, text=True, check=True).stdout
        assert "Build ID" not in headers
        assert not [line for line in headers.splitlines() if "GNU_STACK" in line and "RWE" in line]


def test_an_older_library_is_replaced(kernels, tmp_path):
    path = export(kernels, tmp_path / "ops.cvg", keep=slice(0, 1))
    before = content(path)
    assert export(kernels, tmp_path / "ops.cvg") == path
    assert content(path) != before and os.listdir(tmp_path) == ["ops.cvg"]


def test_readers_see_the_old_library_or_the_new_one(kernels, tmp_path):
    path = export(kernels, tmp_path / "ops.cvg", keep=slice(0, 1))
    written, seen, failed, stop = [manifests.read(path).sha256], set(), [], threading.Event()

    def read():
        try:
            while not stop.is_set():
                seen.add(manifests.read(path).sha256)
        except Exception as error:
            failed.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    while not (seen or failed):
        time.sleep(0.01)
    for keep in (slice(1, 2), slice(2, 3)):
        export(kernels, tmp_path / "ops.cvg", keep=keep)
        written.append(manifests.read(path).sha256)
    stop.set()
    reader.join()
    assert not failed and seen <= set(written) and len(set(written)) == 3


def test_a_damaged_library_may_be_replaced(kernels, tmp_path):
    path = Path(export(kernels, tmp_path / "ops.cvg", keep=slice(0, 1)))
    (path / "manifest.json").write_text("{")
    export(kernels, path, keep=slice(0, 1))
    assert manifests.read(path).data["name"] == "linked"


def test_anything_else_is_left_alone(kernels, tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.tex").write_text("years")
    (tmp_path / "file").write_text("x")
    for name in ("precious", "file"):
        with pytest.raises(LibraryError, match="is no convgen library; it is not overwritten"):
            export(kernels, tmp_path / name)
    assert (tmp_path / "precious" / "thesis.tex").read_text() == "years" and (tmp_path / "file").read_text() == "x"


def test_a_failed_export_leaves_no_trace(kernels, tmp_path):
    path = export(kernels, tmp_path / "ops.cvg", keep=slice(0, 1))
    before = content(path)
    target, entries = kernels["x86:avx2"]
    with pytest.raises(LibraryError, match="linking kernels-x86-avx2.so failed"):
        link_library({"x86:avx2": (target, [{**entries[0], "object": str(tmp_path / "gone.o")}])}, SIGNATURES, path, "linked")
    assert content(path) == before and os.listdir(tmp_path) == ["ops.cvg"]


def test_one_symbol_twice(kernels, tmp_path):
    target, entries = kernels["x86:avx2"]
    with pytest.raises(LibraryError, match="two kernels have the symbol cg_first_run"):
        link_library({"x86:avx2": (target, [entries[0], entries[0]])}, SIGNATURES, tmp_path / "x.cvg", "linked")


@pytest.mark.parametrize("source, function", [("float expf(float); float __tvm_ffi_f(float x) { return expf(x); }", "expf"),
                                              ("int puts(const char*); int __tvm_ffi_f(void) { return puts(\"\"); }", "puts"),
                                              ("void* __TVMBackendParallelBarrier; int __tvm_ffi_f(void) { return !__TVMBackendParallelBarrier; }",
                                               "__TVMBackendParallelBarrier")])
def test_functions_that_serving_lacks_are_refused(tmp_path, source, function):
    (tmp_path / "k.c").write_text(source)
    subprocess.run(["gcc", "-O1", "-fno-builtin", "-fPIC", "-c", "k.c"], cwd=tmp_path, check=True)
    with pytest.raises(LibraryError, match=f"need {function}, which a serving process does not have"):
        link_objects([tmp_path / "k.o"], tmp_path / "k.so")


@pytest.mark.parametrize("name", ["my-net", "", "1net", "a.b"])
def test_names_are_identifiers(kernels, tmp_path, name):
    with pytest.raises(LibraryError, match="must be an identifier"):
        export(kernels, tmp_path / "x.cvg", name)


def test_no_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(LibraryError, match="exporting needs a C compiler .* apt install gcc"):
        compile_shim(tmp_path / "shim.so")


def test_inspect(library_path):
    facts = inspect(library_path)
    assert facts["name"] == "tested" and facts["damage"] == [] and len(facts["variants"][0]["kernels"]) == 11
    assert facts["sha256"] == manifests.read(library_path).sha256
    text = to_text(facts)
    assert "x86:avx2  (kernels-x86-avx2.so, runs here)" in text and "conv2d:n1,c4,o8,h6,w6,k3x3;padding=1:f32.f32.f32:nchw  [exact]  10.0 µs, PyTorch 20.0 µs" in text


def test_inspect_shows_damage(kernels, tmp_path):
    path = Path(export(kernels, tmp_path / "ops.cvg", keep=slice(0, 1)))
    (path / "shim.so").write_bytes(b"")
    assert "is torn" in to_text(inspect(path))
