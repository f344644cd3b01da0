"""`convgen check`: is an operator described right, and is its default kernel right?"""

from __future__ import annotations

from .output import common, note, show


def add(verbs) -> None:
    parser = common(verbs.add_parser("check", help="formula, plan, oracle against baseline, default kernel against oracle"), _check)
    parser.add_argument("operator", metavar="OP", help="a name, pkg.mod:op or path/my_ops.py:op")
    parser.add_argument("--target", default="native", help="of the kernel; one that is not here is emulated (CUDA source by g++, ARM code by unicorn)")
    parser.add_argument("--shapes", type=int, default=5, help="random shapes to try (default 5)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-kernel", action="store_true", help="check the description only; needs no compiler")


def _check(options) -> int:
    from .. import references, shapes
    from ..checking import Kernels
    op = references.find(options.operator)
    workloads = [shapes.small(op, options.seed + i) for i in range(options.shapes)]
    note(options, f"{op.name}: {op.summary}\n\n" + _indented(workloads[0].signature["formula"]) + "\n\n" + _indented(_plan(workloads[0].program)) + "\n")
    rows = []
    kernels = Kernels(options.target) if not options.no_kernel else None
    try:
        for w in workloads:
            row = {"workload": w.id, "oracle": _oracle(w, options.seed), "kernel": str(kernels.verdict(w)) if kernels else "not asked for"}
            rows.append(row)
            note(options, f"{w.id}\n  oracle against baseline: {row['oracle']}\n  kernel against oracle: {row['kernel']}")
    finally:
        if kernels:
            kernels.close()
    wrong = [row for row in rows if any(row[key].startswith("WRONG") for key in ("oracle", "kernel"))]
    show(options, {"operator": op.name, "ok": not wrong, "checks": rows},
         f"{op.name}: {len(wrong)} of {len(rows)} shapes wrong" if wrong else f"{op.name}: {len(rows)} shapes right")
    return 1 if wrong else 0


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def _plan(program) -> str:
    """Tensors by kind, then every stage: when it runs, and the role of each of its axes."""
    from ..lang.access import roles
    lines = [f"{kind}: {', '.join(t.name for t in program.tensors if t.kind == key) or 'none'}" for kind, key in (("inputs", "input"), ("parameters", "param"))]
    once = {stage.name for stage in program.bind_stages}
    for stage in program.stages:
        found = roles(stage)
        groups = [f"{role} {' '.join(names)}" for role in ("window", "spatial", "channel", "plain", "gathered") if (names := getattr(found, role))]
        lines.append(f"stage {stage.name}, {'once when parameters are bound' if stage.name in once else 'per call'}: {'; '.join(groups)}")
    return "\n".join(lines)


def _oracle(w, seed: int) -> str:
    """The float64 oracle against the PyTorch baseline, computed in float64 unless it is of integers."""
    if not w.has_baseline:
        return "n/a, no baseline is declared"
    import numpy as np
    import torch
    exact = not w.program.integral  # else PyTorch computes in float32 and may round an integer to its neighbour
    tensors = {name: value.double() if exact and value.is_floating_point() else value for name, value in w.sample(seed).items()}
    baseline = w.baseline(**tensors).numpy()
    oracle = np.asarray(w.reference(**tensors))
    if baseline.shape != oracle.shape:
        return f"WRONG, the oracle's shape is {oracle.shape} and the baseline's {baseline.shape}"
    difference = np.abs(oracle - baseline)
    scale = max(1.0, float(np.abs(baseline).max(initial=0.0)))
    allowed = 1e-9 * scale if exact else 1e-6 * scale if w.out_dtype == "float32" else 1.0  # a million roundings of float64; a few of float32; one step
    if not difference.size or float(difference.max()) <= allowed:
        return "right"
    where = tuple(int(i) for i in np.unravel_index(int(difference.argmax()), difference.shape))
    return f"WRONG, at {where} the oracle gives {oracle[where]:.6g} and the baseline {baseline[where]:.6g}"
