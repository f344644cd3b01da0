"""Oracles and guards against kernels that are wrong in known ways, in this process (none of them crashes)."""

import numpy as np
import pytest

from convgen.lang import parse
from convgen.tune.cases import CaseBook, float_bound
from convgen.tune.kernel import Buffer, NativeKernel
from convgen.tune.storage import from_raw, rounded, to_raw
from convgen.tune.verify import oracles_of, verify
from tests.tune.c_kernels import compile_kernel, entry

SHAPE = (1, 5, 6, 7)


@pytest.fixture(scope="module")
def program():
    return parse("depthwise_conv2d:n1,c5,h6,w7,k3x3;padding=1:f32.f32.f32:nchw").program


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("kernels")


def verdict(program, folder, name, packed=False, thorough=True, oracle=None):
    kernel = NativeKernel(compile_kernel(folder, name, packed), entry(SHAPE, packed, oracle), program.dims)
    return verify(kernel, CaseBook(program), thorough)


@pytest.mark.parametrize("packed", [False, True])
def test_right_kernels_pass_every_oracle(program, folder, packed):
    for oracle in (None, "N"):
        found = verdict(program, folder, "right", packed, oracle=oracle)
        assert found.ok and found.reason is None and found.ratio <= 0.5, found
        assert found.oracles == ("EFG" if oracle is None else "NG")


@pytest.mark.parametrize("name, reason", [
    ("unwritten", "not written or not finite"), ("infinite", "not finite"), ("beyond", "memory after out was overwritten"),
    ("ahead", "memory before out was overwritten"), ("mutates", "x was changed"), ("mutates_weight", "weight was changed"),
    ("lost_tap", "1 of 210 elements differ"), ("low_precision", "times its bound"), ("noisy", "a second run differs in"),
    ("reads_beyond", "differ"), ("lazy", "not written"), ("stale", "a second run differs"),
])
def test_wrong_kernels_are_named(program, folder, name, reason):
    found = verdict(program, folder, name)
    assert not found.ok and reason in found.reason, found


def test_quick_check_is_exact_on_one_seed(program, folder):
    assert verdict(program, folder, "right", thorough=False).seeds == (0,)
    for name in ("unwritten", "beyond", "mutates", "lost_tap", "lazy"):
        assert not verdict(program, folder, name, thorough=False).ok, name


def test_norm_oracle_still_catches_wrong_results(program, folder):
    for name in ("unwritten", "lost_tap", "low_precision"):
        assert not verdict(program, folder, name, oracle="N").ok, name


def test_oracles_follow_the_program_and_the_entry(program):
    class Inexact:
        exact, output = False, program.output
    assert oracles_of({}, program) == "EF" and oracles_of({"oracle": "N"}, program) == "N" and oracles_of({}, Inexact) == "F"


def test_float_bound_is_the_stated_formula(program):
    case = CaseBook(program).get("F", 0)
    element = (0, 2, 3, 4)
    terms, magnitude, y = case.terms, case.magnitude[element], case.expected[element]
    assert terms == 9
    expected = 2 * min(9, 4 * 3) * 2.0**-24 * magnitude + 2.0**-24 * abs(y)
    assert float_bound(case, "float32", "float32")[element] == pytest.approx(expected, rel=1e-12)


def test_cases_survive_on_disk(program, tmp_path):
    first = CaseBook(program, str(tmp_path))
    made = [first.get("E", 0), first.get("F", 0)]
    again = CaseBook(program, str(tmp_path))
    again._make = None  # everything must come from the folder
    for case in made:
        read = again.get(case.letter, 0)
        assert np.array_equal(read.expected, case.expected) and read.terms == case.terms
        assert all(np.array_equal(read.tensors[n], case.tensors[n]) for n in case.tensors)


def test_integer_cases_stay_exact():
    for dtypes, limit in (("f32.f32.f32", 2**24), ("f16.f32.f16", 2**11), ("bf16.f32.bf16", 2**8)):
        program = parse(f"conv2d:n1,c16,o4,h5,w5,k3x3;padding=1:{dtypes}:nchw").program
        case = CaseBook(program).get("E", 0)
        assert np.abs(case.expected).max() <= limit and np.array_equal(case.expected, np.round(case.expected))
        assert np.array_equal(rounded(case.expected, program.output.dtype), case.expected) and np.any(case.expected)


def test_bfloat16_rounds_to_nearest_even():
    values = np.array([1.0, 1.00390625, 1.01171875, -3.0e38, np.inf, np.nan, 0.0], np.float32)
    back = from_raw(to_raw(values, "bfloat16"), "bfloat16")
    torch = pytest.importorskip("torch")
    expected = torch.from_numpy(values).to(torch.bfloat16).double().numpy()
    assert np.array_equal(back, expected, equal_nan=True)


def test_buffers_are_aligned_and_guarded():
    for dtype, shape in (("float32", (3, 5)), ("int8", (7,)), ("float16", (1,)), ("float32", ())):
        buffer = Buffer(shape, dtype)
        assert buffer.array.ctypes.data % 64 == 0 and buffer.array.shape == shape and buffer.damaged() is None
        buffer.array[...] = 1
        assert buffer.damaged() is None
        buffer._after[0] ^= 1
        assert buffer.damaged() == "after"
