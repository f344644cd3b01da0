"""What a machine may run of a library's CUDA variants, and the sentence where it may not."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from convgen.errors import LibraryError, NoKernel, TargetError
from convgen.export.inspect import inspect, to_text
from convgen.runtime import cuda, load, variants
from convgen.runtime.__main__ import main
from tests.cuda_driver import library
from tests.cuda_driver.device import Array

REPO = Path(__file__).resolve().parents[2]
X, W = np.ones((1, 4, 6, 6), np.float32), np.ones((8, 4, 3, 3), np.float32)


def device(major, minor, name="NVIDIA X", index=0):
    found = object.__new__(cuda.Device)
    found.index, found.name, found.capability = index, name, (major, minor)
    return found


def variant(isa, ptx=False, toolkit=13000, card="generic"):
    return {"target": {"name": f"cuda:{isa}" if card == "generic" else f"cuda:{card}", "family": "cuda", "isa": isa, "microarchitecture": card},
            "cuda": {"toolkit": toolkit, "driver": toolkit // 1000 * 1000, "ptx": ptx}, "kernels": []}


LOW, HIGH = variant("sm_80", ptx=True), variant("sm_90")


@pytest.mark.parametrize("here, version, held, taken", [
    ((8, 0), 13000, [LOW, HIGH], "sm_80"),
    ((9, 0), 13000, [LOW, HIGH], "sm_90"),
    ((8, 9), 13000, [LOW, HIGH, variant("sm_86")], "sm_86"),
    ((10, 0), 13000, [HIGH, LOW], "PTX of sm_80"),
    ((10, 0), 13010, [LOW, variant("sm_90", ptx=True)], "PTX of sm_90"),
    ((9, 0), 12040, [variant("sm_90", toolkit=12080)], "sm_90"),  # cubins run with every driver of the major version
    ((9, 0), 13000, [variant("sm_90a"), HIGH], "sm_90a"),
])
def test_the_nearest_code_is_taken(here, version, held, taken):
    choice = variants.choose_cuda(held, device(*here), version)
    assert choice.code == taken and choice.ptx == taken.startswith("PTX") and len(choice.refused) == len(held) - 1


def test_code_tuned_for_the_very_card_is_taken():
    held = [variant("sm_90"), variant("sm_90", card="h200"), variant("sm_90", card="h100")]
    assert variants.choose_cuda(held, device(9, 0, "NVIDIA H200"), 13000).target == "cuda:h200"
    assert variants.choose_cuda(held, device(9, 0, "NVIDIA GH200"), 13000).target == "cuda:h200"
    assert variants.choose_cuda(held, device(9, 0, "NVIDIA H800"), 13000).target == "cuda:sm_90"


@pytest.mark.parametrize("here, version, held, sentence", [
    ((7, 5), 13000, [LOW, HIGH], r"nothing in it runs on cuda:0 .NVIDIA X, sm_75. .cuda:sm_80: it is for sm_80 and cuda:0 .* cannot run that; cuda:sm_90: "),
    ((9, 0), 12080, [HIGH], "its code was made by CUDA 13.0 and needs a driver for CUDA 13.0 or later, and this one is for 12.8"),
    ((10, 0), 13000, [HIGH], "it is for sm_90 alone and holds no PTX that cuda:0 .* could use"),
    ((10, 0), 12080, [variant("sm_80", True, 12090)], "its PTX needs a driver for CUDA 12.9 or later to be compiled for cuda:0 .*, and this one is for 12.8"),
    ((10, 0), 13000, [variant("sm_90a", ptx=True)], "it is for sm_90a and cuda:0 .* cannot run that"),
    ((10, 0), 13000, [variant("gfx90a")], "its architecture 'gfx90a' is unknown"),
])
def test_what_cannot_run_says_why(here, version, held, sentence):
    with pytest.raises(TargetError, match=sentence) as caught:
        variants.choose_cuda(held, device(*here), version)
    assert "\n" not in str(caught.value)


def test_an_unknown_architecture_takes_the_ptx(gpu_path, machine, monkeypatch, tmp_path):
    monkeypatch.setenv("FAKE_CUDA_DEVICES", "12.0 NVIDIA B")
    lib = load(gpu_path, name=f"gpu_{tmp_path.name}")
    assert (lib.conv2d(Array(X), Array(W), padding=1).host[0, 0, 2, 2]) == 36
    assert machine.calls("cuModuleLoadDataEx") == ["cuModuleLoadDataEx 0 ptx 80"]
    explained = lib.explain("conv2d", Array(X), Array(W), padding=1)
    assert explained.code == "PTX of sm_80" and "the driver compiles this code for the device when it is first used" in str(explained)
    assert {"cuda:sm_90", "x86:avx2"} == {name for name, _ in explained.refused}


@pytest.mark.parametrize("setting, sentence", [
    ({"FAKE_CUDA_VERSION": "12080"}, "needs a driver for CUDA 13.0 or later, and this one is for 12.8"),
    ({"FAKE_CUDA_DEVICES": "7.5 NVIDIA T4"}, r"nothing in it runs on cuda:0 .NVIDIA T4, sm_75."),
    ({"FAKE_CUDA_DEVICES": ""}, "the NVIDIA driver finds no CUDA device"),
    (None, "there is no usable NVIDIA driver here: .*absent"),
])
def test_refused_tensors_leave_the_cpu_variant_usable(gpu_path, machine, monkeypatch, tmp_path, setting, sentence):
    if setting is None:
        monkeypatch.setattr(cuda, "LIBRARY", "libcuda-absent.so.1")
    for name, value in (setting or {}).items():
        monkeypatch.setenv(name, value)
    lib = load(gpu_path, name=f"gpu_{tmp_path.name}")
    for _ in range(2):
        with pytest.raises(NoKernel, match=f"conv2d: the library .* does not serve tensors on cuda:0: .*{sentence}") as caught:
            lib.conv2d(Array(X), Array(W), padding=1)
        assert "\n" not in str(caught.value)
        with pytest.raises(NoKernel, match=sentence):
            lib.bind("conv2d", weight=Array(W), padding=1)
    assert lib.conv2d(X, W, padding=1)[0, 0, 2, 2] == 36 and len(lib.selftest()) == 11
    assert "does not run here: " in to_text(inspect(gpu_path)) and not inspect(gpu_path)["damage"]


def test_a_library_for_cuda_alone(machine, monkeypatch, tmp_path):
    path = library.link(monkeypatch, tmp_path / "only.cvg", ["sm_90"], name="only")
    lib = load(path, name="cuda_alone")
    assert lib.variant == "cuda:sm_90" and str(lib).endswith("3 kernels for cuda:sm_90>")
    assert lib.conv2d(Array(X, 1), Array(W, 1), padding=1).host[0, 0, 2, 2] == 36
    with pytest.raises(NoKernel, match="does not serve tensors on cpu: .*only.cvg cannot run on this machine .cuda:sm_90: it is for tensors on CUDA devices"):
        lib.conv2d(X, W, padding=1)
    monkeypatch.setattr(cuda, "_driver", None)
    monkeypatch.setenv("FAKE_CUDA_DEVICES", "8.0 NVIDIA A100")
    with pytest.raises(LibraryError, match="only.cvg cannot run on this machine .*, and nothing in it runs on cuda:0 .NVIDIA A100, sm_80.") as caught:
        load(path, name="cuda_alone_elsewhere")
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(cuda, "_driver", None)
    monkeypatch.setattr(cuda, "LIBRARY", "libcuda-absent.so.1")
    with pytest.raises(LibraryError, match="only.cvg cannot run on this machine .*, and there is no usable NVIDIA driver here"):
        load(path, name="cuda_alone_elsewhere")


def test_a_cpu_variant_that_cannot_be_loaded_is_no_reason_to_look_elsewhere(gpu_path, machine):
    """Hashes are right and a kernel is missing: an export that went wrong, whatever devices there are."""
    file = Path(gpu_path, "manifest.json")
    data = json.loads(file.read_text())
    data["variants"][-1]["kernels"][0]["symbol"] = "cg_absent"
    file.write_text(json.dumps(data))
    with pytest.raises(LibraryError, match="the shared object does not export the kernel cg_absent"):
        load(gpu_path, name="without_a_kernel")
    assert machine.calls() == []


def test_a_library_without_cuda(library_path, machine):
    lib = load(library_path, name="cpu_alone")
    with pytest.raises(NoKernel, match="the library 'cpu_alone' does not serve tensors on cuda:0: it holds no variant for CUDA"):
        lib.conv2d(Array(X), Array(W), padding=1)
    assert machine.calls() == []


def test_torn_and_modified_code(gpu_path, machine):
    file = Path(gpu_path, "kernels-cuda-sm_90.zip")
    whole = file.read_bytes()
    for content, sentence in ((whole[:-40], "is torn, copy it again"), (whole.replace(b"sm_90", b"sm_91", 1), "kernels-cuda-sm_90.zip was modified")):
        file.write_bytes(content)
        with pytest.raises(LibraryError, match=sentence):
            load(gpu_path, name="damaged_code")
        assert any("kernels-cuda-sm_90.zip" in problem for problem in inspect(gpu_path)["damage"])
    assert machine.calls("cuModuleLoadDataEx") == []


def test_code_that_the_driver_refuses(gpu_path, machine, monkeypatch, tmp_path):
    """Hashes are right and the content is not: an export that went wrong."""
    monkeypatch.setattr("convgen.runtime.servers.Images.__call__", lambda self, symbol: b"no code at all")
    with pytest.raises(LibraryError, match=r"cuda:0 .* refuses the code of a kernel: cuModuleLoadDataEx failed with CUDA_ERROR_INVALID_IMAGE: ptxas fatal: no architecture"):
        load(gpu_path, name=f"gpu_{tmp_path.name}").conv2d(Array(X), Array(W), padding=1)


@pytest.mark.parametrize("change, sentence", [
    (lambda v: v.pop("cuda"), "the variant cuda:sm_80 needs cuda"),
    (lambda v: v["cuda"].pop("driver"), "the variant cuda:sm_80 needs driver"),
    (lambda v: v["kernels"][0].pop("launches"), "a kernel of cuda:sm_80 needs launches"),
    (lambda v: v["kernels"][1]["prepare"]["launches"][0].pop("grid"), "a launch of cuda:sm_80 needs grid"),
])
def test_an_incomplete_manifest(gpu_path, change, sentence):
    file = Path(gpu_path, "manifest.json")
    data = json.loads(file.read_text())
    change(data["variants"][0])
    file.write_text(json.dumps(data))
    with pytest.raises(LibraryError, match=f"the manifest of .* is incomplete: {sentence}"):
        load(gpu_path, name="incomplete")


def test_what_a_library_holds(gpu_library):
    names = zipfile.ZipFile(Path(gpu_library, "kernels-cuda-sm_80.zip")).namelist()
    assert names == sorted(f"{symbol}_run.{kind}" for symbol in ("batch", "conv", "gate") for kind in ("cubin", "ptx"))  # the lowest architecture
    assert {Path(n).suffix for n in zipfile.ZipFile(Path(gpu_library, "kernels-cuda-sm_90.zip")).namelist()} == {".cubin"}
    manifest = json.loads(Path(gpu_library, "manifest.json").read_text())
    assert [v.get("cuda") for v in manifest["variants"]] == [{"toolkit": 13000, "driver": 13000, "ptx": True}, {"toolkit": 13000, "driver": 13000, "ptx": False}, None]
    assert "object" not in str(manifest) and "kernels.cu" not in str(manifest)


SERVING = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "tvm", "cuda", "cupy"):
            raise ImportError(name + " is not available here")
sys.meta_path.insert(0, Blocked())
import numpy as np
from convgen.runtime import load
from tests.cuda_driver.device import Array
lib = load(sys.argv[1])
assert not [line for line in open("/proc/self/maps") if "libcuda" in line]
y = lib.conv2d(Array(np.ones((1, 4, 6, 6), np.float32)), Array(np.ones((8, 4, 3, 3), np.float32)), padding=1)
assert y.host[0, 0, 2, 2] == 36
assert not {m.partition(".")[0] for m in sys.modules} & {"torch", "tvm", "cuda"}
from convgen.runtime.__main__ import main
sys.exit(main(["check", sys.argv[1]]))
"""


