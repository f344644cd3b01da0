"""What a compiled kernel needs, says and repeats."""

import math
import re
import shutil
import subprocess

import numpy as np
import pytest

from convgen import schedules
from convgen.emit.service import CompileService
from convgen.errors import WorkerError
from convgen.lang import parse
from tests.emit.kernels import complaints, job, target

FUNCTIONS = ["conv2d:n1,c4,o8,h6,w5,k3x3;padding=1:{}:nchw:act=gelu", "depthwise_conv2d:n1,c17,h6,w5,k3x3;padding=1:{}:nhwc:act=tanh", "dynamic_conv1d:n2,c8,heads2,l9,k3:{}:nlc:act=silu",
             "deform_conv2d:n1,c4,o8,h6,w5,k3x3;padding=1:{}:nchw:mask"]


@pytest.fixture(scope="module")
def service():
    pytest.importorskip("xgboost")  # stands for convgen[tune]
    found = CompileService(1)
    yield found
    found.close()


@pytest.mark.parametrize("types", ["f32.f32.f32", "f16.f32.f16", "bf16.f32.bf16"])
def test_objects_need_no_library_of_mathematics(service, tmp_path, types):
    for text in FUNCTIONS:
        entry = service.build(parse(text.format(types)).description, target(), None, str(tmp_path), "cg_symbols")
        lines = subprocess.run(["nm", entry["object"]], cwd=tmp_path, capture_output=True, text=True, check=True).stdout.splitlines()
        undefined = {line.split()[-1] for line in lines if line.split()[-2] == "U"}
        assert undefined <= {"memset", "memcpy", "TVMFFIErrorSetRaisedFromCStrParts", "TVMFFIErrorSetRaisedFromCStr"}, text
        exported = {line.split()[-1] for line in lines if line.split()[-2] == "T"}
        assert {"__tvm_ffi_cg_symbols_run"} <= exported <= {"__tvm_ffi_cg_symbols_run", "__tvm_ffi_cg_symbols_prepare"}, text


