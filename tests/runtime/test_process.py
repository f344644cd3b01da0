"""Serving in processes of their own: without a compiler, without torch, after a fork, with threads that come and go."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from convgen.errors import ArgumentError
from convgen.runtime import set_num_threads, threads

REPO = Path(__file__).resolve().parents[2]
BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ImportError(name + " is not available here")
sys.meta_path.insert(0, Blocked())
"""
NUMPY_SERVING = """
import numpy as np
from convgen.runtime import load
lib = load(sys.argv[1], name="serving")
x = np.arange(144, dtype=np.float32).reshape(1, 4, 6, 6) % 5
w = np.ones((8, 4, 3, 3), np.float32)
padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
wanted = sum(padded[:, :, i:i + 6, j:j + 6] for i in range(3) for j in range(3)).sum(1, keepdims=True).repeat(8, 1)
"""


def run(code, *args, **env):
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), *map(str, args)], capture_output=True, text=True, timeout=280,
                          env={**os.environ, "PYTHONPATH": str(REPO), **env})
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def blocked(*modules):
    return BLOCKED.format(blocked=set(modules))


def test_serving_needs_numpy_and_tvm_ffi_alone(library_path):
    run(blocked("tvm", "xgboost", "torch", "convgen.ops") + NUMPY_SERVING + """
assert np.array_equal(lib.conv2d(x, w, padding=1), wanted)
f = lib.bind("conv2d", weight=w, padding=1)
assert np.array_equal(f(x), wanted)
lib.selftest()
lib.warmup()
loaded = {name.partition(".")[0] for name in sys.modules}
assert not loaded & {"tvm", "xgboost", "torch"}, loaded
assert not {m for m in sys.modules if m.startswith("convgen.") and m.split(".")[1] not in ("runtime", "errors")}
assert not [line for line in open("/proc/self/maps") if "libtvm_runtime" in line or "libtvm_compiler" in line]
""", library_path)


def test_serving_torch_without_compiler(library_path):
    run(blocked("tvm", "xgboost") + """
import torch
from convgen.runtime import load
lib = load(sys.argv[1], name="serving")
x, w = torch.ones(1, 4, 6, 6), torch.ones(8, 4, 3, 3)
wanted = torch.nn.functional.conv2d(x, w, padding=1)
assert torch.equal(lib.conv2d(x, w, padding=1), wanted)
assert torch.equal(torch.ops.convgen_serving.conv2d(x, w, None, 1, 1), wanted)
""", library_path)


def test_numpy_and_torch_in_one_process(library_path):
    """tvm_ffi before torch, numpy tensors before torch tensors: one pool, torch's, serves both."""
    run("import sys, tvm_ffi\n" + NUMPY_SERVING + """
assert np.array_equal(lib.conv2d(x, w, padding=1), wanted)
import torch
torch.set_num_threads(1)
assert torch.equal(lib.conv2d(torch.from_numpy(x), torch.from_numpy(w), padding=1), torch.from_numpy(wanted))
assert lib.explain("conv2d", x, w, padding=1).threads == 1
assert torch.equal(torch.ops.convgen_serving.conv2d(torch.from_numpy(x), torch.from_numpy(w), None, 1, 1), torch.from_numpy(wanted))
pools = {line.split()[-1] for line in open("/proc/self/maps") if "libgomp" in line}
assert len(pools) == 1, pools
""", library_path)


def test_number_of_threads_in_new_threads_is_torchs(library_path):
    run("""
import sys, threading
import torch
from convgen.runtime import load, set_num_threads
lib = load(sys.argv[1], name="serving")
x, w = torch.ones(1, 4, 6, 6), torch.ones(8, 4, 3, 3)
def threads():
    seen = []
    t = threading.Thread(target=lambda: seen.append(lib.explain("conv2d", x, w, padding=1).threads))
    t.start(); t.join()
    return seen[0]
torch.set_num_threads(3)
assert threads() == 3, threads()
torch.set_num_threads(1)
assert threads() == 1, threads()
torch.set_num_threads(4)
set_num_threads(2)
assert threads() == 2
set_num_threads(None)
assert threads() == 4
""", library_path)


