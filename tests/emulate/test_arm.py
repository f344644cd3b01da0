"""The emulated aarch64 machine: what it reports of kernels that go wrong, and that it counts the same each time."""

import importlib.util

import numpy as np
import pytest

from convgen.emulate.arm import EmulatedKernel, _FUNCTIONS
from convgen.errors import WorkerError
from convgen.lang import parse
from convgen.targets import resolve

pytestmark = [pytest.mark.skipif(importlib.util.find_spec("unicorn") is None, reason="needs unicorn: pip install unicorn"),
              pytest.mark.skipif(importlib.util.find_spec("tvm") is None, reason="needs the compiler: pip install convgen[tune]")]

W = parse("quantized_conv2d:n1,c16,o8,h5,w6,k3x3;padding=1:u8.i32.u8:nhwc")


@pytest.fixture(scope="module")
def entry(tmp_path_factory):
    """(path of the object, entry) for a processor with the dot product instruction."""
    from convgen.emit.service import CompileService

    folder, service = tmp_path_factory.mktemp("arm"), CompileService()
    found = service.build(W.description, resolve("arm:neoverse-n1").to_json(), None, folder, "k")
    service.close()
    return folder / found["object"], found


def filled(kernel):
    buffers = kernel.buffers([*kernel.entry["prepare"]["args"], *kernel.entry["args"]])
    for b in buffers.values():
        b.bytes[:] = 1
    return buffers


def test_calls_and_counts(entry):
    kernels = [EmulatedKernel(*entry, W.dims, resolve("arm:neoverse-n1").features, tasks) for tasks in (1, 1, 5)]
    counts, outputs = [], []
    for kernel in kernels:
        buffers = filled(kernel)
        kernel.preparer(buffers)()
        counts += [kernel.instructions(buffers), kernel.instructions(buffers)]
        outputs.append(buffers["out"].bytes.copy())
        assert not any(b.damaged() for b in buffers.values())
    assert len(set(counts[:4])) == 1 and counts[4] == counts[5] > counts[0] > 1000
    assert all(np.array_equal(outputs[0], o) for o in outputs[1:])


def test_instructions_that_the_target_lacks_are_met(entry):
    kernel = EmulatedKernel(*entry, W.dims)
    buffers = filled(kernel)
    with pytest.raises(WorkerError, match="the kernel stopped at offset 0x"):
        kernel.caller(buffers)()


def test_wrong_arguments_are_reported_in_the_kernels_words(entry):
    kernel = EmulatedKernel(*entry, W.dims, ["asimddp"])
    buffers = filled(kernel)
    buffers["x"].shape = (1, 5, 6, 17)
    with pytest.raises(WorkerError, match=r"(?s)stopped with code -1: Invalid x.shape\[3\] .* expected 16$"):
        kernel.caller(buffers)()


def test_memory_behind_the_guards_is_not_there(entry):
    kernel = EmulatedKernel(*entry, W.dims, ["asimddp"])
    buffers = filled(kernel)
    small = kernel.buffers([{"name": "out", "shape": [1], "dtype": "uint8"}])["out"]
    small.shape, small.strides = buffers["out"].shape, buffers["out"].strides
    buffers["out"] = small
    kernel.caller(buffers)()
    assert small.damaged() == "after"


def test_foreign_objects_are_refused(tmp_path, entry):
    path = tmp_path / "k.o"
    path.write_bytes(b"MZ")
    with pytest.raises(WorkerError, match=r"k.o is for no machine \(it is no ELF file\) and not for arm"):
        EmulatedKernel(path, entry[1], W.dims)
    with pytest.raises(WorkerError, match="defines no function missing_run"):
        EmulatedKernel(entry[0], entry[1] | {"symbol": "missing_run"}, W.dims)


def test_functions_fit_before_their_cells():
    assert sum(4 * len(words.split()) for words in _FUNCTIONS.values()) == 256
