"""Operators in no catalogue, whose combination is a maximum: compiled, exported, and served where their file cannot be imported."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest

import convgen

SOURCE = '''
from convgen.lang import ints, operator, pads


def window(o, kernel, stride, padding, dilation):
    o.out("P", o.window_size(o.H, kernel[0], stride[0], dilation[0], padding[0]))
    o.out("Q", o.window_size(o.W, kernel[1], stride[1], dilation[1], padding[1]))
    n, c, p, q = o.axes("N C P Q")
    r, s = o.axis("r", kernel[0]), o.axis("s", kernel[1])
    return n, c, r, s, p * stride[0] + r * dilation[0], q * stride[1] + s * dilation[1]


@operator(dims="N C H W KH KW", epilogue=False)
def dilation2d(o, *, stride=ints(2), padding=pads(2), dilation=ints(2)):
    """Grey-scale dilation: y[n,c,p,q] = max over the window of x + w[c,r,s]."""
    n, c, r, s, y, x = window(o, (o.KH, o.KW), stride, padding, dilation)
    image = o.input("x", "N C H W", pad=padding, mode="replicate")
    return o.max(image[n, c, y, x] + o.param("weight", "C", "KH", "KW")[c, r, s], (r, s))


@operator(dims="N C H W", epilogue=False)
def max_filter2d(o, *, size=ints(2, 3), stride=ints(2), padding=pads(2), dilation=ints(2)):
    """Largest value of the window; no tensor shows its size, so it is an attribute."""
    n, c, r, s, y, x = window(o, size, stride, padding, dilation)
    return o.max(o.input("x", "N C H W", pad=padding, mode="replicate")[n, c, y, x], (r, s))
'''
DILATIONS = [dict(N=1, C=17, H=9, W=7, kernel=3, padding=1), dict(N=2, C=8, H=5, W=4, kernel=(3, 5), padding=((2, 1), (4, 2)), dilation=(1, 2), layout="NHWC"),
             dict(N=1, C=33, H=12, W=9, kernel=2, stride=(2, 3))]
MAXIMA = [dict(N=2, C=5, H=6, W=17, padding=1), dict(N=1, C=16, H=7, W=6, size=(2, 3), stride=2, layout="NHWC")]


@pytest.fixture(scope="module")
def operators(tmp_path_factory):
    path = tmp_path_factory.mktemp("own") / "morphology.py"
    path.write_text(SOURCE)
    scope = {"__name__": "morphology"}
    exec(compile(SOURCE, str(path), "exec"), scope)
    return scope


def test_kernels_are_exact(kernels, operators):
    asked = [*(operators["dilation2d"](**kw) for kw in DILATIONS), *(operators["max_filter2d"](**kw) for kw in MAXIMA)]
    wrong, answers = kernels.check(asked)
    assert not wrong, "\n".join(wrong)
    assert all("E" in v["oracles"] for a in answers for v in a["verdicts"])


def test_padding_of_zeros_takes_part_in_the_maximum(kernels):
    """A window in the padding sees zeros, as declared, and not the least number."""
    from convgen.lang import operator

    @operator(dims="N C H W KH KW", epilogue=False)
    def positive_max2d(o):
        n, c, p, q = o.axes("N C H W")
        r, s = o.window("KH KW")
        x = o.input("x", "N C H W", pad=[(o.KH // 2, o.KH // 2), (o.KW // 2, o.KW // 2)])
        return o.max(x[n, c, p + r, q + s], (r, s))

    for layout in ("NCHW", "NHWC"):
        w = positive_max2d(N=1, C=17, H=5, W=6, kernel=3, layout=layout)
        (answer,) = kernels.ask([{"cmd": "run", "description": w.description, "target": convgen.targets.resolve("native").to_json(), "tensors": {"x": np.full((1, 17, 5, 6), -2.0).tolist()}}])
        expected = np.zeros((5, 6))
        expected[1:-1, 1:-1] = -2
        assert (np.array(answer)[0] == expected).all()


def test_served_without_the_declaration(kernels, operators, tmp_path, monkeypatch):
    monkeypatch.setenv("CONVGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    w, plain = operators["dilation2d"](**DILATIONS[0]), operators["max_filter2d"](**MAXIMA[0])
    wide = operators["max_filter2d"](**MAXIMA[0] | {"size": 5, "padding": 2})
    convgen.export([w, plain, wide], tmp_path / "own.cvg")
    tensors = {f"{name}.{k}": np.asarray(v) for name, work in (("d", w), ("m", plain)) for k, v in work.sample(3).items()}
    np.savez(tmp_path / "case.npz", **tensors, d=w.reference(**w.sample(3)), m=plain.reference(**plain.sample(3)), wide=wide.reference(**plain.sample(3)))
    code = textwrap.dedent("""
        import sys
        import numpy as np
        from convgen.runtime import load
        case = np.load(sys.argv[2])
        lib = load(sys.argv[1])
        out = lib.dilation2d(case["d.x"], case["d.weight"], padding=1)
        assert np.abs(out - case["d"]).max() <= 1e-6 * np.abs(case["d"]).max()
        bound = lib.bind("dilation2d", weight=case["d.weight"], padding=1)
        assert np.array_equal(bound(case["d.x"]), out)
        assert np.array_equal(lib.max_filter2d(case["m.x"], padding=1), case["m"])
        assert np.array_equal(lib.max_filter2d(case["m.x"], size=5, padding=2), case["wide"])
        assert not [m for m in sys.modules if m.startswith(("morphology", "tvm.", "convgen.lang", "convgen.ops"))]
    """)
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "own.cvg", tmp_path / "case.npz"], cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_size_that_no_tensor_shows_is_refused(tmp_path):
    from convgen.errors import ArgumentError
    from convgen.lang import operator

    @operator(dims="N C L K", epilogue=False)
    def largest1d(o):
        o.out("P", o.L - o.K + 1)
        n, c, p = o.axes("N C P")
        k = o.window("K")
        return o.max(o.input("x", "N C L")[n, c, p + k], k)

    with pytest.raises(ArgumentError, match="largest1d: no tensor shows the size K, so a call could not state it; make it an attribute"):
        convgen.export(largest1d(N=1, C=2, L=9, kernel=3), tmp_path / "x.cvg")
