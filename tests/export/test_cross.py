"""Libraries for another machine than this one: linked here, checked here, refused here."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import pytest

from convgen.errors import LibraryError
from convgen.export import manifest as manifests
from convgen.export import toolchain
from convgen.export.link import foreign_symbols, link_library, link_objects
from convgen.lang import parse
from convgen.runtime import cpu, elf, library
from convgen.runtime.manifest import read
from convgen.targets import resolve

pytestmark = [pytest.mark.skipif(cpu.family() != "x86", reason="crosses from x86-64 to aarch64"),
              pytest.mark.skipif(importlib.util.find_spec("tvm") is None, reason="needs the compiler: pip install convgen[tune]")]
needs_compiler = pytest.mark.skipif(importlib.util.find_spec("ziglang") is None and not shutil.which("aarch64-linux-gnu-gcc"), reason="needs a cross compiler: pip install ziglang")

W = parse("depthwise_conv2d:n1,c8,h5,w6,k3x3;padding=1:f32.f32.f32:nhwc")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """{target name: (target JSON, [entry])} for both families."""
    from convgen.emit.service import CompileService

    service, found = CompileService(), {}
    for name in ("x86:avx2", "arm:neoverse-n1"):
        target = resolve(name).to_json()
        folder = tmp_path_factory.mktemp(target["family"])
        entry = service.build(W.description, target, None, folder, "cg")
        found[name] = (target, [entry | {"object": str(folder / entry["object"])}])
    service.close()
    return found


def export(variants, path):
    return Path(link_library(variants, {W.operator: [W.signature]}, path, "crossed"))


@pytest.fixture(scope="module")
def mixed(built, tmp_path_factory):
    return export(built, tmp_path_factory.mktemp("mixed") / "ops.cvg")


@needs_compiler
def test_every_file_is_for_its_machine(mixed):
    data = json.loads((mixed / "manifest.json").read_text())
    assert data["shims"] == {"x86": "shim.so", "arm": "shim-arm.so"}
    families = {file: elf.family((mixed / file).read_bytes()) for file in data["files"]}
    assert families == {"shim.so": "x86", "kernels-x86-avx2.so": "x86", "shim-arm.so": "arm", "kernels-arm-neoverse-n1.so": "arm"}
    assert not foreign_symbols(mixed / "kernels-arm-neoverse-n1.so")
    exported = {s.name for s in elf.File((mixed / "kernels-arm-neoverse-n1.so").read_bytes()).symbols(elf.DYNSYM) if s.section != elf.UNDEFINED}
    assert "__tvm_ffi_cg_run" in exported and all(name.startswith(("__tvm_ffi_", "__TVMBackend")) for name in exported if name)


@needs_compiler
def test_same_bytes_again(built, mixed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    again = export(dict(reversed(built.items())), "again.cvg")
    own = {p.name: p.read_bytes() for p in mixed.iterdir() if p.name != "manifest.json"}
    assert own == {p.name: p.read_bytes() for p in again.iterdir() if p.name != "manifest.json"}
    assert not [name for name, data in own.items() if str(Path(toolchain.__file__).parents[1]).encode() in data]


@needs_compiler
def test_the_mixed_library_runs_here(mixed):
    lib = library.open_unregistered(mixed)
    assert lib.variant == "x86:avx2" and not [f for f in lib.selftest() if f.problem]


@needs_compiler
def test_code_for_another_machine_never_reaches_the_linker(built, tmp_path):
    path = export({"arm:neoverse-n1": built["arm:neoverse-n1"]}, tmp_path / "arm.cvg")
    with pytest.raises(LibraryError, match=r"cannot run on this machine .*it is for arm and this machine is x86"):
        library.open_unregistered(path)
    data = json.loads((path / "manifest.json").read_text())
    data["shims"] = {"x86": "shim-arm.so"}
    data["variants"][0]["target"] |= {"family": "x86", "features": []}
    for kernel in data["variants"][0]["kernels"]:
        kernel["features"] = []
    (path / "manifest.json").write_bytes(manifests.encode(data))
    assert read(path)  # whole, but not what it says
    with pytest.raises(LibraryError, match="^convgen-shim is for arm and this machine is x86$"):
        library.open_unregistered(path)


@needs_compiler
def test_objects_of_two_machines(built, tmp_path):
    objects = [entries[0]["object"] for _, entries in built.values()]
    with pytest.raises(LibraryError, match="^linking k.so: cg.o is for arm, and the library is for x86$"):
        link_objects(objects, tmp_path / "k.so")
    with pytest.raises(LibraryError, match="is for x86, and the library is for arm"):
        link_objects(objects[:1], tmp_path / "k.so", "arm")


def test_without_a_cross_compiler(built, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LibraryError, match="exporting for arm on this machine .* found none: pip install ziglang, or on Debian: apt install gcc-aarch64-linux-gnu"):
        export({"arm:neoverse-n1": built["arm:neoverse-n1"]}, tmp_path / "x.cvg")
    assert not list(tmp_path.iterdir())


def test_ziglang_is_asked_for_an_old_c_library(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert toolchain.compiler("arm")[:6] == [sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-linux-gnu.2.28"]
