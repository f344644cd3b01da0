"""Every catalogue operator: the description's oracle against independent PyTorch formulations, its rounding bound, and its identity."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from convgen.lang import Program, parse
from convgen.lang.carry import Magnitude
from convgen.lang.oracle import evaluate
from tests.ops.cases import FLOATING, OPERATORS, assert_equal, brief, double, repeatable, workloads

every_operator = pytest.mark.parametrize("name", OPERATORS)
floating = pytest.mark.parametrize("name", FLOATING)

# Its coordinates pass through [-1, 1] and back, which rounds more often than the description does.
NORMALISED = {"grid_sample"}


@floating
def test_oracle_equals_every_pytorch_formulation_in_float64(name):
    @repeatable
    @given(workloads(OPERATORS[name]))
    def check(w):
        tensors = double(w)
        expected = w.reference(**tensors)
        assert expected.shape == tuple(w.program.output.shape)
        for call in w.formulations(**tensors).values():
            assert_equal(call().numpy(), expected)
        assert_equal(w.baseline(**tensors).numpy(), expected)
    check()


@floating
def test_float32_stays_within_the_bound(name):
    @repeatable
    @given(workloads(OPERATORS[name]))
    def check(w):
        tensors = w.sample(seed=1)
        y, condition, n = w.program.reference_with_bound({k: v.numpy() for k, v in tensors.items()})
        bound = 2 * min(n, 4 * np.sqrt(n)) * 2.0**-24 * condition + 2.0**-24 * np.abs(y) + 1e-37
        for label, call in w.formulations(**tensors).items():
            if label not in NORMALISED:
                assert (np.abs(call().numpy().astype(np.float64) - y) <= bound).all(), label
    check()


@every_operator
def test_id_and_description_carry_everything(name):
    @brief
    @given(workloads(OPERATORS[name]))
    def check(w):
        again = parse(w.id)
        assert again == w and again.id == w.id and again.description == w.description
        program = Program.from_json(json.loads(json.dumps(w.description)))
        assert (program.hash, program.flops, program.bytes, program.id, program.exact) == (w.program.hash, w.flops, w.bytes, w.id, w.program.exact)
        sample = w.program.sample(3)
        assert all(np.array_equal(v, program.sample(3)[k]) for k, v in sample.items())
        assert np.array_equal(program.reference(sample), w.program.reference(sample))
    check()


def _integral(op):
    """Attributes under which an operator's arithmetic stays among the integers, or None."""
    plain = {"activation": None, "bn": False} if op.epilogue else {}
    plain |= {"softmax": False} if "softmax" in op.attributes else {"inner": "relu6"} if "inner" in op.attributes else {}
    return None if op.name in ("dilated_reparam_conv2d", "deform_conv2d", "convnext_block2d", "partial_padding_conv2d", "partial_conv2d") else plain


@pytest.mark.parametrize("name", [name for name, op in FLOATING.items() if _integral(op) is not None])
@pytest.mark.parametrize("limit", [2**24, 2**8])
def test_integer_samples_are_exact_in_float32(name, limit):
    op = OPERATORS[name]

    @brief
    @given(workloads(op, **_integral(op)), st.integers(0, 9))
    def check(w, seed):
        assert w.program.exact
        sample = w.program.sample_integers(seed, limit)
        assert all((v == np.round(v)).all() for v in sample.values())
        y, largest, _ = evaluate(w.program, sample, Magnitude())
        assert largest.max() < limit and (np.abs(y) <= largest).all()
        for label, call in w.formulations(**{k: torch.from_numpy(v) for k, v in sample.items()}).items():
            if label == "rfft":  # a transform rounds
                np.testing.assert_allclose(call().numpy(), y, rtol=0, atol=4e-6 * largest.max())
            else:
                assert np.array_equal(call().numpy(), y)
    check()
