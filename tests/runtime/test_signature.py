"""Resolving calls by signatures, and choosing kernels by predicates; no kernel is run."""

import pytest
import torch

from convgen.errors import ArgumentError, NoKernel
from convgen.ops import table
from convgen.runtime import torch_ops
from convgen.runtime.dispatch import Table, fits
from convgen.runtime.layout import compact, formats, order, preferred, strides_of
from convgen.runtime.signature import Operator
from tests.kernel_library import SIGNATURES, conv2d, image, tensor


@pytest.mark.parametrize("name", table.names())
def test_signatures_of_the_catalogue_resolve_their_own_workloads(name):
    workloads = table.get(name).workloads()
    operator = Operator(name, [w.signature for w in workloads])
    for w in workloads:
        call = operator.resolve({t.name: (tuple(t.shape), t.dtype) for t in w.program.tensors}, w.attributes)
        assert call.dims == w.dims and call.output_shape == tuple(w.program.output.shape), w.id
        assert call.attributes == w.attributes
    torch._C.parse_schema(f"{name}{torch_ops.schema(operator)}")


def custom(tensors, **more):
    return {"operator": "op", "tensors": tensors, "attributes": [], "positional": [], "when": [], "checks": [],
            "output": {"dims": ["N", "C", "H", "W"], "dtype": "float32", "spatial": [2, 3]}, **more}


@pytest.mark.parametrize("tree, size, value", [(["*", "C", "M"], 12, 3), (["*", "M", "C"], 12, 3), (["//", "M", 2], 5, 10), (["+", "M", "C"], 9, 5),
                                               (["-", "M", 1], 9, 10), (["-", 9, "M"], 4, 5), (["+", ["*", "M", 2], 1], 7, 3)])
def test_sizes_that_only_a_compound_dimension_shows(tree, size, value):
    operator = Operator("op", [custom([image(), tensor("w", "param", [tree])])])
    assert operator.resolve({"x": ((1, 4, 2, 2), "float32"), "w": ((size,), "float32")}, {}).dims["M"] == value


def test_a_compound_dimension_that_does_not_divide():
    operator = Operator("op", [custom([image(), tensor("w", "param", [["*", "C", "M"]])])])
    with pytest.raises(ArgumentError, match=r"dimension 0 of w is \(C \* M\) = 9, and no M fits"):
        operator.resolve({"x": ((1, 4, 2, 2), "float32"), "w": ((9,), "float32")}, {})


def test_specialised_variants():
    variants = [custom([image(), tensor("w", "param", ["C", k, k])], when=[["==", "KH", k]]) for k in (3, 5)]
    operator = Operator("op", variants)
    x = ((1, 4, 8, 8), "float32")
    assert operator.resolve({"x": x, "w": ((4, 5, 5), "float32")}, {}).dims["KH"] == 5
    with pytest.raises(NoKernel, match="only with dimension 1 of w"):
        operator.resolve({"x": x, "w": ((4, 7, 7), "float32")}, {})


def test_facts_about_attributes():
    spec = {"name": "mode", "type": "str", "choices": ["zeros", "reflect"], "default": "zeros"}
    operator = Operator("op", [custom([image()], attributes=[spec], when=[["==", "mode", ["const", "zeros"]]])])
    x = {"x": ((1, 4, 8, 8), "float32")}
    assert operator.resolve(x, {}).attributes == {"mode": "zeros"}
    with pytest.raises(NoKernel, match=r"only for \(mode == 'zeros'\)"):
        operator.resolve(x, {"mode": "reflect"})
    with pytest.raises(ArgumentError, match="mode must be one of 'zeros', 'reflect', got 'blur'"):
        operator.resolve(x, {"mode": "blur"})


def test_checks_speak():
    operator = Operator("conv2d", [conv2d()])
    with pytest.raises(ArgumentError, match="conv2d: in_channels must be divisible by groups"):
        operator.resolve({"x": ((1, 5, 6, 6), "float32"), "weight": ((8, 2, 3, 3), "float32")}, {"groups": 2})


def test_required_tensor_after_an_optional_one_has_no_default_before_it():
    both = custom([image(), tensor("a", "param", [1]), tensor("b", "param", [1])], positional=["x", "a", "b"])
    one = custom([image(), tensor("b", "param", [1])], positional=["x", "a", "b"])
    operator = Operator("op", [both, one])
    assert torch_ops.schema(operator) == "(Tensor x, Tensor? a, Tensor b) -> Tensor"


