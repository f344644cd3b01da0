"""Random workloads, targets, dtypes and knobs against the oracle; minutes long, so only on demand: pytest -m slow tests/emit/test_fuzz.py."""

import os
import random

import pytest

from convgen import schedules, shapes
from convgen.errors import ArgumentError
from convgen.lang.ids import LONG
from convgen.ops.table import TABLE
from convgen.runtime.cpu import missing
from tests.emit.kernels import complaints, job, target

START, COUNT = int(os.environ.get("CONVGEN_FUZZ_START", "0")), int(os.environ.get("CONVGEN_FUZZ_COUNT", "25"))
TYPES = [{}, {}, {}, {"dtype": "float16"}, {"dtype": "bfloat16"}, {"dtype": "float16", "out_dtype": "float32"}, {"dtype": "bfloat16", "out_dtype": "float32"}]


def drawn(op, seed):
    """A workload, and others of other batch sizes that its kernel must serve; None where nothing was valid."""
    rng = random.Random(f"{op.name} {seed}")
    fixed = dict(rng.choice(TYPES if not op.types else [{"out_dtype": LONG[t.split(".")[2]]} for t in op.types]), **({"any_batch": True} if rng.random() < 0.2 else {}))
    wish = {d: rng.choice((16, 17, 31, 33, 40, 48, 64)) for d in ("C", "O") if d in op.dims and rng.random() < 0.5}
    if "D" in op.dims:  # else the reference takes longer than the kernel
        wish |= {"N": rng.choice((1, 2)), "D": rng.choice((1, 2, 4, 5)), "H": rng.choice((1, 3, 5, 6)), "W": rng.choice((2, 4, 7, 9)), **{k: rng.choice((1, 2, 3)) for k in ("KD", "KH", "KW")}}
    for more in (wish, {}):
        try:
            w = shapes.small(op, seed, **more, **fixed)
            break
        except ArgumentError:
            continue
    else:
        return None
    flags = {name: on for name, on in w.flags.items() if name != "any_batch"}
    others = [op(**w.dims | {"N": n}, **w.attributes, **flags, dtype=w.dtype, out_dtype=w.out_dtype, layout=w.layout) for n in (1, 3, 8)] if "any_batch" in fixed else []
    return w, others


@pytest.mark.slow
@pytest.mark.parametrize("name", [op.name for op in TABLE])
def test_random_kernels(kernels, name):
    op = next(o for o in TABLE if o.name == name)
    machines = [m for m in map(target, ("native", "x86:avx2", "x86:avx512")) if not missing(m["features"])]
    asked = []
    for seed in range(START, START + COUNT):
        found = drawn(op, seed)
        if found is None:
            continue
        rng = random.Random(f"{name} {seed} choice")
        machine = rng.choice(machines)
        space = schedules.space(found[0].description, machine)
        choice = next(iter(space.candidates(rng, 1, space.defaults())), None) if rng.random() < 0.75 else rng.choice(space.defaults())
        asked.append((seed, machine["name"], choice, found[0], job(found[0], machine, choice, found[1])))
    assert len(asked) > COUNT // 2
    answers = kernels.ask([entry[-1] for entry in asked])
    wrong = [f"seed {seed}, {machine}, {choice}: {line}" for (seed, machine, choice, w, _), a in zip(asked, answers) for line in complaints(w, a)]
    assert not wrong, "\n".join(wrong)
