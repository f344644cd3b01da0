"""Every operator's CUDA kernels: accepted by nvcc, and run from the same source on the processor, right by the float64 oracle."""

import importlib.util
import json
import math
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from convgen import emulate, schedules
from convgen.emit import limits, nvcc
from convgen.errors import EmitError, WorkerError
from convgen.lang import parse
from convgen.ops import table
from convgen.runtime.sizes import evaluate
from convgen.tune.cases import CaseBook
from convgen.tune.verify import verify
from tests.emit.kernels import ROOT, complaints, job, target
from tests.emit.together import refusals
from tests.emit.workloads import HARD, workload

ARCHITECTURES = ("sm_80", "sm_86", "sm_89", "sm_90")
needs_nvcc = pytest.mark.skipif(nvcc.find() is None, reason="needs nvcc of the CUDA toolkit")
pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="emulating CUDA kernels needs g++")


def gpu(arch="sm_90", compiled=False):
    """Target JSON; `compiled`: with nvcc, where there is one."""
    return target(f"cuda:{arch}") | ({} if compiled and nvcc.find() else {"output": "source"})


def points(w, machine, seed, n=1):
    """Random valid choices, or the defaults where there is nothing to choose."""
    space = schedules.space(w.description, machine)
    return space.candidates(random.Random(seed), n, space.defaults()) or space.defaults()[-1:]


def drawn(name, i):
    """(workload, target, the default and random points of its space) of a hard shape; the architectures take turns."""
    w, machine = workload(name, HARD[name][i]), gpu(ARCHITECTURES[(i + len(name)) % 4])
    return w, machine, [None, *points(w, machine, i)]


@pytest.mark.parametrize("name", HARD)
def test_default_and_random_kernels(kernels, name):
    asked = [(w, job(w, machine, choice)) for w, machine, choices in (drawn(name, i) for i in range(2)) for choice in choices]
    wrong = [line for (w, _), answer in zip(asked, kernels.ask([j for _, j in asked])) for line in complaints(w, answer)]
    assert not wrong, "\n".join(wrong)


@needs_nvcc
def test_nvcc_takes_default_and_random_kernels(kernels, tmp_path):
    """Of every operator, for the architectures in turn; the emulated source, word for word."""
    asked = [(w, machine, choice) for w, machine, choices in (drawn(name, 0) for name in HARD) for choice in choices]
    assert len(asked) >= 2 * len(table.TABLE)
    answers = kernels.ask([{"cmd": "source", "description": w.description, "target": machine, "choice": choice} for w, machine, choice in asked])
    assert not (failed := [a for a in answers if isinstance(a, WorkerError)]), failed
    for arch in ARCHITECTURES:
        wrong = refusals({f"{w} {choice}": a["source"] for (w, machine, choice), a in zip(asked, answers) if machine["isa"] == arch}, tmp_path, arch)
        assert not wrong, "\n".join(wrong)


@needs_nvcc
def test_a_refused_kernel_is_named(tmp_path):
    text = 'extern "C" __global__ void __launch_bounds__(32) cg_test_run_kernel(float* x) {{ x[threadIdx.x] = {}; }}\n'
    assert refusals({"good": text.format(1), "better": text.format(2)}, tmp_path, "sm_80") == []
    (line,) = refusals({"good": text.format(1), "bad": text.format("nonsense")}, tmp_path, "sm_80")
    assert line.startswith("bad for sm_80: ") and "nonsense" in line


def test_a_result_of_one_element(kernels):
    """Counts of a single row and column: threads that have nothing to do write nothing."""
    wrong, _ = kernels.check([parse(f"partial_padding_conv2d:n1,c16,o16,h3,w{w},k3x1;stride=3:f32.f32.f32:nhwc") for w in (1, 5)], gpu())
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", HARD)
def test_other_storage(kernels, name):
    """Two bytes in memory, float32 in between; or all the dtypes an operator has of its own."""
    types = table.get(name).types or ["f16.f32.f16", "bf16.f32.bf16"]
    wrong, _ = kernels.check([workload(name, HARD[name][(i + 1) % 2], kind) for i, kind in enumerate(types)], gpu())
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", HARD)
def test_any_batch(kernels, name):
    """One kernel serves batches of 1, 3 and 8; its grid says how."""
    text = HARD[name][0]
    w = workload(name, text, any_batch=True)
    others = [workload(name, f"n{n},{text.split(',', 1)[1]}") for n in (1, 3, 8)]
    (answer,) = kernels.ask([job(w, gpu(), others=others)])
    assert not complaints(w, answer) and len(answer["verdicts"]) == 4
    assert any("N" in launch["grid"] for launch in answer["entry"]["launches"])


