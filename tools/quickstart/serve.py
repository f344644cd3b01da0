"""The serving half, in a process of its own: `serve.py FOLDER` opens FOLDER/library.cvg for the layers
in FOLDER/layers.json on the tensors in FOLDER/tensors.

Writes the outputs to FOLDER/outputs and a row per layer to FOLDER/served.json. Fails if an output is not PyTorch's.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import bare

bare.remove_compiler()

import numpy as np  # noqa: E402
import torch  # noqa: E402

import convgen  # noqa: E402

# Relative L2 distance from PyTorch's float64 result: float32 sums of 1000 products err by 1e-7 to 1e-6, Winograd by some 1e-6.
TOLERANCE = 1e-5


def in_format(tensor: torch.Tensor, layout: str) -> torch.Tensor:
    """A tensor in a workload's memory format (those of four dimensions have two)."""
    last = layout == "channels_last" and tensor.ndim == 4
    return tensor.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def serve(title: str, workload: str, library, arrays: dict[str, np.ndarray]) -> tuple[dict, np.ndarray]:
    """(row, output) of one layer. Raises RuntimeError if the output is not what PyTorch computes in float64."""
    w = convgen.workload(workload)
    tensors = {name: in_format(torch.from_numpy(value), w.layout) for name, value in arrays.items()}
    kinds = {t["name"]: t["kind"] for t in w.signature["tensors"]}
    bound = library.bind(w.operator, **{name: tensors[name] for name in kinds if kinds[name] == "param"}, **w.attributes)
    output = bound(*(tensors[name] for name in kinds if kinds[name] == "input"))
    expected = w.baseline(**{name: value.double() for name, value in tensors.items()})
    error = float((output.double() - expected).norm() / expected.norm())
    if not error <= TOLERANCE:
        raise RuntimeError(f"{title}: relative L2 distance {error:.2e} from PyTorch's result, allowed is {TOLERANCE:.0e}")
    return {"title": title, "workload": w.id, "error": error, "calls": library.stats()["calls"][w.id]}, output.numpy()


def main(folder: Path) -> None:
    library = convgen.load(folder / "library.cvg")
    (folder / "outputs").mkdir(exist_ok=True)
    rows = []
    with torch.inference_mode():
        for number, (title, workload) in enumerate(json.loads((folder / "layers.json").read_text())):
            with np.load(folder / "tensors" / f"{number}.npz") as arrays:
                row, output = serve(title, workload, library, dict(arrays))
            np.save(folder / "outputs" / f"{number}.npy", output)
            rows.append(row)
    bare.assert_bare()
    (folder / "served.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
