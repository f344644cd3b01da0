"""What a device compares with is small, and yet one wrong element anywhere shows."""

import hashlib
import zlib

import numpy as np
import pytest

from convgen.lang import parse
from convgen.tune.storage import from_raw, is_float, to_raw
from convgen.wave.cases import cases_of, logical, storage
from convgen.wave.device import check, values
from convgen.wave.device.check import Reference

IDS = [
    "conv2d:n1,c16,o32,h14,w14,k3x3;padding=1:f32.f32.f32:nhwc:act=relu,bias",
    "conv2d:n2,c64,o48,h9,w9,k5x5;stride=2,padding=2:f32.f32.f32:nchw",
    "depthwise_conv2d:n1,c24,h30,w31,k7x7;padding=3:bf16.f32.bf16:nchw",
    "depthwise_conv2d:n1,c24,h12,w11,k5x5;padding=2:f16.f32.f16:nhwc",
    "conv2d:n1,c64,o24,h7,w7,k3x3;padding=1:bf16.f32.bf16:nhwc",
]


def program_of(text):
    return parse(text).program


def specs_read(program, case, files):
    return {t.name: logical(program, t, files[s["file"]] if "file" in (s := case["inputs"][t.name]) else values.drawn(s)) for t in program.tensors}


def judged(case, files, letter, data):
    """The reason that a device finds, None if it is content."""
    return check.exact(data, case) if letter == "E" else Reference(case, files[case["file"]]).compare(data, letter == "N")[1]


def test_streams_are_what_they_were():
    """A change here would make every wave that is out in the world answer wrongly."""
    assert values.stream("key", 8).hex() == "d4e76978852660ed"
    assert values.stream("key", 100)[:8] == values.stream("key", 8) and values.stream("other", 8) != values.stream("key", 8)


@pytest.mark.parametrize("text", IDS)
def test_the_oracle_passes_and_one_wrong_element_does_not(text):
    program, files = program_of(text), {}
    cases = cases_of(program, files)
    assert [c["letter"] for c in cases] in (["E", "F"], ["E", "E", "E", "F"])
    rng = np.random.default_rng(1)
    dtype = program.output.dtype
    for case in cases:
        tensors = specs_read(program, case, files)
        result = program.reference(tensors)
        good = storage(program, program.output, result)
        letters = "E" if case["letter"] == "E" else "FN"
        for letter in letters:
            assert judged(case, files, letter, good) is None, (letter, case["seed"])
            for _ in range(6):
                where = tuple(int(rng.integers(n)) for n in result.shape)
                coarse = letter == "N" and dtype != "float32"  # 16-bit results may err by 6 % where only the norm is bounded
                for wrong in (result[where] + (1 if letter == "E" else np.std(result)), np.nan)[coarse:]:
                    bad = result.copy()
                    bad[where] = wrong
                    assert judged(case, files, letter, storage(program, program.output, bad)) is not None, (letter, where, wrong)
        if case["letter"] == "E" and is_float(dtype):
            zeros = np.flatnonzero(result == 0)
            negative = result.copy()
            negative.flat[zeros] = -0.0
            assert judged(case, files, "E", storage(program, program.output, negative)) is None


def test_one_lost_tap_shows_in_every_oracle():
    program, files = program_of("depthwise_conv2d:n1,c8,h20,w20,k13x13;padding=6:f32.f32.f32:nchw"), {}
    for case in cases_of(program, files):
        tensors = specs_read(program, case, files)
        lost = {**tensors, "weight": tensors["weight"].copy()}
        lost["weight"][3, 0, 12, 0] = 0
        bad = storage(program, program.output, program.reference(lost))
        for letter in "E" if case["letter"] == "E" else "FN":
            assert judged(case, files, letter, bad), letter


def test_lower_precision_of_the_inputs_shows():
    """Rounding x to 11 bits, as TF32 does, is far outside what float32 explains."""
    program, files = program_of("conv2d:n1,c32,o8,h10,w10,k3x3;padding=1:f32.f32.f32:nchw"), {}
    case = cases_of(program, files)[-1]
    tensors = specs_read(program, case, files)
    bits = to_raw(tensors["x"], "float32").view(np.uint32)
    tensors["x"] = from_raw(((bits + (1 << 12)) >> 13 << 13).view(np.float32), "float32")
    assert "times its bound" in judged(case, files, "F", storage(program, program.output, program.reference(tensors)))


def test_inputs_look_as_declared():
    program = program_of("partial_conv2d:n1,c8,o4,h40,w40,k3x3;padding=1:f32.f32.f32:nchw")
    files = {}
    case = cases_of(program, files)[-1]
    tensors = specs_read(program, case, files)
    assert set(np.unique(tensors["mask"])) == {0.0, 1.0} and abs(tensors["mask"].mean() - 0.75) < 0.05
    assert abs(tensors["x"].std() - 1) < 0.05 and len(np.unique(tensors["x"])) > 0.99 * tensors["x"].size
    low = tensors["x"].astype(np.float32).view(np.uint32) & 0xFF
    assert len(np.unique(low)) == 256  # the whole mantissa is in use, so that lowered precision has something to lose


def test_integer_operators_and_declared_rows():
    for text in ("quantized_conv2d:n1,c16,o8,h6,w6,k3x3;padding=1:u8.i32.u8:nhwc", "dilated_reparam_conv2d:n1,c8,h9,w9,k13x13:f32.f32.f32:nchw"):
        program, files = program_of(text), {}
        for case in cases_of(program, files):
            result = storage(program, program.output, program.reference(specs_read(program, case, files)))
            assert judged(case, files, case["letter"], result) is None


def test_a_layers_references_are_small():
    program, files = program_of("conv2d:n1,c32,o64,h112,w112,k3x3;padding=1:f32.f32.f32:nhwc"), {}
    cases = cases_of(program, files)
    packed = sum(len(zlib.compress(data, 9)) for data in files.values())
    assert packed < 150_000 and sum(len(str(case)) for case in cases) < 30_000


def test_equal_on_both_sides():
    """The storage that a device draws is the storage that the oracle was given."""
    program, files = program_of(IDS[0]), {}
    case = cases_of(program, files)[0]
    spec = case["inputs"]["x"]
    x = next(t for t in program.tensors if t.name == "x")
    data = values.drawn(spec)
    assert storage(program, x, logical(program, x, data)) == check.canonical(data, "float32")
    assert hashlib.sha256(data).hexdigest() == hashlib.sha256(values.drawn(spec)).hexdigest() and len(data) == 4 * spec["count"]