@pytest.mark.parametrize("id", ["convnext_block2d:n1,c1,hidden1,h3,w8,k3x3:f32.f32.f32:nhwc", "convnext_block2d:n3,c3,hidden1,h3,w7,k5x3:f32.f32.f32:nchw",
                                "partial_padding_conv2d:n1,c32,o2,h5,w7,k7x2;stride=1x3,padding=1_1x0_3:f32.f32.f32:nchw:bias,bn"])
def test_results_of_one_element(kernels, id):
    """Prepared parameters and sums of one element: no thread beside the first may store them."""
    wrong, _ = kernels.check([parse(id)], gpu())
    assert not wrong, wrong


def test_entries_are_complete(kernels):
    """What a launcher needs: every argument is given, every temporary is written before it is read, every kernel has its code's facts."""
    if nvcc.find() is None:
        pytest.skip("needs nvcc of the CUDA toolkit")
    w = workload("dynamic_conv1d", HARD["dynamic_conv1d"][0])
    (answer,) = kernels.ask([job(w, gpu(compiled=True))])
    entry = answer["entry"]
    temporaries = {t["name"] for t in entry["temporaries"]}
    assert temporaries and not temporaries & {a["name"] for a in entry["args"]}
    given = {a["name"] for a in entry["args"]} | temporaries
    assert all(set(l["args"]) <= given and l["registers"] > 0 and l["spills"] == 0 for l in entry["launches"])
    assert temporaries <= {name for l in entry["launches"] for name in l["args"]} and (entry["source"], entry["object"]) == ("cg_test.cu", "cg_test.cubin")
    assert entry["workspace"] >= 4 * max(math.prod(t["shape"]) for t in entry["temporaries"])


def test_same_description_and_choice_same_bytes(kernels):
    for compiled in (False, *([True] if nvcc.find() else [])):
        w = workload("separable_block2d", HARD["separable_block2d"][0])
        first, second = kernels.ask([job(w, gpu(compiled=compiled))] * 2)
        assert first["digest"] == second["digest"]


def test_integer_kernels_are_rounded_step_by_step(kernels):
    """nvcc would contract a scale and a shift; the values are defined without."""
    (answer,) = kernels.ask([{"cmd": "source", "description": workload("quantized_conv2d", HARD["quantized_conv2d"][0]).description, "target": gpu()}])
    assert "__fmul_rn(" in answer["source"]


@pytest.mark.parametrize("launch, said", [
    ({"grid": [1, 1, 1], "block": [32, 33, 1]}, "a block takes at most 1024 threads, got 1056"), ({"grid": [1, 70000, 1], "block": [32, 1, 1]}, "at most 65535 blocks along y, got 70000"),
    ({"grid": ["N", "N", 1], "block": [32, 1, 1], "shared": 200 << 10, "shared_static": 40 << 10}, "at most 232448 bytes of shared memory, got 245760"),
    ({"grid": [1, 1, 1], "block": [32, 1, 1], "shared_static": 49156}, "at most 49152 bytes of static shared memory, got 49156"),
])
def test_launches_that_no_gpu_takes_are_refused(launch, said):
    with pytest.raises(EmitError, match=f"k: .*{said}"):
        limits.refuse({"symbol": "k", "shared": 0, "shared_static": 0} | launch, gpu()["limits"])


@pytest.mark.parametrize("shapes, grid, most", [([[3, "N", 1000]], [1, 1, 1], 715806), ([["N", 10], [["+", ["*", "N", 2], 4], 2**20]], [1, 1, 1], 1021), ([["N"]], [1, "N", 1], 65535),
                                                ([["N"], [7]], [["//", ["+", ["*", "N", 64], 255], 256], 3, 1], 2147418112), ([["N", 2**31]], [1, 1, 1], 0)])
def test_largest_batch(shapes, grid, most):
    """Indices of 32 bits, and the limits of grids."""
    most = min(most, limits.INDEXABLE)
    assert limits.most_samples(shapes, [{"grid": grid}]) == most
    assert all(math.prod(evaluate(n, {"N": most}) for n in shape) <= limits.INDEXABLE for shape in shapes)
    assert most == limits.INDEXABLE or any(math.prod(evaluate(n, {"N": most + 1}) for n in shape) > limits.INDEXABLE for shape in shapes) or evaluate(grid[1], {"N": most + 1}) > 65535


_BUILD = """
import hashlib, json, pathlib, sys
import tvm
from convgen.emit import build_kernel
job = json.loads(sys.stdin.read())
entry = build_kernel(job["description"], job["target"], None, sys.argv[1], "cg_test")
print(hashlib.sha256(pathlib.Path(sys.argv[1], entry["source"]).read_bytes()).hexdigest(), tvm.get_global_func("ffi.Module.create.cuda", allow_missing=True) is not None)
"""


