"""From a name or a processor to a target."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from convgen.errors import TargetError
from convgen.targets import Target, machine, resolve
from convgen.targets.microarchitectures import AVX2, AVX512, EXTRAS, ZEN5

ZEN5_FLAGS = AVX2 + AVX512 + tuple(sorted(ZEN5.implies))

PROCESSORS = [
    ("AuthenticAMD", 0x17, 0x31, AVX2, "zen2", "avx2", "znver2"),
    ("AuthenticAMD", 0x19, 0x21, AVX2, "zen3", "avx2", "znver3"),
    ("AuthenticAMD", 0x19, 0x61, ZEN5_FLAGS, "zen4", "avx512", "znver4"),
    ("AuthenticAMD", 0x19, 0x11, ZEN5_FLAGS, "zen4", "avx512", "znver4"),
    ("AuthenticAMD", 0x1A, 0x02, ZEN5_FLAGS, "zen5", "avx512", "znver5"),
    ("AuthenticAMD", 0x1A, 0xF0, ZEN5_FLAGS, "generic", "avx512", "x86-64-v4"),
    ("GenuineIntel", 6, 0x3F, AVX2, "haswell", "avx2", "haswell"),
    ("GenuineIntel", 6, 0x55, AVX2 + AVX512, "skylake-x", "avx512", "skylake-avx512"),
    ("GenuineIntel", 6, 0x55, AVX2 + AVX512 + ("avx512_vnni",), "cascadelake", "avx512", "cascadelake"),
    ("GenuineIntel", 6, 0x6A, ZEN5_FLAGS, "icelake", "avx512", "icelake-server"),
    ("GenuineIntel", 6, 0x8F, ZEN5_FLAGS + ("avx512_fp16",), "sapphirerapids", "avx512", "sapphirerapids"),
    ("GenuineIntel", 6, 0x97, AVX2 + ("avx_vnni", "gfni"), "alderlake", "avx2", "alderlake"),
    ("GenuineIntel", 15, 6, AVX2, "generic", "avx2", "x86-64-v3"),
    ("Unheard", 1, 1, AVX2, "generic", "avx2", "x86-64-v3"),
]


def native(describe, threads=2, **processor):
    return resolve("native", machine(describe(**processor), affinity=set(range(threads)), architecture="x86_64"))


@pytest.mark.parametrize("vendor, family, model, flags, name, isa, mcpu", PROCESSORS)
def test_processors(describe, vendor, family, model, flags, name, isa, mcpu):
    target = native(describe, vendor=vendor, family=family, model=model, flags=flags)
    assert (target.microarchitecture, target.isa, target.mcpu) == (name, isa, mcpu)
    assert target.fingerprint == f"x86-{name}-{isa}-t2"
    assert set(target.features) <= set(flags)


def test_native_on_a_complete_processor_needs_no_attributes(describe):
    target = native(describe, flags=ZEN5_FLAGS)
    assert target.attrs == ()
    assert {"avx512_bf16", "avx512_vnni"} <= set(target.features)
    assert (target.vector_registers, target.vector_bits, target.lanes["float32"], target.lanes["bfloat16"]) == (32, 512, 16, 32)


def test_what_a_hypervisor_hides_is_switched_off(describe):
    flags = tuple(flag for flag in ZEN5_FLAGS if flag not in ("avx512_bf16", "avx_vnni"))
    target = native(describe, flags=flags)
    assert (target.mcpu, target.attrs) == ("znver5", ("-avx512bf16", "-avxvnni"))
    assert target.tvm()["mattr"] == ["-avx512bf16", "-avxvnni"]


@pytest.mark.parametrize("hidden", AVX512)
def test_avx512_needs_all_of_its_parts(describe, hidden):
    target = native(describe, flags=tuple(flag for flag in ZEN5_FLAGS if flag != hidden))
    assert (target.isa, target.mcpu, target.microarchitecture) == ("avx2", "x86-64-v3", "zen5")
    assert not any(feature.startswith("avx512") for feature in target.features)
    assert set(target.attrs) == {"+avxvnni", "+gfni"}


@pytest.mark.parametrize("missing", ["avx2", "fma"])
def test_below_avx2_is_refused_in_one_sentence(describe, missing):
    with pytest.raises(TargetError, match=f"^target 'native' needs x86-64 with AVX2 and FMA, but this processor \\(Old One\\) lacks {missing}$"):
        native(describe, name="Old One", flags=tuple(flag for flag in AVX2 if flag != missing))


def test_native_elsewhere_than_x86_and_arm_is_refused(describe):
    with pytest.raises(TargetError, match="is not available on riscv64"):
        resolve("native", machine(describe(), affinity={0}, architecture="riscv64"))


@pytest.mark.parametrize("spec", ["x86", "x86:sse", "arm", "arm:cortex-m4", "power:9", "", "avx2", "cuda", "cuda:sm_70", "cuda:native"])
def test_unknown_names_list_the_known(spec):
    with pytest.raises(TargetError, match="unknown target .* expected one of native"):
        resolve(spec)


@pytest.mark.parametrize("spec, registers, lanes, mcpu", [("x86:avx2", 16, 8, "x86-64-v3"), ("x86:avx512", 32, 16, "x86-64-v4")])
def test_presets(spec, registers, lanes, mcpu):
    target = resolve(spec)
    assert (target.vector_registers, target.lanes["float32"], target.mcpu, target.microarchitecture) == (registers, lanes, mcpu, "generic")
    assert target.tvm() == {"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": mcpu, "num-cores": target.threads}


@pytest.mark.parametrize("spec", ["x86:avx2", "x86:avx512", "arm:cortex-a72"])
def test_json_round_trip(spec):
    target = resolve(spec).with_threads(3)
    data = json.loads(json.dumps(target.to_json()))
    assert Target.from_json(data) == target
    assert data["fingerprint"] == target.fingerprint and data["fingerprint"].endswith("-t3")
    assert resolve(target) is target


def test_runs_here_names_what_is_missing():
    flags = sorted(machine().flags)[:3]
    assert Target.runs_here([*flags, "no_such_flag"]) == ["no_such_flag"]


LLVM_CHECK = """
import json, sys
import tvm
from tvm import te
from tvm.s_tir import Schedule
from tvm.target import Target, codegen

