"""The whole way with the real compiler: describe, compile, export, load, call, bind."""

import importlib.util

import numpy as np
import pytest

import convgen
from convgen.cli import main

pytestmark = pytest.mark.skipif(importlib.util.find_spec("tvm") is None, reason="needs the compiler: pip install convgen[tune]")


@pytest.fixture(scope="module")
def w():
    return convgen.operator("depthwise_conv2d")(N=1, C=17, H=9, W=7, kernel=3, padding=1, bias=True, activation="relu", layout="NHWC")


def close(result, w, tensors):
    expected = w.reference(**tensors)
    np.testing.assert_allclose(np.asarray(result), expected, rtol=1e-5, atol=1e-5)


def test_compile_export_load(w, home):
    tensors = w.sample(seed=0)
    close(convgen.compile(w)(**tensors), w, tensors)
    report = convgen.export({"block.dw": w}, home / "ops.cvg", target=["x86:avx2", "native"])
    assert [(r.name, r.target, r.origin) for r in report.rows] == [("block.dw", "x86:avx2", "default"), ("block.dw", "native", "default")]
    library = convgen.load(home / "ops.cvg", name="test_end_to_end", expect_sha256=report.sha256)
    close(library.depthwise_conv2d(**tensors, padding=1, activation="relu"), w, tensors)
    bound = library.bind("depthwise_conv2d", weight=tensors["weight"], bias=tensors["bias"], padding=1, activation="relu")
    close(bound(tensors["x"]), w, tensors)


def test_check_compiles_and_verifies(capsys):
    assert main(["check", "conv1d", "--shapes", "2"]) == 0
    assert capsys.readouterr().out.count("kernel against oracle: right (") == 2


def test_integers_bit_by_bit(home):
    """A library of 8-bit kernels: which output dtype is asked for shows in the tensors given; torch and numpy."""
    op = convgen.operator("quantized_conv2d")
    sizes = {"N": 1, "C": 19, "O": 17, "H": 9, "W": 7, "kernel": 3, "padding": 1}
    quantized, sums = op(**sizes, bias=True, relu=True), op(**sizes, out_dtype="int32")
    convgen.export([quantized, sums], home / "integers.cvg")
    library = convgen.load(home / "integers.cvg", name="test_integers")
    tensors = quantized.sample(seed=0)
    expected = quantized.reference(**tensors)
    x = tensors.pop("x")
    bound = library.bind("quantized_conv2d", **tensors, padding=1, relu=True)
    assert np.array_equal(bound(x).numpy(), expected) and np.array_equal(bound(x.numpy()), expected) and bound(x.numpy()).dtype == np.uint8
    few = {name: tensors[name] for name in ("weight", "x_zero_point")}
    assert np.array_equal(library.quantized_conv2d(x, **few, padding=1).numpy(), sums.reference(x=x, **few))
    with pytest.raises(convgen.Error, match="weight must have dtype int8, got float32"):
        library.quantized_conv2d(x, **{**few, "weight": few["weight"].float()}, padding=1)
