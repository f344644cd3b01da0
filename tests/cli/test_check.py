"""`convgen check`, and the random shapes it tries."""

import importlib.util
import json
import re
import shutil
import textwrap

import pytest

import convgen
from convgen import shapes
from convgen.emit import nvcc
from convgen.errors import ArgumentError

pytest.importorskip("torch")


def test_a_right_description(run):
    result = run("check", "conv2d", "--no-kernel", "--shapes", "3", "--seed", "2")
    assert result.code == 0
    assert "stage sum, per call: window kh kw; spatial p q; channel c; plain n o" in result.out
    assert result.out.count("oracle against baseline: right") == 3 and result.out.endswith("conv2d: 3 shapes right\n")


def test_a_wrong_description_is_found(run, tmp_path):
    (tmp_path / "wrong.py").write_text(textwrap.dedent("""
        from convgen.lang import operator

        def reversed_scale(w, x, weight):
            return x * weight.flip(0)[None, :, None]

        @operator(dims="N C L", baseline=reversed_scale, epilogue=False)
        def scale1d(o):
            n, c, l = o.axes("N C L")
            return o.input("x", "N C L")[n, c, l] * o.param("weight", "C")[c]
    """))
    result = run("check", f"{tmp_path}/wrong.py:scale1d", "--no-kernel", "--json")
    report = json.loads(result.out)
    assert result.code == 1 and not report["ok"]
    assert any(row["oracle"].startswith("WRONG, at (") for row in report["checks"])


def test_an_operator_without_baseline(run, own):
    result = run("check", own, "--no-kernel", "--shapes", "1")
    assert result.code == 0 and "n/a, no baseline is declared" in result.out


@pytest.mark.skipif(importlib.util.find_spec("tvm") is None, reason="needs convgen[tune]")
@pytest.mark.parametrize("target, how, needed", [("native", "run", None), ("cuda:sm_80", "emulated", "nvcc"), ("arm:cortex-a72", "emulated", "unicorn")])
def test_default_kernels(run, target, how, needed):
    """The kernel of any target is judged: where it can run, or emulated."""
    if needed == "unicorn" and importlib.util.find_spec("unicorn") is None or needed == "nvcc" and (nvcc.find() is None or shutil.which("g++") is None):
        pytest.skip(f"needs {needed}")
    result = run("check", "depthwise_conv2d", "--target", target, "--shapes", "1", "--seed", "4")
    assert result.code == 0, result.err
    assert re.search(rf"kernel against oracle: right \(E?FG, error 0\.\d+ of its bound, {how}\)", result.out)


@pytest.mark.skipif(importlib.util.find_spec("unicorn") is None or importlib.util.find_spec("tvm") is None, reason="needs convgen[tune] and unicorn")
def test_a_wrong_emulated_kernel_is_a_verdict(monkeypatch):
    """An entry whose function is another's is found out, and the next kernel is judged as ever."""
    from convgen.checking import Kernels
    kernels = Kernels("arm:cortex-a72")
    w, other = (convgen.workload(f"conv1d:n1,c4,o4,l9,k3;padding={p}:f32.f32.f32:nlc") for p in (1, 0))
    build = kernels._judge._service.build
    try:
        with monkeypatch.context() as patch:
            patch.setattr(kernels._judge._service, "build", lambda description, *rest: build(other.description, *rest))
            verdict = kernels.verdict(w)
        assert not verdict.ok and str(verdict).startswith("WRONG, ")
        assert kernels.verdict(w).ok
    finally:
        kernels.close()


@pytest.mark.parametrize("name", convgen.operators())
def test_small_shapes_are_valid_different_and_repeatable(name):
    op = convgen.operator(name)
    ids = [shapes.small(op, seed).id for seed in range(6)]
    assert ids == [shapes.small(op, seed).id for seed in range(6)]
    assert len(set(ids)) >= 4


def test_fixed_values_are_kept():
    w = shapes.small(convgen.operator("conv2d"), 3, C=5, layout="NHWC", groups=1, bias=True)
    assert (w.dims["C"], w.layout, w.flags["bias"]) == (5, "channels_last", True)


def test_impossible_wishes_say_why():
    with pytest.raises(ArgumentError, match="no valid small shape found in 500 attempts; the last was refused because: conv2d: "):
        shapes.small(convgen.operator("conv2d"), 0, C=3, groups=2)
