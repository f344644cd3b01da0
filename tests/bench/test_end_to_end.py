"""convgen itself in a race: exported, loaded in another process, checked and timed."""

import importlib.util
import json

import pytest

import convgen
from convgen import bench
from convgen.bench.overhead import overhead_table
from convgen.cli import main

pytest.importorskip("torch")
# looked for, not imported: the compiler has no place in this process
pytestmark = pytest.mark.skipif(importlib.util.find_spec("tvm") is None, reason="needs convgen[tune]")

ID = "depthwise_conv2d:n1,c8,h6,w5,k3x3;padding=1:f32.f32.f32:nhwc:bias"


def test_a_race_from_the_command_line(tmp_path, capsys):
    code = main(["bench", ID, "--peers", "torch", "--rounds", "2", "--seconds", "0.05", "--threads", "1", "--json", "-o", str(tmp_path / "data.jsonl")])
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert code == 0 and all(row["ok"] and row["error"] < 1e-6 for row in rows)
    assert [row["contestant"] for row in rows] == ["convgen", "torch functional", "torch functional, via channels_first", "torch nn layer", "torch nn layer, via channels_first"]
    assert rows[0]["facts"]["origin"] in ("exact", "near", "default") and rows[0]["ours"]
    assert rows[0]["memory"]["border"] == 2 * 8 * 6 * 5 * 4 and rows[0]["memory"]["weights"] == 4 * (8 * 9 + 8) and rows[0]["memory"]["prepared"] > 0
    assert bench.read(tmp_path / "data.jsonl").rows == rows


@pytest.mark.slow
def test_call_overhead():
    (row,) = bench.overhead([convgen.workload(ID)])
    assert 0 < row.kernel < row.bound and row.prepare >= 0 and row.library > 0 and ID in overhead_table([row])


@pytest.mark.slow
def test_an_own_operator(tmp_path, capsys):
    (tmp_path / "my_ops.py").write_text("""
from convgen.lang import operator, pads


@operator(dims="N C H W KH KW")
def my_blur2d(o, *, padding=pads(2)):
    \"\"\"Depthwise blur.\"\"\"
    p = o.out("P", o.window_size(o.H, o.KH, 1, 1, padding[0]))
    q = o.out("Q", o.window_size(o.W, o.KW, 1, 1, padding[1]))
    n, c, y, z = o.axes("N C P Q")
    r, s = o.window("KH KW")
    x = o.input("x", "N C H W", pad=padding)
    w = o.param("weight", "C KH KW")
    return o.sum(w[c, r, s] * x[n, c, y + r, z + s], (r, s))
""")
    code = main(["bench", f"{tmp_path}/my_ops.py:my_blur2d", "N=1", "C=8", "H=6", "W=5", "k=3", "padding=1", "--rounds", "2", "--seconds", "0.05", "--threads", "1", "--json"])
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert code == 0 and rows[0]["ok"] and rows[0]["error"] < 1e-6
