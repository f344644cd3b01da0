"""What a library holds, without loading it."""

from __future__ import annotations

from convgen.errors import LibraryError
from convgen.runtime import manifest as manifests
from convgen.runtime.variants import obstacle, release

_FACTS = ("id", "symbol", "origin", "threads", "workspace", "measured_us", "torch_us")


def inspect(path) -> dict:
    """Facts about the library at `path` as JSON: name, sha256, versions, operators, and per variant its target, whether this
    machine may run it (`obstacle` None) and its kernels. `damage` lists files that are not what the manifest says. Executes nothing.
    """
    manifest = manifests.read(path)
    data = manifest.data
    damage = []
    for file in sorted(data["files"]):
        try:
            manifests.verified_bytes(manifest, file)
        except LibraryError as error:
            damage.append(str(error))
    return {
        "path": manifest.path, "name": data["name"], "sha256": manifest.sha256, "format": data["format"],
        "convgen": data.get("convgen"), "tvm": data.get("tvm"), "tvm_ffi_min": data["tvm_ffi_min"],
        "bytes": sum(f["size"] for f in data["files"].values()), "damage": damage,
        "operators": {n: [s.get("summary", "") for s in o["signatures"]] for n, o in data["operators"].items()},
        "variants": [
            {"target": v["target"]["name"], "file": v["file"], "obstacle": obstacle(v), "cuda": v.get("cuda"),
             "kernels": [{fact: kernel.get(fact) for fact in _FACTS} for kernel in v["kernels"]]}
            for v in data["variants"]
        ],
    }


def to_text(facts: dict) -> str:
    """The facts of `inspect` for people."""
    lines = [f"{facts['name']}  {facts['bytes']} bytes  sha256 {facts['sha256']}",
             f"format {facts['format']}, made by convgen {facts['convgen']} with TVM {facts['tvm']}, "
             f"needs apache-tvm-ffi {facts['tvm_ffi_min']} or later"]
    lines += [f"damaged: {problem}" for problem in facts["damage"]]
    for variant in facts["variants"]:
        state = "runs here" if variant["obstacle"] is None else f"does not run here: {variant['obstacle']}"
        lines.append(f"{variant['target']}  ({variant['file']}, {_code(variant['cuda'])}{state})")
        for kernel in variant["kernels"]:
            lines.append(f"  {kernel['id']}  [{kernel['origin'] or 'unknown'}]{_speed(kernel)}")
    return "\n".join(lines)


def _code(facts: dict | None) -> str:
    """What CUDA code needs, in words."""
    if facts is None:
        return ""
    return ("with PTX for later devices, " if facts["ptx"] else "") + f"made by CUDA {release(facts['toolkit'])}, "


def _speed(kernel: dict) -> str:
    if kernel["measured_us"] is None:
        return ""
    against = ""
    if kernel["torch_us"] is not None:
        against = f", PyTorch {kernel['torch_us']:.1f} µs" + (" (faster)" if kernel["torch_us"] < kernel["measured_us"] else "")
    return f"  {kernel['measured_us']:.1f} µs{against}"
