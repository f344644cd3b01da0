"""CUDA sources through few calls of nvcc: starting it takes longer than compiling a kernel."""

import re

from convgen.emit import nvcc
from convgen.errors import WorkerError

_KERNEL = 'extern "C" __global__'
_NAME = re.compile(re.escape(_KERNEL) + r" void (?:__launch_bounds__\([^)]*\) )?(\w+)\(")


def refusals(sources, folder, arch):
    """What nvcc has against kernels, one line each. `sources`: {how to call it: text whose kernels are called cg_test_...}; those with equal code in front of their kernels become one file."""
    files, wrong = {}, []
    for i, (label, text) in enumerate(sources.items()):
        text = text.replace("cg_test", f"cg_{i}")
        at = text.index(_KERNEL)
        files.setdefault(text[:at], {})[label] = text[at:]
    for front, bodies in files.items():
        if _refused(front + "".join(bodies.values()), folder, arch):
            wrong += [f"{label} for {arch}: {reason}" for label, body in bodies.items() if (reason := _refused(front + body, folder, arch))]
    return wrong


def _refused(text, folder, arch):
    source, cubin = folder / f"{arch}.cu", folder / f"{arch}.cubin"
    source.write_text(text)
    try:
        made = nvcc.compile_cuda(source, cubin, arch)
    except WorkerError as error:
        return str(error)
    return None if set(made) == set(_NAME.findall(text)) and cubin.stat().st_size else f"a cubin of {sorted(made)}"