@pytest.mark.parametrize("predicate, good, bad", [(4, (4,), (3, 5)), ({"min": 1}, (1, 99), (0,)), ({"min": 2, "max": 8}, (2, 8), (1, 9)),
                                                  ({"multiple": 16}, (16, 32), (8, 17)), ({}, (0, 7), ())])
def test_predicates(predicate, good, bad):
    assert all(fits(predicate, n) for n in good) and not any(fits(predicate, n) for n in bad)


def entry(symbol, dims, threads=2, layout="channels_first"):
    return {"id": symbol, "symbol": symbol, "operator": "square2d", "dims": dims, "attributes": {}, "layout": layout, "threads": threads,
            "dtypes": {"x": "float32"}, "output_dtype": "float32"}


def test_exact_before_any_batch_before_any_shape():
    operators = {"square2d": Operator("square2d", SIGNATURES["square2d"])}
    any_size = {"min": 1}
    kernels = Table(operators, [entry("shape", dict(N=any_size, C=4, H=any_size, W=any_size)), entry("batch", dict(N=any_size, C=4, H=8, W=8)),
                                entry("exact", dict(N=1, C=4, H=8, W=8)), entry("exact_many", dict(N=1, C=4, H=8, W=8), threads=8)])

    def find(shape, threads=2, layouts=("channels_first",)):
        kernel = kernels.find(operators["square2d"].resolve({"x": (shape, "float32")}, {}), layouts, threads)
        return kernel.entry["symbol"], kernel.how

    assert find((1, 4, 8, 8)) == ("exact", "exact") and find((1, 4, 8, 8), threads=16) == ("exact_many", "exact")
    assert find((2, 4, 8, 8)) == ("batch", "any batch") and find((2, 4, 9, 8)) == ("shape", "any shape")
    with pytest.raises(NoKernel, match="nearest: batch .differs in C=4."):
        find((1, 5, 8, 8))
    with pytest.raises(NoKernel, match="differs in channels_first"):
        find((1, 4, 8, 8), layouts=("channels_last",))


def test_a_batch_beyond_a_kernels_indices_is_refused():
    operator = Operator("square2d", SIGNATURES["square2d"])
    kernels = Table({"square2d": operator}, [entry("batch", dict(N={"min": 1, "max": 5735}, C=4, H=8, W=8))])
    find = lambda n: kernels.find(operator.resolve({"x": ((n, 4, 8, 8), "float32")}, {}), ("channels_first",), 2)
    assert find(5735).how == "any batch"
    with pytest.raises(NoKernel, match="nearest: batch .differs in N=from 1 up to 5735."):
        find(5736)


def test_formats_against_torch():
    for shape in ((2, 3, 4, 5), (1, 3, 4, 5), (2, 1, 4, 5), (2, 3, 1, 1), (2, 3, 4, 1)):
        for fmt, name in ((torch.contiguous_format, "channels_first"), (torch.channels_last, "channels_last")):
            x = torch.empty(shape).contiguous(memory_format=fmt)
            both = [n for f, n in ((torch.contiguous_format, "channels_first"), (torch.channels_last, "channels_last")) if x.is_contiguous(memory_format=f)]
            assert list(formats(x.shape, x.stride(), (2, 3))) == both and name in both


def test_formats_of_other_ranks():
    assert order(3, (2,), "channels_last") == (0, 2, 1) and order(5, (2, 3, 4), "channels_last") == (0, 2, 3, 4, 1)
    assert order(6, (4, 5), "channels_last") == (0, 4, 5, 1, 2, 3) and order(2, (), "channels_last") == (0, 1)
    assert strides_of((2, 3, 4), (0, 2, 1)) == (12, 1, 3) and compact((2, 3, 4), (12, 1, 3), (0, 2, 1))


def test_a_tensor_of_both_formats_takes_what_is_offered():
    one = ((2, 1, 4, 4), (16, 16, 4, 1), (2, 3))
    assert preferred(*one) == "channels_first" and preferred(*one, ("channels_last",)) == "channels_last"
    assert preferred((2, 3, 4, 4), (48, 16, 4, 1), (2, 3), ("channels_last",)) == "channels_first"