def test_a_driver_changes_nothing(tmp_path):
    """Where TVM can load a driver it wants to compile CUDA itself, by packages of its own; the source stays the same and nobody is asked."""
    library = nvidia_runtime()
    if library is None or importlib.util.find_spec("tvm") is None:
        pytest.skip("needs the compiler and libcudart.so.13 of the CUDA toolkit")
    needed = ("cuDeviceGetName", "cuFuncSetAttribute", "cuGetErrorName", "cuGetErrorString", "cuLaunchKernelEx", "cuModuleGetFunction", "cuModuleLoadData", "cuModuleUnload", "cuTensorMapEncodeTiled")
    (tmp_path / "driver.c").write_text("".join(f"int {name}(void) {{ return 100; }}\n" for name in needed))
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", tmp_path / "libcuda.so.1", tmp_path / "driver.c"], check=True)
    w, found = workload("conv1d", HARD["conv1d"][0]), []
    for paths in ([], [str(tmp_path), str(library)]):
        env = {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(paths), "PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, "-c", _BUILD, tmp_path], input=json.dumps({"description": w.description, "target": gpu()}), env=env, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, done.stderr
        found.append(done.stdout.split())
    assert found[0][0] == found[1][0] and [driver for _, driver in found] == ["False", "True"]


def nvidia_runtime():
    """The toolkit's folder of libcudart.so.13, None where there is none."""
    homes = [Path(p).resolve() for p in (os.environ.get("CUDA_PATH"), os.environ.get("CUDA_HOME"), "/usr/local/cuda", "/usr/local/cuda-13.0") if p]
    return next((home / sub for home in homes for sub in ("lib64", "lib", "targets/x86_64-linux/lib") if (home / sub / "libcudart.so.13").exists()), None)


@pytest.mark.slow
@pytest.mark.parametrize("name", HARD)
def test_every_shape_and_more_points(kernels, name, tmp_path):
    """All shapes: defaults, and random points for the architectures in turn, in emulation and (where it is there) through nvcc."""
    asked = []
    for i, text in enumerate(HARD[name]):
        w = workload(name, text)
        first, *others = [gpu(ARCHITECTURES[(i + k) % 4]) for k in range(4)]
        asked += [(w, first, None), *((w, machine, choice) for machine in others for choice in points(w, machine, 100 + i))]
    answers = kernels.ask([job(w, machine, choice) for w, machine, choice in asked])
    wrong = [f"{line} {choice}" for (w, _, choice), answer in zip(asked, answers) for line in complaints(w, answer)]
    assert not wrong, "\n".join(wrong)
    for arch in ARCHITECTURES if nvcc.find() else ():
        wrong = refusals({f"{w} {choice}": a["source"] for (w, machine, choice), a in zip(asked, answers) if machine["isa"] == arch}, tmp_path, arch)
        assert not wrong, "\n".join(wrong)


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", ["address", "thread"])
@pytest.mark.parametrize("name", ["conv2d", "depthwise_conv2d", "inverted_residual2d", "dynamic_conv1d", "deform_conv2d", "quantized_conv2d"])
def test_sanitizers_find_nothing(kernels, name, sanitizer, tmp_path):
    """In this process, for a worker's limit on memory leaves no room for what the sanitizers reserve."""
    w, machine = workload(name, HARD[name][0]), gpu()
    answers = kernels.ask([{"cmd": "source", "description": w.description, "target": machine, "choice": choice} for choice in (None, *points(w, machine, 5))])
    for answer in answers:
        (tmp_path / answer["entry"]["source"]).write_text(answer["source"])
        kernel = emulate.opener(answer["entry"], tmp_path, machine, sanitizer=sanitizer)(w.description["dims"])
        verdict = verify(kernel, CaseBook(w.program), thorough=False)
        assert verdict.ok, verdict.reason


def test_extents_of_one(kernels):
    """A sum with one element in all, computed by one thread; a window over one row, whose padding stands beside whole tiles of columns."""
    ids = ["convnext_block2d:n3,c3,hidden1,h3,w7,k5x3:f32.f32.f32:nchw", "partial_padding_conv2d:n1,c32,o2,h5,w7,k7x2;stride=1x3,padding=1_1x0_3:f32.f32.f32:nchw:bias,bn",
           "large_kernel_attention2d:n3,c2,h1,w14,small1,k3x1;dilation=1x2:f32.f32.f32:nchw", "inverted_residual2d:n3,c3,hidden1,o3,h7,w14,k3x1:f32.f32.f32:nhwc"]
    wrong, _ = kernels.check([parse(id) for id in ids], gpu())
    assert not wrong, "\n".join(wrong)
