"""From compiled kernels to a library folder: object files by a C compiler, CUDA code as it is."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Mapping, Sequence

from convgen.errors import LibraryError
from convgen.export import cuda
from convgen.export import manifest as manifests
from convgen.export.toolchain import compiler, run
from convgen.runtime import cpu, elf
from convgen.runtime.manifest import MANIFEST, read, shim_name

_SHIM_SOURCES = Path(__file__).parent.parent / "runtime"
# Bound to their own definitions, so that no library loaded earlier can slip in its own hooks or half-float helpers.
_SHARED = ["-shared", "-fPIC", "-Wl,--build-id=none", "-Wl,-Bsymbolic", "-Wl,-z,now", "-Wl,-z,noexecstack", "-s"]
# What a kernel library leaves to others: the error function of tvm_ffi, and the optional hooks that start-up code declares.
_UNDEFINED = {"TVMFFIErrorSetRaisedFromCStrParts", "TVMFFIErrorSetRaisedFromCStr", "memcpy", "memset", "memmove"}
_HOOKS = {"__TVMBackendParallelLaunch", "__TVMBackendAllocWorkspace", "__TVMBackendFreeWorkspace"}
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h
_EXPORTS = "{ global: __tvm_ffi_*; __TVMBackend*; local: *; };"


def link_library(kernels_by_variant: Mapping[str, tuple[dict, Sequence[dict]]], signatures: Mapping[str, Sequence[dict]], path,
                 name: str) -> str:
    """Write the library `path` (a folder) and return its path.

    kernels_by_variant: {target name: (target JSON, [kernel entry with "object", the path of its object file])}; for CUDA the object
    is a cubin, and "source" is the path of its CUDA C, of which the lowest architecture's PTX is made.
    signatures: {operator: [signature of each structural variant]}. name: an identifier; `torch.ops.convgen_<name>` is built from it.
    An existing library is replaced at once or not at all; anything else at `path` is left alone and LibraryError raised.
    """
    if not re.fullmatch(r"[A-Za-z_]\w*", name):
        raise LibraryError(f"a library's name must be an identifier, got {name!r}")
    if not kernels_by_variant:
        raise LibraryError("a library needs kernels for at least one target")
    path = Path(path)
    _may_replace(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        os.chmod(folder, 0o755 & ~_umask())
        shims = {family: shim_name(family) for family in dict.fromkeys(_host(target) for target, _ in kernels_by_variant.values())}
        files = {file: folder / file for file in shims.values()}
        for family, file in shims.items():
            compile_shim(files[file], family)
        variants, fallback = [], cuda.fallback(kernels_by_variant)
        for target_name in kernels_by_variant:
            target, entries = kernels_by_variant[target_name]
            gpu = target.get("family") == "cuda"
            file = f"kernels-{re.sub(r'[^A-Za-z0-9_.-]', '-', target_name)}.{'zip' if gpu else 'so'}"
            files[file] = folder / file
            _distinct(entries)
            facts = {}
            if gpu:
                facts["cuda"] = cuda.pack(entries, files[file], target["isa"], target_name == fallback)
            else:
                link_objects([entry["object"] for entry in entries], files[file], _host(target))
            records = sorted((manifests.kernel_record(e) for e in entries), key=lambda e: e["symbol"])
            variants.append({"target": dict(target), "file": file, "kernels": records, **facts})
        content = manifests.encode(manifests.build(name, _version(), signatures, variants, shims, files))
        (folder / MANIFEST).write_bytes(content)
        read(folder)  # what cannot be read back is not published
        _publish(folder, path)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return str(path)


def _host(target: Mapping) -> str:
    """The family of processors that a variant's calls are made by: for a GPU, this machine's."""
    family = target.get("family", "cuda")
    return cpu.family() if family == "cuda" else family


def link_objects(objects: Sequence, path, family: str | None = None) -> None:
    """Link object files into one shared object. `family`: for which processors they must be (default: that of the first).

    Raises LibraryError if they are for others, or need a function that serving does not have.
    """
    path = Path(path)
    for source in map(Path, objects):
        found = _family(source, f"linking {path.name}")
        family = family or found
        if found != family:
            raise LibraryError(f"linking {path.name}: {source.name} is for {found}, and the library is for {family}")
    with tempfile.TemporaryDirectory(prefix="convgen-link-") as scratch:
        script = Path(scratch) / "exports.map"
        script.write_text(_EXPORTS)
        run([*compiler(family), *_SHARED, f"-Wl,--version-script={script}", "-nostartfiles", "-o", str(path), *map(str, objects), "-lc", "-lm"],
            f"linking {path.name}")
    _made_for(path, family)
    strange = foreign_symbols(path)
    if strange:
        raise LibraryError(f"linking {path.name}: the kernels need {', '.join(sorted(strange))}, which a serving process does not have")


def compile_object(source, path, options: Sequence[str], target: Mapping) -> None:
    """Compile a C file of ours for a target (its JSON) to a position independent object."""
    run([*compiler(_host(target)), "-O2", "-fPIC", "-c", *options, "-o", str(path), str(source)], f"compiling {Path(source).name}")


def compile_shim(path, family: str | None = None) -> None:
    """Compile the runtime shim to a shared object for a target family (default: this machine's)."""
    _compile(sorted(p.name for p in _SHIM_SOURCES.glob("shim*.c")), path, "compiling the runtime shim", family)


def compile_wave_runtime(path, family: str | None = None) -> None:
    """Compile what kernels need on a device without tvm_ffi: the shim's threads and scratch memory, and `wave/runtime.c`."""
    _compile(["shim.c", "shim_memory.c", os.path.join("..", "wave", "runtime.c")], path, "compiling the wave's runtime", family)


def _compile(sources: Sequence[str], path, doing: str, family: str | None) -> None:
    path, family = Path(path), family or cpu.family()
    # By relative names from the shim's folder: the path of this installation must not reach the file.
    run([*compiler(family), "-O2", *_SHARED, "-fvisibility=hidden", "-o", str(path.absolute()), *sources, "-ldl", "-lpthread"], doing, cwd=_SHIM_SOURCES)
    _made_for(path, family)


def _family(path: Path, doing: str) -> str:
    try:
        return elf.family(path.read_bytes())
    except OSError as error:
        raise LibraryError(f"{doing} failed: {path.name} cannot be read: {error.strerror}") from error


def _made_for(path: Path, family: str) -> None:
    found = _family(path, f"making {path.name}")
    if found != family:
        raise LibraryError(f"the C compiler made {path.name} for {found}, and it must be for {family}")


def foreign_symbols(path) -> set[str]:
    """Undefined functions of a shared object that neither tvm_ffi nor libc's memory functions give, and hooks the shim lacks."""
    symbols = elf.File(Path(path).read_bytes()).symbols(elf.DYNSYM)
    undefined = {s.name for s in symbols if s.section == elf.UNDEFINED and s.name and not s.weak} - _UNDEFINED
    hooks = {s.name for s in symbols if s.name.startswith("__TVMBackend")} - _HOOKS
    return undefined | hooks


def _distinct(entries: Sequence[dict]) -> None:
    seen: dict[str, str] = {}
    for entry in entries:
        if entry["symbol"] in seen:
            raise LibraryError(f"two kernels have the symbol {entry['symbol']}: {seen[entry['symbol']]} and {entry['id']}")
        seen[entry["symbol"]] = entry["id"]


def _may_replace(path: Path) -> None:
    if not path.exists() and not path.is_symlink():
        return
    try:
        read(path)
    except LibraryError:
        # A library of another format, or a damaged one, is still a library: it has our manifest.
        if not (path / MANIFEST).is_file():
            raise LibraryError(f"{path} exists and is no convgen library; it is not overwritten") from None


def _publish(folder: Path, path: Path) -> None:
    """Put a finished folder in place, so that a reader sees the old library or the new one."""
    if not path.exists():
        os.rename(folder, path)
        return
    _may_replace(path)
    _exchange(folder, path)
    shutil.rmtree(folder, ignore_errors=True)


def _exchange(new: Path, old: Path) -> None:
    """Swap two folders in one step; a plain rename cannot replace a folder that holds files."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(old), _RENAME_EXCHANGE) == 0:
        return
    if ctypes.get_errno() not in (errno.EINVAL, errno.ENOSYS):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(old))
    aside = new.with_name(new.name + ".old")  # a file system without exchange: two steps, and back if the second fails
    os.rename(old, aside)
    try:
        os.rename(new, old)
    except BaseException:
        os.rename(aside, old)
        raise
    os.rename(aside, new)


def _version() -> str:
    from convgen import __version__

    return __version__


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
