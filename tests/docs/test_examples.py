"""The example operators are right, and a library of one serves where its file is unknown."""

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import convgen
from convgen import references

pytest.importorskip("torch")
DILATION = Path(__file__).parents[2] / "docs" / "examples" / "dilation2d.py"


@pytest.fixture(scope="module")
def dilation2d():
    return references.find(f"{DILATION}:dilation2d")


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_dilation_agrees_with_both_formulations(dilation2d, layout):
    w = dilation2d(N=2, C=5, H=6, W=7, kernel=(3, 2), padding=((1, 0), (2, 1)), layout=layout)
    tensors = w.sample(seed=3)
    expected = w.reference(**tensors)
    formulations = w.formulations(**{n: t.double() for n, t in tensors.items()})
    assert len(formulations) == 2
    for call in formulations.values():
        np.testing.assert_allclose(call().numpy(), expected, rtol=0, atol=1e-12)


def test_dilation_is_served_where_its_file_is_unknown(dilation2d, tmp_path):
    pytest.importorskip("xgboost")  # stands for convgen[tune]
    w = dilation2d(N=1, C=16, H=9, W=9, kernel=3, padding=1)
    convgen.export([w], tmp_path / "own.cvg", name="own")
    tensors = w.sample(seed=0)
    np.savez(tmp_path / "case.npz", expected=w.reference(**tensors), **{n: t.numpy() for n, t in tensors.items()})
    program = textwrap.dedent(f"""
        import sys, numpy as np, torch
        import convgen
        case = np.load({str(tmp_path / "case.npz")!r})
        lib = convgen.load({str(tmp_path / "own.cvg")!r})
        y = lib.dilation2d(torch.from_numpy(case["x"]), torch.from_numpy(case["weight"]), padding=1)
        assert np.abs(y.numpy() - case["expected"]).max() < 1e-6
        assert not any("dilation2d" in name for name in sys.modules)
    """)
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path, timeout=280)
