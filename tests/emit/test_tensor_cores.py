"""Products of matrices on tensor cores: accepted by nvcc with the instructions asked for, and right when the same source runs on the processor.

There the first lane of a warp computes the whole 16 x 16 tile in float32, term by term; the order and the roundings of real units have not been seen here.
"""

import random
import shutil
import subprocess
from pathlib import Path

import pytest

from convgen import schedules
from convgen.emit import nvcc
from convgen.emit.matrix import Tile
from convgen.emit.service import CompileService
from convgen.emulate import cuda
from convgen.errors import WorkerError
from convgen.lang import parse
from convgen.lang.program import Program
from convgen.schedules.cuda import matrices
from convgen.tune.cases import CaseBook
from convgen.tune.verify import verify
from tests.emit.kernels import complaints, job, target

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="emulating CUDA kernels needs g++")
needs_nvcc = pytest.mark.skipif(nvcc.find() is None, reason="needs nvcc of the CUDA toolkit")

CASES = {  # workload → tile; every layout, dtype and kind of border, and sizes beside all multiples of 16
    "conv2d:n1,c40,o72,h9,w11,k3x3;padding=1:f16.f32.f16:nhwc:act=silu,bias": "64x64x32/2x2/ahead",
    "conv2d:n3,c19,o33,h5,w9,k5x3;stride=2x1,padding=2_1x0_3:bf16.f32.bf16:nchw:act=relu,bias,residual": "32x64x16/1x2/ahead",
    "conv2d:n2,c64,o72,h6,w12,k1x1:f16.f32.f16:nchw:act=gelu": "128x32x64/4x2",
    "conv2d:n1,c128,o96,h6,w6,k1x1:bf16.f32.f32:nhwc:bias,gate": "64x128x32/2x4",
    "conv3d:n2,c10,o16,d2,h4,w3,k2x3x2;padding=1:bf16.f32.bf16:ndhwc": "32x32x32/2x1/ahead",
    "conv2d:n2,c24,o1,h9,w3,k3x2;padding=1_1x2_3,dilation=3x1:f16.f32.f32:nchw:residual": "128x32x32/4x1/ahead",
    "conv1d:n2,c32,o16,l41,k3;padding=2,dilation=2,padding_mode=reflect:f16.f32.f32:ncl": "32x32x64/2x2",
}


def gpu(arch="sm_90"):
    """Target JSON of kernels that only run emulated."""
    return target(f"cuda:{arch}") | {"output": "source"}


def direct(w, machine, tile=None):
    """The direct algorithm's default, with a tile of the tensor cores."""
    leaf = schedules.space(w.description, machine).leaves["direct"]
    choice = leaf.default() | {"sum.tensor": tile or next(t for t in leaf.domains["sum.tensor"] if t)}
    assert leaf.valid(choice) is None, leaf.valid(choice)
    return choice


@needs_compiler
def test_emulated_kernels_are_right(kernels):
    asked = [(w := parse(text), job(w, gpu(), direct(w, gpu(), tile))) for text, tile in CASES.items()]
    answers = kernels.ask([j for _, j in asked])
    wrong = [line for (w, _), answer in zip(asked, answers) for line in complaints(w, answer)]
    assert not wrong, "\n".join(wrong)
    for answer, tile in zip(answers, map(Tile.of, CASES.values())):
        (launch,) = answer["entry"]["launches"]
        assert answer["entry"]["temporaries"] == [] and launch["block"] == [32, tile.down * tile.across, 1] and 0 < launch["shared"] <= matrices.shared_bytes(tile)


