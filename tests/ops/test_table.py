"""Completeness: what every operator of the catalogue has to bring."""

import numpy as np
import pytest
import torch

from convgen.errors import ArgumentError
from convgen.lang import parse
from convgen.ops import table
from tests.ops.cases import FLOATING, OPERATORS, assert_equal, double

every_operator = pytest.mark.parametrize("name", OPERATORS)
floating = pytest.mark.parametrize("name", FLOATING)
SMALL = {"N": 2, "C": 12, "O": 12, "E": 2, "G": 2, "GC": 2, "HIDDEN": 20, "HEADS": 2, "D": 3, "H": 8, "W": 7, "L": 9, "KD": 2, "KH": 5, "KW": 5, "K": 5}


def small(op, **more):
    return op(**{d: SMALL[d] for d in op.dims if d in SMALL}, **more)


@every_operator
def test_operator_is_complete(name):
    op = OPERATORS[name]
    assert op.citation and op.summary and op.summary.endswith(".") and op.formula
    assert op.baseline is not None and op.baseline in op.formulations.values()
    assert op.workloads()
    assert table.get(name) is op and table.is_catalogued(op) and table.baseline(name) is op.baseline
    assert list(table.names()).count(name) == 1


@every_operator
def test_published_workloads_read_back(name):
    for w in OPERATORS[name].workloads():
        assert parse(w.id) == w and "@" not in w.id
        assert w.flops > 0 and w.bytes > 0
        assert w.signature["operator"] == name and w.signature["hash"] == w.program.hash[:8]


@every_operator
def test_samples_are_realistic(name):
    w = small(OPERATORS[name])
    sample = w.sample(0)
    assert list(sample) == [t.name for t in w.program.tensors]
    for t in w.program.tensors:
        v = sample[t.name].double()
        assert tuple(v.shape) == tuple(t.shape) and v.isfinite().all() and (v.numel() == 1 or v.std() > 0)
    y = w.reference(**sample)
    assert np.isfinite(y).all() and 0.01 < y.std() < 100
    assert all(torch.equal(v, w.sample(0)[k]) and not torch.equal(v, w.sample(1)[k]) for k, v in sample.items())


@floating
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_storage_and_memory_of_samples(name, dtype, layout):
    w = small(OPERATORS[name], dtype=dtype, layout=layout)
    for t in w.program.tensors:
        v = w.sample()[t.name]
        assert v.dtype == getattr(torch, dtype)
        in_memory = v.permute(*t.permutation(layout))
        assert in_memory.is_contiguous()
        if layout == "channels_last" and t.kind == "input" and t.spatial:
            assert in_memory.shape[0] == t.shape[0] and in_memory.shape[1:1 + len(t.spatial)] == tuple(t.shape[d] for d in t.spatial)
        else:
            assert v.is_contiguous()


@floating
@pytest.mark.parametrize("dtype, unit", [("float16", 2.0**-11), ("bfloat16", 2.0**-8)])
def test_formulations_keep_half_precision(name, dtype, unit):
    w = small(OPERATORS[name], dtype=dtype)
    tensors = w.sample()
    y, condition, n = w.program.reference_with_bound({k: v.double().numpy() for k, v in tensors.items()})
    bound = 2 * min(n, 4 * np.sqrt(n)) * unit * condition + unit * np.abs(y)  # PyTorch may round every intermediate tensor to storage
    for call in w.formulations(**tensors).values():
        found = call()
        assert found.dtype == getattr(torch, dtype)
        assert (np.abs(found.double().numpy() - y) <= bound).all()


@pytest.mark.parametrize("name", [name for name, op in OPERATORS.items() if op.epilogue])
@pytest.mark.parametrize("activation", [None, "relu", "relu6", "sigmoid", "tanh", "silu", "gelu", "hardswish", "hardsigmoid", "leaky_relu"])
def test_epilogue_follows_the_plain_operator(name, activation):
    op = OPERATORS[name]
    w, plain = small(op, bias=True, residual=True, gate=True, activation=activation), small(op)
    tensors = double(w)
    y = plain.reference(**{t.name: tensors[t.name] for t in plain.program.tensors})
    bias = tensors["bias"].numpy().reshape(-1, *[1] * (y.ndim - 2))
    act = {None: lambda v: v, "sigmoid": torch.sigmoid, "tanh": torch.tanh}.get(activation) or getattr(torch.nn.functional, activation)
    assert_equal(w.reference(**tensors), act(torch.from_numpy(y + bias + tensors["residual"].numpy())) * tensors["gate"])


@pytest.mark.parametrize("name", [name for name, op in OPERATORS.items() if op.epilogue and name != "dilated_reparam_conv2d"])
@pytest.mark.parametrize("bias", [False, True])
def test_batch_norm_follows_the_plain_operator(name, bias):
    op = OPERATORS[name]
    w, plain = small(op, bn=True, bias=bias), small(op)
    tensors = double(w)
    y = torch.from_numpy(plain.reference(**{t.name: tensors[t.name] for t in plain.program.tensors}))
    scale, shift, mean, variance = tensors["bn"]
    y = y + tensors["bias"].reshape(-1, *[1] * (y.ndim - 2)) if bias else y
    assert_equal(w.reference(**tensors), torch.nn.functional.batch_norm(y, mean, variance, scale, shift))


@every_operator
def test_a_batch_norm_costs_a_shift_where_there_are_weights(name):
    op = OPERATORS[name]
    if not op.epilogue or name in ("dilated_reparam_conv2d", "condconv2d", "involution2d", "ska2d", "dynamic_conv1d", "partial_padding_conv2d", "conv2d_pixel_shuffle"):
        return  # it has its own, no weights that are bound, or something between the sum and the norm
    w = small(op, bn=True)
    assert {"bn_scale", "bn_shift", "bn_weight"} <= {s.name for s in w.program.bind_stages}
    assert w.flops == small(op, bias=True).flops


def test_unknown_operator_names_the_nearest():
    with pytest.raises(ArgumentError, match="depthwise_conv2d"):
        table.get("depthwise_conv")
    with pytest.raises(ArgumentError, match="known: conv1d"):
        table.get("zzz")