@pytest.mark.parametrize("text", ["conv2d:n1,c16,o32,h6,w8,k3x3;padding=1:f16.f32.f16:nhwc:act=relu,bias", "depthwise_conv2d:n1,c32,h6,w8,k3x3;padding=1:f16.f32.f16:nhwc"])
@pytest.mark.parametrize("machine, register", [("x86:avx2", "ymm"), ("x86:avx512", "zmm")])
def test_float16_is_widened_and_rounded_in_whole_vectors(service, tmp_path, text, machine, register):
    entry = service.build(parse(text).description, target(machine), None, str(tmp_path), "cg_half")
    code = subprocess.run(["objdump", "-d", "--no-show-raw-insn", entry["object"]], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert re.search(rf"vcvtph2ps .*%{register}", code) and re.search(rf"vcvtps2ph .*%{register}", code) and re.search(rf"vfmadd\w*ps .*%{register}", code)
    assert not re.search(r"vfmadd\w*[ps]h ", code)  # sums stay in float32


def test_same_description_and_choice_same_bytes(kernels):
    for text in ("conv2d:n1,c5,o17,h6,w5,k3x3;padding=1:f32.f32.f32:nchw:act=silu,bias", "deform_conv2d:n1,c4,o8,h6,w5,k3x3;padding=1:f32.f32.f32:nhwc:mask"):
        first, second, third = kernels.ask([job(parse(text))] * 2) + kernels.ask([job(parse(text))])
        assert first["digest"] == second["digest"] == third["digest"]
        assert first["entry"]["choice"] == second["entry"]["choice"]


def test_entry_of_a_prepared_kernel(service, tmp_path):
    w = parse("conv2d:n2,c6,o10,h7,w5,k3x3;stride=2,padding=1:f16.f32.f32:nhwc:act=relu,bias")
    entry = service.build(w.description, target("x86:avx2"), None, str(tmp_path), "cg_entry")
    assert (entry["id"], entry["operator"], entry["target"], entry["align"], entry["origin"]) == (w.id, "conv2d", "x86:avx2", 64, "default")
    assert entry["dtypes"] == {"x": "float16", "weight": "float16", "bias": "float16"} and entry["output_dtype"] == "float32"
    first, *packed, last = entry["args"]
    assert first == {"name": "x", "kind": "input", "shape": [2, 7, 5, 6], "perm": [0, 2, 3, 1], "dtype": "float16"}
    assert last == {"name": "out", "kind": "output", "shape": [2, 4, 3, 10], "perm": [0, 2, 3, 1], "dtype": "float32"}
    assert packed and all(a["kind"] == "packed" and a["perm"] is None for a in packed)
    assert entry["prepare"]["args"] == [{"name": "weight", "kind": "param", "shape": [10, 6, 3, 3], "perm": None, "dtype": "float16"},
                                        {"name": "bias", "kind": "param", "shape": [10], "perm": None, "dtype": "float16"}, *packed]


def test_a_choice_outside_the_space_is_refused_by_name(service, tmp_path):
    w = parse("conv2d:n1,c4,o8,h6,w5,k3x3:f32.f32.f32:nchw")
    with pytest.raises(WorkerError, match=rf"{re.escape(w.id)}: the knobs are not those of this space") as caught:
        service.build(w.description, target(), {"algorithm": "direct"}, str(tmp_path), "cg_wrong")
    assert caught.value.kind == "invalid"


@pytest.mark.parametrize("copies, least, most", [("root", 4 * 16 * 11 * 11, 4 * 16 * 11 * 11 + 8192), ("outer", 4 * 8 * 5 * 5, 4 * 16 * 11 * 11 - 1)])
def test_workspace_is_what_the_loops_allocate(service, tmp_path, copies, least, most):
    """Padding is staged: the whole padded image at once, or what the rows of one task read."""
    w = parse("depthwise_conv2d:n1,c16,h9,w9,k3x3;padding=1:f32.f32.f32:nhwc")
    machine = target("x86:avx2")
    knobs = {"vec": "o", "lanes": 8, "tile1": 3, "tile2": 3, "vectors": 1, "order": "vector", "padding": "stage", "copies": copies, "store": "tile"}
    choice = schedules.space(w.description, machine).default() | {f"sum.{k}": v for k, v in knobs.items()}
    entry = service.build(w.description, machine, choice, str(tmp_path), "cg_scratch")
    assert least <= entry["workspace"] <= most


def test_sums_leave_registers_only_for_the_output(service, tmp_path):
    """A tile of 20 vectors is more than TVM puts on the stack by itself."""
    w = parse("conv2d:n1,c12,o16,h2,w20,k1x1:f32.f32.f32:nhwc")
    machine = target("x86:avx512")
    choice = schedules.space(w.description, machine).default() | {"sum.lanes": 16, "sum.tile1": 20, "sum.tile2": 1, "sum.vectors": 1}
    entry = service.build(w.description, machine, choice, str(tmp_path), "cg_sums")
    code = subprocess.run(["objdump", "-d", "--no-show-raw-insn", entry["object"]], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    run = code[code.index("<__tvm_ffi_cg_sums_run>:"):]
    assert len(re.findall(r"vfmadd\w*ps .*%zmm", run)) >= 20 and len(re.findall(r"vmov\w+ +%zmm\d+,[^%]*\(", run)) == 20


@pytest.fixture(params=["native", "cuda:sm_90"])
def machine(request):
    if request.param.startswith("cuda") and shutil.which("g++") is None:
        pytest.skip("emulating CUDA kernels needs g++")
    return target(request.param) | ({"output": "source"} if request.param.startswith("cuda") else {})


def result(kernels, w, tensors, machine):
    (answer,) = kernels.ask([{"cmd": "run", "description": w.description, "target": machine, "tensors": {k: v.tolist() for k, v in tensors.items()}}])
    return np.array(answer)


def test_activations_keep_what_is_no_number(kernels, machine):
    w = parse("conv2d:n1,c2,o3,h4,w4,k1x1:f32.f32.f32:nchw:act=relu6")
    tensors = w.program.sample(0)
    tensors["x"][0, 0, 1, 2] = math.nan
    lost = np.isnan(result(kernels, w, tensors, machine))
    assert lost[0, :, 1, 2].all() and lost.sum() == 3


def test_a_position_that_is_no_number_lies_outside_the_image(kernels, machine):
    w = parse("deform_conv2d:n1,c3,o4,h5,w5,k3x3;padding=1:f32.f32.f32:nchw")
    tensors = w.program.sample(0)
    tensors["offset"][0, :, 2, 3] = math.nan
    given = result(kernels, w, tensors, machine)
    tensors["offset"][0, :, 2, 3] = 1000.0
    assert (given == result(kernels, w, tensors, machine)).all()
