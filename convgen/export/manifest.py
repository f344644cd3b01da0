"""Writing manifest.json: the same library gives the same bytes, wherever and whenever it is exported."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Mapping, Sequence

from convgen.runtime.manifest import FORMAT

# Kernels call one function of tvm_ffi (errors) and the shim four more; all are in this release.
TVM_FFI_MIN = "0.1.14"
TVM = "0.27.0.post1"


def build(name: str, convgen_version: str, signatures: Mapping[str, Sequence[dict]], variants: Sequence[dict],
          shims: Mapping[str, str], files: Mapping[str, Path]) -> dict:
    """The manifest of a library. `files` are the finished files by name; `variants` in the order in which they were asked for; `shims`: by target family."""
    return {
        "format": FORMAT,
        "name": name,
        "convgen": convgen_version,
        "tvm": TVM,
        "tvm_ffi_min": TVM_FFI_MIN,
        "files": {file: digest(path) for file, path in files.items()},
        "shims": dict(shims),
        "operators": {operator: {"signatures": _unique(found)} for operator, found in signatures.items()},
        "variants": list(variants),
    }


def digest(path: Path) -> dict:
    """sha256 and size in bytes of a file."""
    content = path.read_bytes()
    return {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}


def encode(manifest: dict) -> bytes:
    """The manifest as bytes: sorted keys, no dates, no paths."""
    return (json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=True, allow_nan=False) + "\n").encode()


def kernel_record(entry: Mapping) -> dict:
    """A kernel entry as a library keeps it: without the files it came from."""
    return {key: value for key, value in entry.items() if key not in ("object", "source")}


def _unique(signatures: Sequence[dict]) -> list[dict]:
    """Each structural variant once, ordered by content, so that the order of the workloads changes nothing."""
    texts = {json.dumps(s, sort_keys=True): s for s in signatures}
    return [texts[text] for text in sorted(texts)]
