"""Waves of cubins: made with nvcc, and measured on a driver whose kernels run on the processor."""

import hashlib
import importlib.util
import re
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from convgen.emit import nvcc
from convgen.emit.service import shared_service
from convgen.lang import parse
from convgen.targets import resolve
from convgen.tune import logs
from convgen.tune.builder import Built
from convgen.tune.context import Environment
from convgen.wave import absorb, bundle, make
from convgen.wave.device.main import check_bundle
from tests.wave.bare import QUICK, lines_of, result_of

pytestmark = pytest.mark.skipif(importlib.util.find_spec("tvm") is None, reason="needs the compiler, convgen[tune]")
ID = "depthwise_conv2d:n1,c6,h7,w6,k3x3;padding=1:f32.f32.f32:nchw"

_ENTRY = """
template <class... A> int arity(void (*)(A...)) {{ return sizeof...(A); }}
static const int counts[] = {{{counts}}};
static int find(const char* name) {{
  for (int k = 0; k < {number}; k++)
    if (!strcmp(kernels[k].name, name)) return k;
  return -1;
}}
extern "C" int emulate_count(const char* name) {{ return find(name) < 0 ? -1 : counts[find(name)]; }}
extern "C" int emulate(const char* name, const unsigned* g, const unsigned* b, unsigned dynamic, void** parameters) {{
  int k = find(name);
  emulated::Argument a[64];
  for (int i = 0; i < counts[k]; i++) memcpy(&a[i].pointer, parameters[i], 8), memcpy(&a[i].number, parameters[i], 8);
  emulated::launch(kernels[k].body, kernels[k].waits, {{g[0], g[1], g[2]}}, {{b[0], b[1], b[2]}}, dynamic, a, 2);
  return 1;
}}
"""


def emulated(source: Path) -> Path:
    """The kernels of a CUDA file as the shared object that the fake driver takes for a cubin."""
    from convgen.emulate import cuda

    text = cuda.translate(source.read_text())
    names = re.findall(r"emulated::call<(\w+)>", text)
    made, target = source.with_suffix(".cpp"), source.with_suffix(".so")
    made.write_text(re.sub(r"^int main\(\).*$", "", text, flags=re.M) + _ENTRY.format(counts=", ".join(f"arity({n})" for n in names), number=len(names)))
    subprocess.run(["g++", "-std=c++20", "-O1", "-w", "-shared", "-fPIC", "-fno-gnu-unique", "-fno-strict-aliasing", f"-I{Path(cuda.__file__).parent}", "-o", str(target), str(made)],
                   check=True)
    return target


class Emulating:
    """A builder for the fake driver: the first candidate as it is, the others with a fault each."""

    workers = 1

    def __init__(self, folder: Path, target: dict, faults):
        self.folder, self.target, self.faults = folder, target, list(faults)

    def build(self, description, choices, deadline=None, grace=0.0):
        return [self._built(description, choice) for choice in choices]

    def _built(self, description, choice):
        number = len(list(self.folder.iterdir()))
        folder = self.folder / str(number)
        folder.mkdir()
        entry = shared_service(1).build(description, self.target | {"output": "source"}, choice, str(folder), "cg")
        fault = self.faults.pop(0) if self.faults else "right"
        launch = entry["launches"][-1]
        if fault == "few":
            launch["grid"][0] -= 1
        elif fault == "no symbol":
            launch["symbol"] = "nowhere"
        elif fault == "too much":
            launch["shared"] = 1 << 20
        elif fault == "much":  # no fault where the driver was asked
            launch["shared"] = 64 << 10
        path = emulated(folder / entry["source"])
        return Built(str(path), entry, hashlib.sha256(f"{number} {fault}".encode()).hexdigest())

    def discard(self, built):
        pass

    def close(self):
        pass


def fake_driver(folder: Path) -> Path:
    """The driver for machines without a GPU, as `folder`/libcuda.so.1."""
    path = folder / "libcuda.so.1"
    subprocess.run(["g++", "-std=c++17", "-O1", "-shared", "-fPIC", "-o", str(path), str(Path(__file__).with_name("fake_cuda.cpp"))], check=True)
    return path


def run(wave: Path, driver: Path, card: str = "9.0 NVIDIA H200", *arguments, limit: float = 240):
    command = [sys.executable, "-S", str(wave / "run.py"), *QUICK, "--libcuda", str(driver), *arguments]
    done = subprocess.run(command, env={"FAKE_CUDA": card} if card else {}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=limit, cwd="/")
    return done.returncode, done.stdout


