"""Reading manifest.json, format 1, and checking a library folder before anything in it is executed."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from convgen.errors import LibraryError
from convgen.runtime import cpu, elf

FORMAT = 1
MANIFEST = "manifest.json"
SHIM = "shim.so"  # for x86; all that a library has that names no families
_LIMIT = 64 << 20  # bytes of a manifest
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*\Z")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


@dataclass(frozen=True)
class Manifest:
    """A checked manifest. `sha256` is that of manifest.json itself and, through it, of every file of the library."""

    path: str
    data: dict
    sha256: str


def read(path) -> Manifest:
    """Read and check the manifest of the library at `path`. Raises LibraryError in one sentence."""
    try:
        folder = Path(path)
    except TypeError:
        raise LibraryError(f"a library is named by a text or path, got {path!r}") from None
    try:
        with open(folder / MANIFEST, "rb") as file:
            raw = file.read(_LIMIT + 1)
    except (FileNotFoundError, NotADirectoryError):
        what = "has no manifest.json, so it is no convgen library" if folder.exists() else "does not exist"
        raise LibraryError(f"{folder} {what}") from None
    except OSError as error:
        raise LibraryError(f"{folder} cannot be read: {error.strerror}") from error
    if len(raw) > _LIMIT:
        raise LibraryError(f"the manifest of {folder} is larger than {_LIMIT >> 20} MiB")
    try:
        data = json.loads(raw)
    except ValueError as error:
        raise LibraryError(f"the manifest of {folder} is damaged: {error}") from error
    if not isinstance(data, dict) or "format" not in data:
        raise LibraryError(f"the manifest of {folder} names no format, so it is no convgen library")
    if data["format"] != FORMAT:
        raise LibraryError(f"{folder} has manifest format {data['format']!r} and this convgen reads format {FORMAT}; "
                           "use a newer convgen, or export the library again")
    _check(folder, data)
    return Manifest(str(folder), data, hashlib.sha256(raw).hexdigest())


def _check(folder: Path, data: dict) -> None:
    def need(holder, key, kind, where):
        if not isinstance(holder, dict) or not isinstance(holder.get(key), kind):
            raise LibraryError(f"the manifest of {folder} is incomplete: {where} needs {key}")
        return holder[key]

    if not _NAME.match(need(data, "name", str, "the top level")):
        raise LibraryError(f"the manifest of {folder} has a name that is no identifier: {data['name']!r}")
    need(data, "tvm_ffi_min", str, "the top level")
    for name, facts in need(data, "files", dict, "the top level").items():
        if not _FILE.match(name):
            raise LibraryError(f"the manifest of {folder} lists a file outside the library: {name!r}")
        need(facts, "sha256", str, f"the file {name}")
        need(facts, "size", int, f"the file {name}")
    for shim in need({"shims": {"": SHIM}} | data, "shims", dict, "the top level").values():
        if shim not in data["files"]:
            raise LibraryError(f"the manifest of {folder} is incomplete: it lists no {shim}")
    for name, operator in need(data, "operators", dict, "the top level").items():
        for signature in need(operator, "signatures", list, f"the operator {name}"):
            for key, kind in (("operator", str), ("tensors", list), ("attributes", list), ("output", dict)):
                need(signature, key, kind, f"a signature of {name}")
    for variant in need(data, "variants", list, "the top level"):
        target = need(variant, "target", dict, "a variant")
        need(target, "name", str, "a variant's target")
        if need(variant, "file", str, "a variant") not in data["files"]:
            raise LibraryError(f"the manifest of {folder} names {variant['file']} but lists no hash of it")
        cuda = target.get("family") == "cuda"
        if cuda:
            facts = need(variant, "cuda", dict, f"the variant {target['name']}")
            for holder, key, kind in ((target, "isa", str), (facts, "toolkit", int), (facts, "driver", int)):
                need(holder, key, kind, f"the variant {target['name']}")
        for entry in need(variant, "kernels", list, "a variant"):
            for key, kind in (("id", str), ("operator", str), ("dims", dict), ("attributes", dict), ("layout", str),
                              ("dtypes", dict), ("output_dtype", str), ("symbol", str), ("args", list)):
                need(entry, key, kind, f"a kernel of {target['name']}")
            for step in (entry, entry.get("prepare")) if cuda else ():
                for launch in need(step, "launches", list, f"a kernel of {target['name']}") if step else ():
                    for key, kind in (("symbol", str), ("args", list), ("grid", list), ("block", list)):
                        need(launch, key, kind, f"a launch of {target['name']}")


def verified_bytes(manifest: Manifest, name: str) -> bytes:
    """The content of one file, after its size and sha256 were found to be those of the manifest."""
    facts = manifest.data["files"][name]
    try:
        with open(os.path.join(manifest.path, name), "rb") as file:
            content = file.read(facts["size"] + 1)
    except FileNotFoundError:
        raise LibraryError(f"{manifest.path} lacks the file {name}") from None
    except OSError as error:
        raise LibraryError(f"{manifest.path}/{name} cannot be read: {error.strerror}") from error
    if len(content) != facts["size"]:
        found = "more" if len(content) > facts["size"] else f"{len(content)}"
        raise LibraryError(f"{manifest.path}/{name} must have {facts['size']} bytes and has {found}; the library is torn, copy it again")
    if hashlib.sha256(content).hexdigest() != facts["sha256"]:
        raise LibraryError(f"{manifest.path}/{name} was modified: its sha256 is not the one in the manifest")
    return content


def shim_name(family: str) -> str:
    """File name of the shim for a target family."""
    return SHIM if family == "x86" else f"shim-{family}.so"


def shim_of(manifest: Manifest) -> str:
    """The file of the library's shim for this machine. Raises LibraryError when there is none."""
    shims = manifest.data.get("shims") or {cpu.family(): SHIM}
    if cpu.family() not in shims:
        raise LibraryError(f"{manifest.path} cannot run on this machine (it is for {' and '.join(shims)} and this machine is {cpu.family()})")
    return shims[cpu.family()]


def pin(content: bytes, name: str) -> str:
    """A path from which exactly these bytes can be loaded, whatever happens to the file they came from.

    Raises LibraryError when they are code for another machine: the dynamic linker would say that, too, but not as clearly.
    The bytes live in a sealed memory file. Its descriptor stays open: the dynamic linker takes two libraries with one path for the
    same, so a path must never be used twice.
    """
    if elf.family(content) != cpu.family():
        raise LibraryError(f"{name} is for {elf.family(content)} and this machine is {cpu.family()}")
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(content)
    import fcntl

    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL)
    return f"/proc/self/fd/{descriptor}"