a = te.placeholder((64,), "float32", name="a")
function = te.create_prim_func([a, te.compute((64,), lambda i: a[i] * 2.0, name="b")])
report = {}
for mcpu, lanes in json.loads(sys.argv[1]):
    target = Target({"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": mcpu})
    schedule = Schedule(function)
    (loop,) = schedule.get_loops(schedule.get_sblock("b"))
    schedule.vectorize(schedule.split(loop, [None, lanes])[1])
    assembly = tvm.compile(schedule.mod, target).mod.inspect_source("asm")
    report[mcpu] = {"features": sorted(map(str, codegen.llvm_get_cpu_features(target))), "register": "zmm" if "zmm" in assembly else "ymm"}
print(json.dumps(report))
"""


def test_llvm_knows_every_processor_as_the_table_does():
    """Names compile, imply the features that the table states, and a full vector stays one register."""
    if importlib.util.find_spec("tvm") is None:
        pytest.skip("needs the compiler: pip install convgen[tune]")
    from convgen.targets.microarchitectures import GENERIC, KNOWN

    rows = {row.mcpu: row for row in (*GENERIC.values(), *KNOWN)}
    wanted = json.dumps([[mcpu, 16 if row.avx512 else 8] for mcpu, row in rows.items()])
    root = str(Path(__file__).resolve().parents[2])
    result = subprocess.run([sys.executable, "-c", LLVM_CHECK, wanted], capture_output=True, text=True, timeout=280, env={**os.environ, "PYTHONPATH": root})
    assert result.returncode == 0, result.stderr
    for mcpu, seen in json.loads(result.stdout).items():
        row = rows[mcpu]
        assert {flag for flag, feature in EXTRAS.items() if feature in seen["features"]} == row.implies, mcpu
        assert ("avx512f" in seen["features"]) == row.avx512, mcpu
        assert seen["register"] == ("zmm" if row.avx512 else "ymm"), mcpu