@pytest.mark.skipif(shutil.which("g++") is None, reason="the emulation needs g++")
def test_a_wave_on_a_card(tmp_path):
    driver = fake_driver(tmp_path)
    (tmp_path / "built").mkdir()
    target = resolve("cuda:sm_90").to_json()
    environment = Environment(Emulating(tmp_path / "built", target, ["right", "few", "no symbol", "much", "too much"]), None)
    wave = tmp_path / "wave"
    make(parse(ID), wave, "cuda:sm_90", count=5, logs=tmp_path / "records", environment=environment)
    assert run(wave, driver, "")[0] == 2 and "no CUDA-capable device" in run(wave, driver, "")[1]
    assert run(wave, driver, "8.0 NVIDIA A100")[1].startswith("run.py: this wave is for sm_90 and this card is sm_80 (NVIDIA A100)")
    code, output = run(wave, driver)
    assert code == 0, output
    lines = lines_of(wave, "candidate")
    assert [line["status"] for line in lines] == ["ok", "wrong", "crash", "ok", "crash"], output
    assert "not written" in lines[1]["message"] and "cuModuleGetFunction" in lines[2]["message"] and "cuFuncSetAttribute" in lines[4]["message"]
    assert lines[0]["oracles"] == "EFG" and 0 < lines[0]["min_us"] <= lines[0]["median_us"] and lines[0]["cold_us"] > 0
    device, = lines_of(wave, "device")
    assert device["device"]["card"] == "NVIDIA H200" and device["device"]["isa"] == "sm_90" and device["device"]["cuda"] == "13.0"
    absorbed = absorb(result_of(wave), logs=tmp_path / "records")
    assert absorbed.device == "cuda-h200-sm_90" and absorbed.new == 5
    found = logs.why(parse(ID), "cuda:h200", logs=str(tmp_path / "records"))
    assert found.step == "exact" and found.record["isa"] == "sm_90" and found.record["final"]
    assert logs.why(parse(ID), "cuda:sm_90", logs=str(tmp_path / "records")).record["target"] == "cuda-h200-sm_90"


@pytest.mark.skipif(nvcc.find() is None, reason="needs nvcc")
def test_a_bundle_of_cubins(tmp_path):
    wave = tmp_path / "wave"
    made = make([parse(ID), parse("conv2d:n2,c8,o8,h6,w6,k3x3;padding=1:f32.f32.f32:nchw:bias")], wave, "cuda:sm_90", count=2, logs=tmp_path / "records", workers=1)
    manifest = bundle.read(wave)[1]
    assert check_bundle(str(wave)) == made.id and made.target == manifest["made_for"] == "cuda-generic-sm_90" and manifest["runtime"] is None
    for candidate in manifest["candidates"]:
        code = zlib.decompress((wave / candidate["code"]).read_bytes())
        assert code[:4] == b"\x7fELF" and int.from_bytes(code[18:20], "little") == 190  # EM_CUDA
        launches = candidate["launches"] + candidate["prepare_launches"]
        assert launches and all(launch["symbol"].encode() in code for launch in launches)
        assert all(name in candidate["buffers"] for launch in launches for name in launch["args"] if isinstance(name, str))
        assert all(isinstance(n, int) and n > 0 for launch in launches for n in launch["grid"] + launch["block"])
    if not Path("/dev/nvidia0").exists():
        done = subprocess.run([sys.executable, "-I", "-S", str(wave / "run.py")], env={}, capture_output=True, text=True)
        assert done.returncode == 2 and re.search("no CUDA driver was found|no CUDA-capable device|CUDA error", done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="the emulation needs g++")
def test_every_operator_by_the_script(tmp_path):
    """The launches and buffers of whatever the catalogue holds, in float32 and float16, as run.py states them to the driver."""
    from convgen.bench.gpu import everything

    workloads = {(w.operator, w.dtype): w for w in everything() if w.dtype != "bfloat16"}
    (tmp_path / "built").mkdir()
    environment = Environment(Emulating(tmp_path / "built", resolve("cuda:sm_90").to_json(), []), None)
    wave = tmp_path / "wave"
    make(list(workloads.values()), wave, "cuda:sm_90", count=1, logs=tmp_path / "records", environment=environment)
    code, output = run(wave, fake_driver(tmp_path), "9.0 NVIDIA H200", "--limit", "120", limit=900)
    assert code == 0 and {line["status"] for line in lines_of(wave, "candidate")} == {"ok"}, output
    assert len(lines_of(wave, "candidate")) == len(workloads)