def test_serving_needs_tvm_ffi_and_the_driver_alone(gpu_library, cuda_files):
    """In a process of its own, where the driver is found by its name; then the health check, on the CPU and on the device."""
    environment = {**os.environ, "LD_LIBRARY_PATH": str(cuda_files[0].parent), "FAKE_CUDA_DEVICES": "8.0 NVIDIA A100", "FAKE_CUDA_CODE": str(cuda_files[1]),
                   "PYTHONPATH": f"{REPO}:{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run([sys.executable, "-c", SERVING, gpu_library], capture_output=True, text=True, timeout=280, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "14 kernels of x86:avx2 and cuda:sm_80 are healthy" in done.stdout


def test_the_health_check_tells_what_it_left_out(gpu_library, machine, monkeypatch, capsys):
    monkeypatch.setattr(cuda, "LIBRARY", "libcuda-absent.so.1")
    assert main(["check", str(gpu_library)]) == 0
    said = capsys.readouterr().out
    assert "11 kernels of x86:avx2 are healthy" in said and "CUDA variants not checked: there is no usable NVIDIA driver here" in said


@pytest.mark.parametrize("setting, said", [("8.0 NVIDIA A100,7.5 NVIDIA T4", "CUDA variants not checked: nothing in it runs on cuda:1 (NVIDIA T4, sm_75)"),
                                           ("8.0 NVIDIA A100", None)])
def test_the_health_check_on_several_devices(gpu_library, machine, monkeypatch, capsys, setting, said):
    monkeypatch.setenv("FAKE_CUDA_DEVICES", setting)
    assert main(["check", str(gpu_library)]) == 0
    text = capsys.readouterr().out
    assert "14 kernels of x86:avx2 and cuda:sm_80 are healthy" in text and (said in text if said else "not checked" not in text)
