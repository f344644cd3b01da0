"""ARM processors: presets, and machines as /proc/cpuinfo describes them."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from convgen.errors import TargetError
from convgen.targets import NAMES, machine, resolve
from convgen.targets.arm import CORES, EXTRAS, PRESETS

PI4 = ("fp", "asimd", "evtstrm", "crc32", "cpuid")
PI5 = ("fp", "asimd", "evtstrm", "aes", "pmull", "sha1", "sha2", "crc32", "atomics", "fphp", "asimdhp", "cpuid", "asimdrdm", "lrcpc", "dcpop", "asimddp")
GRAVITON3 = (*PI5, "jscvt", "fcma", "sve", "i8mm", "bf16")

MACHINES = [
    ([(0x41, 0xD08)], PI4, "cortex-a72", "neon", ()),
    ([(0x41, 0xD0B)], PI5, "cortex-a76", "neon-dotprod", ()),
    ([(0x41, 0xD0C)], PI5, "neoverse-n1", "neon-dotprod", ()),
    ([(0x41, 0xD40)], GRAVITON3, "neoverse-v1", "neon-i8mm", ("-sve",)),
    ([(0x41, 0xD0C)], PI4, "neoverse-n1", "neon", ("-fullfp16", "-dotprod")),  # hidden by a hypervisor
    ([(0x48, 0xD01)], PI5, "generic", "neon-dotprod", ("+fullfp16", "+dotprod")),  # nobody in the table
]


def cpuinfo(parts, flags):
    blocks = [f"processor\t: {i}\nBogoMIPS\t: 108.00\nFeatures\t: {' '.join(flags)}\nCPU implementer\t: {maker:#04x}\nCPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: {part:#05x}\nCPU revision\t: 3\n"
              for i, (maker, part) in enumerate(parts)]
    return {"proc/cpuinfo": "\n".join(blocks)}


def native(describe, parts, flags, affinity=frozenset({0})):
    return resolve("native", machine(describe(files=cpuinfo(parts, flags)), affinity=set(affinity), architecture="aarch64"))


@pytest.mark.parametrize("parts, flags, name, isa, attrs", MACHINES)
def test_machines(describe, parts, flags, name, isa, attrs):
    target = native(describe, parts, flags)
    assert (target.family, target.microarchitecture, target.mcpu, target.isa, target.attrs) == ("arm", name, name, isa, attrs)
    assert (target.vector_registers, target.lanes["float32"], target.fingerprint) == (32, 4, f"arm-{name}-{isa}-t1")
    assert set(target.features) <= set(flags)
    assert target.tvm()["mtriple"] == "aarch64-linux-gnu"


def test_of_different_cores_the_first_usable_one_counts(describe):
    rk3588 = [(0x41, 0xD05)] * 4 + [(0x41, 0xD0B)] * 4
    assert native(describe, rk3588, PI5, range(8)).mcpu == "cortex-a55"
    assert native(describe, rk3588, PI5, range(4, 8)).mcpu == "cortex-a76"


def test_without_vectors_it_is_refused(describe):
    with pytest.raises(TargetError, match="^target 'native' needs aarch64 with NEON, but this processor \\(implementer 0x41 part 0xd08\\) lacks asimd$"):
        native(describe, [(0x41, 0xD08)], ("fp",))


@pytest.mark.parametrize("name", PRESETS)
def test_presets_describe_a_machine_that_is_elsewhere(describe, name):
    here = machine(describe(), affinity={0}, architecture="x86_64")
    target = resolve(f"arm:{name}", here)
    assert f"arm:{name}" in NAMES and (target.mcpu, target.threads) == (name, 4)
    assert target.l1 <= target.l2 <= target.l3
    assert resolve(f"arm:{name}", machine(describe(files=cpuinfo([(0x41, 0xD08)], PI4)), affinity={0, 1}, architecture="aarch64")).threads == 2


LLVM_CHECK = """
import json, sys
from tvm.target import Target, codegen

features = lambda name, attrs: sorted(map(str, codegen.llvm_get_cpu_features(Target({"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": name, "mattr": attrs}))))
print(json.dumps({name: [features(name, []), features(name, ["-sve"])] for name in json.loads(sys.argv[1])}))
"""


def test_llvm_knows_every_processor_as_the_table_does():
    if importlib.util.find_spec("tvm") is None:
        pytest.skip("needs the compiler: pip install convgen[tune]")
    cores = {core.name: core for core in CORES.values()}
    root = str(Path(__file__).resolve().parents[2])
    result = subprocess.run([sys.executable, "-c", LLVM_CHECK, json.dumps(list(cores))], capture_output=True, text=True, timeout=280, env={**os.environ, "PYTHONPATH": root})
    assert result.returncode == 0, result.stderr
    for name, (plain, without) in json.loads(result.stdout).items():
        assert {flag for flag, feature in EXTRAS.items() if feature in plain} == cores[name].implies, name
        assert ("sve" in plain) == cores[name].sve, name
        assert not {"sve", "sve2"} & set(without), name
