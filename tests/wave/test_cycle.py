"""The whole way with the real compiler: make, measure as a bare device does, absorb, make the next wave, find the record."""

import importlib.util
import json
import platform
import zlib

import pytest

from convgen.cli import main
from convgen.errors import LibraryError
from convgen.export import toolchain
from convgen.lang import parse
from convgen.targets import resolve
from convgen.tune import logs
from convgen.wave import absorb, bundle, make
from convgen.wave.identity import measured_on
from tests.wave.bare import lines_of, result_of, run

pytestmark = pytest.mark.skipif(importlib.util.find_spec("tvm") is None, reason="needs the compiler, convgen[tune]")

# A convolution (an exact algorithm and Winograd, several loops) and an operator with inputs of its own distribution.
IDS = ["conv2d:n1,c16,o32,h10,w10,k3x3;padding=1:f32.f32.f32:nhwc:act=relu,bias", "depthwise_conv2d:n2,c20,h9,w7,k3x3;padding=1:f32.f32.f32:nchw"]


def linker_for_arm() -> bool:
    try:
        return bool(toolchain.compiler("arm"))
    except LibraryError:
        return False


def test_two_waves(tmp_path, capsys):
    store, first, second = tmp_path / "records", tmp_path / "wave1", tmp_path / "wave2"
    threads = ["--threads", "1", "--target", "x86:avx2", "--logs", str(store)]
    assert main(["wave", "make", *IDS, *threads, "--count", "3", "-o", str(first), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["target"] == "x86-generic-avx2-t1" and made["bytes"] == bundle.size(first) < 500_000
    code, output = run(first)
    assert code == 0 and output.count("3 tried, 0 failed") == 2, output
    assert {letter for line in lines_of(first, "candidate") for letter in line["oracles"]} >= set("EFNG")
    assert main(["wave", "absorb", str(result_of(first)), "--logs", str(store)]) == 0
    assert f"wave {made['id']} on x86-" in capsys.readouterr().out
    later = make([parse(i) for i in IDS], second, resolve("x86:avx2").with_threads(1), count=3, logs=store)
    before, after = bundle.read(first)[1], bundle.read(second)[1]
    tried = {json.dumps(choice, sort_keys=True) for c in before["candidates"] for choice in c["choices"]}
    fresh = [choice for c in after["candidates"] if c["role"] == "new" for choice in c["choices"]]
    assert len(fresh) >= 2 and not any(json.dumps(choice, sort_keys=True) in tried for choice in fresh)
    assert run(second)[0] == 0
    absorbed = absorb(result_of(second), logs=store)
    assert absorbed.new == len(fresh) and absorbed.device == later.target and "vs default" in str(absorbed)
    for text in IDS:
        records = [r for r in logs.best([store]) if r["workload"] == text]
        assert len(records) == 1 and records[0]["final"] and records[0]["target"] == later.target and records[0]["wave"] == later.id
    found = logs.why(parse(IDS[0]), "x86:avx2", logs=str(store))
    assert found.record["workload"] == IDS[0] and found.record["final"]


@pytest.mark.skipif(not linker_for_arm(), reason="needs a compiler for aarch64 (ziglang, or Debian's gcc-aarch64-linux-gnu)")
def test_a_bundle_for_arm(tmp_path):
    wave = tmp_path / "wave"
    made = make(parse(IDS[1]), wave, "arm:cortex-a72", count=2, logs=tmp_path / "records", workers=1)
    manifest = bundle.read(wave)[1]
    assert made.target == "arm-cortex-a72-neon-t4" and manifest["threads"] == 4
    for name in [manifest["runtime"], *(c["code"] for c in manifest["candidates"])]:
        code = zlib.decompress((wave / name).read_bytes())
        assert code[:4] == b"\x7fELF" and int.from_bytes(code[18:20], "little") == 183, name  # EM_AARCH64
    if platform.machine() == "x86_64":
        code, output = run(wave)
        assert code == 2 and ("is for arm:cortex-a72" in output or "refused the code" in output)


def test_devices_by_name():
    facts = {"vendor": "", "cpu_family": 0, "model": 0, "flags": ["asimd"], "implementer": "0x41", "part": "0xd0c", "threads": 2, "card": "a board"}
    assert measured_on(resolve("arm:cortex-a72").to_json(), facts)["fingerprint"] == "arm-neoverse-n1-neon-t2"
    assert measured_on(resolve("cuda:sm_90").to_json(), {"card": "NVIDIA H100 80GB HBM3"})["fingerprint"] == "cuda-h100-sm_90"
    assert measured_on(resolve("cuda:sm_86").to_json(), {"card": "NVIDIA GeForce RTX 3090"})["fingerprint"] == resolve("cuda:rtx-3090").fingerprint
    assert measured_on(resolve("cuda:sm_89").to_json(), {"card": "NVIDIA X1 Unheard-of"})["fingerprint"] == "cuda-x1-unheard-of-sm_89"
