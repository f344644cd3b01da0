"""A wave on disk: a folder, or the same as a tar file, with wave.json, run.py, packed code and data, and SHA256SUMS over them all.

The wave's id is the start of wave.json's sha256, so a result names exactly the candidates that it is about.
"""

from __future__ import annotations

import ast
import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
import zlib
from pathlib import Path
from typing import Mapping

from ..errors import Error
from ..files import replaced

MANIFEST, SCRIPT, SUMS = "wave.json", "run.py", "SHA256SUMS"
FORMAT = 1
_HERE = Path(__file__).parent
# The script's parts, each after what it uses.
PARTS = (_HERE.parent / "tune" / "timing.py", _HERE.parent / "runtime" / "cpu.py", *(_HERE / "device" / f"{name}.py" for name in
         ("trouble", "journal", "values", "check", "cpu", "cuda", "work", "peers", "child", "main")))


class WaveError(Error):
    """A bundle or a result file cannot be used."""


def script() -> str:
    """run.py: the device's modules joined into one plain file."""
    absolute, bodies = set(), []
    for path in PARTS:
        source = path.read_text()
        tree, lines = ast.parse(source), source.splitlines()
        head = tree.body[0]
        drop = set(range(head.lineno, head.end_lineno + 1))
        for node in tree.body:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                drop |= set(range(node.lineno, node.end_lineno + 1))
                if isinstance(node, ast.Import) or (node.level == 0 and node.module != "__future__"):
                    absolute.add(ast.unparse(node))
        kept = "\n".join(line for number, line in enumerate(lines, 1) if number not in drop).strip()
        bodies.append(f"# -- {path.stem}: {ast.get_docstring(tree).splitlines()[0]}\n\n\n{kept}\n")
    first = "#!/usr/bin/env python3\n\"\"\"Verify and measure the candidates of this wave on this machine. Needs Python's standard library, and libcuda for a wave of cubins.\"\"\"\n\n"
    return first + "from __future__ import annotations\n\n" + "\n".join(sorted(absolute)) + "\n\n\n" + "\n\n".join(bodies)


def write(path: str | os.PathLike, manifest: dict, files: Mapping[str, bytes]) -> str:
    """Write a bundle and return its id. `files`: name → content, packed here; a path that ends in .tar gives a tar file.

    An existing wave is replaced as a whole; anything else at `path` is left alone and WaveError raised.
    """
    path = Path(path)
    if path.exists() and not _is_wave(path):
        raise WaveError(f"{path} exists and is no wave; it is not overwritten")
    content = {name: zlib.compress(data, 9) for name, data in sorted(files.items())}
    content[MANIFEST] = (json.dumps({"format": FORMAT, **manifest}, separators=(",", ":"), sort_keys=True) + "\n").encode()
    content[SCRIPT] = script().encode()
    content[SUMS] = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(content.items())).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    (_write_tar if path.suffix == ".tar" else _write_folder)(path, content)
    return hashlib.sha256(content[MANIFEST]).hexdigest()[:16]


def _is_wave(path: Path) -> bool:
    try:
        read(path)
    except WaveError:
        return False
    return True


def _write_folder(path: Path, content: dict) -> None:
    partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        partial.chmod(0o755)
        for name, data in content.items():
            (partial / name).parent.mkdir(exist_ok=True)
            (partial / name).write_bytes(data)
        if path.exists():  # results that lie in the old wave are not of the new one; they stay beside it
            old = path.with_name(f"{path.name}.old")
            if old.exists():
                raise WaveError(f"{path} and {old} exist; remove one of them")
            os.rename(path, old)
        os.rename(partial, path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _write_tar(path: Path, content: dict) -> None:
    with replaced(path) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in sorted(content.items()):
            member = tarfile.TarInfo(f"{path.stem}/{name}")
            member.size, member.mode = len(data), 0o755 if name == SCRIPT else 0o644
            tar.addfile(member, io.BytesIO(data))


def read(path: str | os.PathLike) -> tuple[str, dict]:
    """(id, manifest) of a bundle. Raises WaveError if there is none or wave.json is not what was made."""
    path = Path(path)
    try:
        sums, data = _member(path, SUMS), _member(path, MANIFEST)
    except (OSError, KeyError, tarfile.TarError) as error:
        raise WaveError(f"{path} is no wave: {MANIFEST} or {SUMS} cannot be read ({error})") from None
    digest = hashlib.sha256(data).hexdigest()
    if f"{digest}  {MANIFEST}" not in sums.decode(errors="replace").splitlines():
        raise WaveError(f"{path}: {MANIFEST} is damaged, its sha256 {digest[:16]} is not in {SUMS}")
    try:
        manifest = json.loads(data)
    except ValueError:
        raise WaveError(f"{path}: {MANIFEST} is not JSON") from None
    if manifest.get("format") != FORMAT:
        raise WaveError(f"{path}: the wave's format is {manifest.get('format')!r}, this release reads {FORMAT}")
    return digest[:16], manifest


def _member(path: Path, name: str) -> bytes:
    if path.is_dir():
        return (path / name).read_bytes()
    with tarfile.open(path) as tar:
        return tar.extractfile(f"{path.stem}/{name}").read()


def size(path: str | os.PathLike) -> int:
    """Bytes of a bundle, results left out."""
    path = Path(path)
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file() and not file.name.startswith("result"))
