"""GPU architectures and cards as targets, against relations that the architecture itself guarantees."""

import json

import pytest

from convgen.targets import NAMES, Target, resolve

ARCHITECTURES = ["sm_80", "sm_86", "sm_89", "sm_90"]
CARDS = [name for name in NAMES if name.startswith("cuda:") and name.removeprefix("cuda:") not in ARCHITECTURES]
every_gpu = pytest.mark.parametrize("spec", [*(f"cuda:{a}" for a in ARCHITECTURES), *CARDS])


@every_gpu
def test_limits_agree_with_each_other(spec):
    t = resolve(spec)
    limits = t.limits
    assert (t.family, t.lanes["float32"], t.cores) == ("cuda", 1, limits["sms"]) and t.isa in ARCHITECTURES and t.features == (t.isa,)
    assert limits["warp"] == 32 and limits["threads_per_block"] == 1024
    assert limits["threads_per_sm"] % limits["warp"] == 0 and limits["threads_per_sm"] // limits["threads_per_block"] >= 1
    assert limits["shared_static"] == 48 * 1024 < limits["shared_per_block"] == limits["shared_per_sm"] - 1024  # the system's own of every block
    assert limits["registers_per_sm"] == 65536 and limits["registers_per_thread"] == 255
    assert limits["l2"] > limits["shared_per_sm"] and t.fingerprint == f"cuda-{t.microarchitecture}-{t.isa}"


@pytest.mark.parametrize("arch, threads, blocks, shared", [("sm_80", 2048, 32, 164), ("sm_86", 1536, 16, 100), ("sm_89", 1536, 24, 100), ("sm_90", 2048, 32, 228)])
def test_limits_of_the_programming_guide(arch, threads, blocks, shared):
    limits = resolve(f"cuda:{arch}").limits
    assert (limits["threads_per_sm"], limits["blocks_per_sm"], limits["shared_per_sm"]) == (threads, blocks, shared << 10)


@every_gpu
def test_json_round_trip(spec):
    t = resolve(spec)
    data = json.loads(json.dumps(t.to_json()))
    assert Target.from_json(data) == t and data["limits"] == t.limits and data["fingerprint"] == t.fingerprint


def test_a_card_has_its_own_fingerprint_and_the_limits_of_its_architecture():
    card, any_card = resolve("cuda:h200"), resolve("cuda:sm_90")
    assert (card.fingerprint, any_card.fingerprint) == ("cuda-h200-sm_90", "cuda-generic-sm_90")
    assert {k: v for k, v in card.limits.items() if k not in ("sms", "l2")} == {k: v for k, v in any_card.limits.items() if k not in ("sms", "l2")}


def test_no_processor_runs_them():
    assert Target.runs_here(resolve("cuda:sm_90").features) == ["sm_90"]