@needs_compiler
def test_one_kernel_serves_any_batch(kernels):
    w, *others = (parse(f"conv2d:n{n},c24,o40,h5,w6,k3x3;padding=1:bf16.f32.bf16:nchw:bias") for n in ("2+", 1, 3))
    (answer,) = kernels.ask([job(w, gpu(), direct(w, gpu()), others)])
    assert not complaints(w, answer) and len(answer["verdicts"]) == 3
    assert answer["entry"]["launches"][0]["grid"][1] == "N"


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("text", CASES)
def test_random_tiles(kernels, text):
    w = parse(text)
    tiles = [t for t in schedules.space(w.description, gpu()).leaves["direct"].domains["sum.tensor"] if t]
    choices = [direct(w, gpu(), tile) for tile in random.Random(text).sample(tiles, min(10, len(tiles)))]
    answers = kernels.ask([job(w, gpu(), c) for c in choices], timeout=600.0)
    wrong = [f"{c['sum.tensor']}: {line}" for c, a in zip(choices, answers) for line in complaints(w, a)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("text", CASES)
def test_no_two_threads_race(service, tmp_path, text):
    w = parse(text)
    entry = service.build(w.description, gpu(), direct(w, gpu(), CASES[text]), str(tmp_path), "cg_threads")
    program = cuda.build(tmp_path / entry["source"], tmp_path / "k", sanitizer="thread")
    assert verify(cuda.EmulatedKernel(program, entry, w.dims), CaseBook(Program.from_json(w.description)), True).reason is None


@pytest.fixture(scope="module")
def service():
    pytest.importorskip("xgboost")  # stands for convgen[tune]
    found = CompileService(1)
    yield found
    found.close()


@needs_nvcc
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
@pytest.mark.parametrize("text, tile, instruction", [
    ("conv2d:n8,c64,o128,h28,w28,k3x3;padding=1:f16.f32.f16:nhwc:act=relu,bias", "128x128x32/2x4/ahead", "mma.sync.aligned.row.row.m16n16k16.f32.f32"),
    ("conv2d:n1,c64,o64,h28,w28,k1x1:bf16.f32.bf16:nchw", None, "mma.sync.aligned.col.row.m16n16k16.f32.bf16.bf16.f32"),
])
def test_nvcc_finds_the_instructions(service, tmp_path, text, tile, instruction, arch):
    w, machine = parse(text), target(f"cuda:{arch}")
    entry = service.build(w.description, machine, direct(w, machine, tile), str(tmp_path), "cg_matrix")
    (launch,) = entry["launches"]
    assert launch["spills"] == 0 and launch["registers"] <= 128 and launch["shared"] <= machine["limits"]["shared_per_block"]
    nvcc.compile_cuda(tmp_path / entry["source"], tmp_path / "k.ptx", arch, "ptx")
    code = (tmp_path / "k.ptx").read_text()
    assert instruction in code and "wmma.load.a.sync" in code and "ld.global.nc.v4" in code  # 16 bytes of data or weights at once
    cuobjdump = shutil.which("cuobjdump")
    if cuobjdump is not None:
        assert "HMMA.16816.F32" in subprocess.run([cuobjdump, "-sass", str(tmp_path / entry["object"])], capture_output=True, text=True, check=True).stdout


@needs_compiler
def test_the_barrier_before_the_sums_is_needed(service, tmp_path):
    """Sums take the memory of the slices, which slower warps still read."""
    w = parse("conv2d:n1,c64,o64,h8,w8,k1x1:f16.f32.f16:nhwc")
    entry = service.build(w.description, gpu(), direct(w, gpu(), "64x64x32/2x2"), str(tmp_path), "cg_race")
    source = tmp_path / entry["source"]
    head, tail = source.read_text().split("store_matrix_sync", 1)
    at = head.rindex("__syncthreads();")
    assert "load_matrix_sync" not in head[at:]
    source.write_text(head[:at] + head[at + len("__syncthreads();"):] + "store_matrix_sync" + tail)
    try:
        right = verify(cuda.EmulatedKernel(cuda.build(source, tmp_path / "k"), entry, w.dims), CaseBook(Program.from_json(w.description)), True).ok
    except WorkerError as error:
        assert error.kind == "wrong"
    else:
        assert not right