def test_cap_from_the_environment(monkeypatch):
    monkeypatch.setenv("CONVGEN_NUM_THREADS", "3")
    assert threads.limit() == 3
    set_num_threads(2)
    assert threads.limit() == 2
    set_num_threads(None)
    monkeypatch.delenv("CONVGEN_NUM_THREADS")
    assert threads.limit() == 0
    with pytest.raises(ArgumentError, match="positive int or None, got 0"):
        set_num_threads(0)


FORK = """
import os, sys, warnings
import torch
from convgen.runtime import load
torch.set_num_threads(2)
lib = load(sys.argv[1], name="serving")
x, w = torch.ones(1, 4, 6, 6), torch.ones(8, 4, 3, 3)
wanted = [[[[16.0 if i in (0, 5) and j in (0, 5) else 24.0 if i in (0, 5) or j in (0, 5) else 36.0 for j in range(6)] for i in range(6)]] * 8]
f = lib.bind("conv2d", weight=w, padding=1)
def child_warnings(call):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(3):
            assert call().tolist() == wanted
    return [str(s.message) for s in seen]
def in_child(call):
    pid = os.fork()
    if pid == 0:
        try:
            said = child_warnings(call)
            assert len(said) == 1 and "one thread" in said[0], said
            assert lib.explain("conv2d", x, w, padding=1).threads == 1
            os._exit(0)
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
"""


def test_fork_after_the_pool_was_used(library_path):
    """First by torch alone, then by kernels too; the parent goes on with all its threads and says nothing."""
    run(FORK + """
torch.mm(torch.ones(300, 300), torch.ones(300, 300))
in_child(lambda: f(x))
f(x), lib.conv2d(x, w, padding=1)
in_child(lambda: f(x))
in_child(lambda: lib.conv2d(x, w, padding=1))
assert child_warnings(lambda: f(x)) == []
""", library_path)


def test_scratch_memory_goes_with_its_thread(library_path):
    run(blocked("torch") + """
import threading, time
import numpy as np
from convgen.runtime import load, set_num_threads
set_num_threads(1)
lib = load(sys.argv[1], name="serving")
x = np.ones((1, 8, 64, 64), np.float32)
lib.square2d(x)
held = lib.stats()["workspace_bytes"]
for _ in range(20):
    threads = [threading.Thread(target=lib.square2d, args=(x,)) for _ in range(4)]
    [t.start() for t in threads]; [t.join() for t in threads]
for _ in range(6000):  # a joined thread may still be on its way out
    if lib.stats()["workspace_bytes"] == held: break
    time.sleep(0.01)
assert lib.stats()["workspace_bytes"] == held, (held, lib.stats())
for _ in range(100):
    lib.square2d(x)
assert lib.stats()["workspace_bytes"] == held
""", library_path)


def test_installed_size_of_what_serving_needs():
    """Bytes on disk of apache-tvm-ffi (its one dependency, typing-extensions, included), sources for C++ users left out."""
    import tvm_ffi
    import typing_extensions

    root = Path(tvm_ffi.__file__).parent
    needless = ("include", "src", "3rdparty", "cmake", "testing", "__pycache__")
    sizes = [p.stat().st_size for p in root.rglob("*") if p.is_file() and not set(p.relative_to(root).parts) & set(needless)]
    total = sum(sizes) + Path(typing_extensions.__file__).stat().st_size
    runtime = sum(p.stat().st_size for p in (REPO / "convgen" / "runtime").glob("*") if p.is_file())
    assert total + runtime <= 15_000_000, (total, runtime)
    whole = sum(p.stat().st_size for p in root.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    assert whole <= 15_000_000, whole
