"""Running the command line inside the test's process, in a home of its own."""

from __future__ import annotations

import textwrap
from types import SimpleNamespace

import pytest

from convgen.cli import main

OWN = """
    from convgen.lang import ints, operator, pads

    @operator(dims="N C H W KH KW")
    def my_blur2d(o, *, stride=ints(2), padding=pads(2)):
        \"\"\"Depthwise blur of my own.\"\"\"
        p = o.out("P", o.window_size(o.H, o.KH, stride[0], 1, padding[0]))
        q = o.out("Q", o.window_size(o.W, o.KW, stride[1], 1, padding[1]))
        n, c, y, x_ = o.axes("N C P Q")
        r, s = o.window("KH KW")
        x = o.input("x", "N C H W", pad=padding)
        w = o.param("weight", "C KH KW")
        return o.sum(w[c, r, s] * x[n, c, y * stride[0] + r, x_ * stride[1] + s], (r, s))

    not_an_operator = 3
"""


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A home and a working directory of the test's own."""
    for name in ("CONVGEN_LOGS", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CONVGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capsys):
    """run("ops", "--json") → code, out, err. An error must be one line and never a traceback."""

    def call(*words):
        capsys.readouterr()
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return SimpleNamespace(code=code, out=out, err=err.strip())

    return call


@pytest.fixture
def own(tmp_path):
    """A file with an operator outside the package; returns its reference."""
    (tmp_path / "my_ops.py").write_text(textwrap.dedent(OWN))
    return f"{tmp_path}/my_ops.py:my_blur2d"
