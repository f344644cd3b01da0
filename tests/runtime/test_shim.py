"""The shim's scratch memory and plans, at the level of C."""

import ctypes
import random
import threading

import numpy as np
import pytest

from convgen.errors import LibraryError
from convgen.export.link import compile_shim
from convgen.runtime import native


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    path = tmp_path_factory.mktemp("shim") / "shim.so"
    compile_shim(path)
    return native.Shim(str(path))


def fill(address, size, value):
    ctypes.memset(address, value, size)


def intact(address, size, value):
    return (np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address)) == value).all()


def test_scratch_blocks_in_any_order(shim):
    """Random allocation and release, nested and not: aligned, disjoint, and everything is given back at the end."""
    c, rng, live, held = shim._c, random.Random(0), {}, 0
    for step in range(3000):
        if live and rng.random() < 0.5:
            address, (size, value) = rng.choice(list(live.items()))
            assert intact(address, size, value)
            assert c.cg_workspace_free(address) == 0
            del live[address]
        else:
            size = rng.choice([1, 63, 64, 65, 1000, 70_000, 300_000])
            address = c.cg_workspace_alloc(size)
            assert address and address % 64 == 0
            fill(address, size, step % 251)
            live[address] = (size, step % 251)
            held = max(held, shim.workspace_bytes)
    for address, (size, value) in live.items():
        assert intact(address, size, value)
        c.cg_workspace_free(address)
    for _ in range(10):
        c.cg_workspace_free(c.cg_workspace_alloc(300_000))
    assert shim.workspace_bytes <= held


def test_a_thread_holds_what_was_in_use_at_most(shim):
    """Temporaries of two stages after a common one, in two sizes, as calls of kernels take them."""
    sizes = []

    def call(first, second):
        outer = shim._c.cg_workspace_alloc(100_000)
        for size in (first, second, first):
            inner, small = shim._c.cg_workspace_alloc(size), shim._c.cg_workspace_alloc(64)
            shim._c.cg_workspace_free(small)
            shim._c.cg_workspace_free(inner)
        shim._c.cg_workspace_free(outer)
        sizes.append(shim.workspace_bytes - before)

    def work():
        for first, second in [(640_000, 900_000)] * 3 + [(2_000, 3_000), (700_000, 1_000_000), (1, 1)]:
            call(first, second)
    before = shim.workspace_bytes
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert all(1_000_000 <= size <= 1_005_000 for size in sizes[1:4]) and all(1_100_000 <= size <= 1_105_000 for size in sizes[5:])


def test_block_freed_by_another_thread(shim):
    address = shim._c.cg_workspace_alloc(100)
    other = threading.Thread(target=shim._c.cg_workspace_free, args=(address,))
    other.start()
    other.join()
    assert shim._c.cg_workspace_alloc(100) == address
    shim._c.cg_workspace_free(address)


def test_block_outlives_its_thread(shim):
    got = []

    def work():
        got.append(shim._c.cg_workspace_alloc(5000))
        fill(got[0], 5000, 7)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert intact(got[0], 5000, 7)
    shim._c.cg_workspace_free(got[0])


def test_absurd_size_gives_null(shim):
    assert shim._c.cg_workspace_alloc(2**63) is None
    assert shim._c.cg_workspace_alloc(2**61) is None


KERNEL = """
#include <stdint.h>
typedef struct { int32_t type_index; uint32_t zero; void* p; } Any;
extern void TVMFFIErrorSetRaisedFromCStr(const char*, const char*);
int __tvm_ffi_loud(void* s, const Any* a, int n, Any* r) { TVMFFIErrorSetRaisedFromCStr("ValueError", "too loud"); return -1; }
int __tvm_ffi_mute(void* s, const Any* a, int n, Any* r) { return -1; }
"""


@pytest.fixture(scope="module")
def broken(shim, tmp_path_factory):
    import subprocess

    folder = tmp_path_factory.mktemp("broken")
    (folder / "k.c").write_text(KERNEL)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(folder / "k.so"), str(folder / "k.c")], check=True)
    return native.open_library(str(folder / "k.so"))


def plan_of(shim, broken, symbol):
    counter = np.zeros(1, np.uint64)
    program = native.Program(calls=[native.Wanted((4,), (1,), "float32"), native.Wanted((4,), (1,), "float32", True)], counter=counter.ctypes.data)
    program.steps.append((native.symbol_address(broken, symbol), [native.Argument(native.CALL, 0, "float32", (4,))]))
    return shim.compile(program), counter


@pytest.mark.parametrize("symbol, message", [("loud", "too loud"), ("mute", "without a message")])
def test_failing_kernel_raises_its_message(shim, broken, symbol, message):
    plan, counter = plan_of(shim, broken, symbol)
    memory = np.zeros(64, np.float32)
    start = memory.ctypes.data + (-memory.ctypes.data % 64)
    for _ in range(2):
        with pytest.raises(Exception, match=message):
            plan(start, start + 64)
    assert counter[0] == 0


def test_plan_names_what_does_not_fit(shim, broken):
    import torch

    plan, _ = plan_of(shim, broken, "mute")
    good = torch.zeros(4)
    cases = {
        "dtype": (torch.zeros(4, dtype=torch.int32), good), "shape": (torch.zeros(5), good), "strides": (torch.zeros(8)[::2], good),
        "alignment": (torch.zeros(5)[1:], good), "overlap": (good, good), "count": (good,), "kind": (None, good),
    }
    for why, tensors in cases.items():
        assert native.reason(plan(*tensors))[0] == why, why


def test_missing_symbol(broken):
    with pytest.raises(LibraryError, match="does not export the kernel gone"):
        native.symbol_address(broken, "gone")
