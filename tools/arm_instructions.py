"""Instructions that the default kernels for ARM execute on small shapes of the main groups: `python tools/arm_instructions.py` writes docs/measured/arm_instructions.jsonl.

The kernels run in an emulator (pip install unicorn), one task per parallel loop. The numbers are the same on every machine and change only with the code: with TVM (its LLVM), the lowering,
the schedules and their defaults. They say nothing about caches or about how many instructions run at once: they are no times and rank no kernels.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout this file lies in

from convgen.emit.service import CompileService  # noqa: E402
from convgen.emulate.arm import EmulatedKernel  # noqa: E402
from convgen.lang import parse  # noqa: E402
from convgen.targets import resolve  # noqa: E402
from convgen.tune.cases import CaseBook  # noqa: E402
from convgen.tune.runner import load_program  # noqa: E402
from convgen.tune.verify import Run, oracles_of  # noqa: E402

OUT = Path(__file__).resolve().parents[1] / "docs" / "measured" / "arm_instructions.jsonl"
N1, A72 = "arm:neoverse-n1", "arm:cortex-a72"
ROWS = [
    ("conv2d:n1,c32,o32,h28,w28,k3x3;padding=1:f32.f32.f32:nchw", N1), ("conv2d:n1,c32,o32,h28,w28,k3x3;padding=1:f32.f32.f32:nhwc", A72),
    ("conv2d:n1,c32,o32,h14,w14,k3x3;stride=2,padding=1:f32.f32.f32:nchw", N1), ("conv2d:n1,c32,o64,h28,w28,k1x1:f32.f32.f32:nchw", N1),
    ("conv2d:n1,c32,o64,h28,w28,k1x1:f32.f32.f32:nhwc", N1), ("conv2d:n1,c3,o32,h32,w32,k7x7;stride=2,padding=3:f32.f32.f32:nchw", N1),
    ("conv2d:n1,c32,o64,h28,w28,k1x1:f16.f32.f16:nhwc", N1),
    ("depthwise_conv2d:n1,c32,h28,w28,k3x3;padding=1:f32.f32.f32:nchw", N1), ("depthwise_conv2d:n1,c32,h28,w28,k3x3;padding=1:f32.f32.f32:nhwc", N1),
    ("depthwise_conv2d:n1,c16,h28,w28,k7x7;padding=3:f32.f32.f32:nchw", N1), ("depthwise_conv2d:n1,c16,h28,w28,k7x7;padding=3:f32.f32.f32:nhwc", A72),
    ("depthwise_conv2d:n1,c16,h28,w28,k31x31;padding=15:f32.f32.f32:nhwc", N1), ("depthwise_conv2d:n1,c16,h14,w14,k27x27;padding=13:f32.f32.f32:nchw", N1),
    ("depthwise_conv2d:n1,c16,h28,w28,k7x7;padding=9,dilation=3:f32.f32.f32:nhwc", N1), ("conv_transpose2d:n1,c16,o16,h14,w14,k4x4;stride=2,padding=1:f32.f32.f32:nchw", N1),
    ("involution2d:n1,c32,g2,h14,w14,k7x7;padding=3:f32.f32.f32:nchw", N1), ("deform_conv2d:n1,c16,o16,h14,w14,k3x3;padding=1:f32.f32.f32:nchw:mask", N1),
    ("inverted_residual2d:n1,c16,hidden96,o16,h14,w14,k3x3:f32.f32.f32:nhwc", N1),
    *(("quantized_conv2d:n1,c32,o32,h14,w14,k3x3;padding=1:u8.i32.u8:nhwc:bias", name) for name in (N1, A72)),
]


def counted(service: CompileService, text: str, name: str, choice=None) -> dict:
    """One row: the kernel's instructions for one call, parameters prepared before, and how many vectors of multiply-adds the description has."""
    w, target = parse(text), resolve(name).to_json()
    with tempfile.TemporaryDirectory() as folder:
        entry = service.build(w.description, target, choice, folder, "k")
        kernel = EmulatedKernel(Path(folder, entry["object"]), entry, w.dims, target["features"], tasks=1)
        book = CaseBook(load_program(w.description), None)
        run = Run(kernel, book.program, book.get(oracles_of(entry, book.program)[0], 0))
        reason = run.first()
        assert reason is None, f"{text}: {reason}"
        return {"workload": text, "target": name, "algorithm": entry["choice"]["algorithm"], "instructions": kernel.instructions(run.buffers), "multiply_adds": w.flops // 8}


def main() -> None:
    service = CompileService()
    rows = [counted(service, *row) for row in ROWS]
    service.close()
    OUT.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for row in rows:
        print(f"{row['instructions']:>10}  {row['instructions'] / max(1, row['multiply_adds']):6.2f}  {row['target']:<16} {row['workload']}", file=sys.stderr)


if __name__ == "__main__":
    main()
