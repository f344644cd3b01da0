"""`convgen trace`, and that its file can be read back."""

import json
import sys

import pytest

pytest.importorskip("torch")

from convgen.cli import arguments, main  # noqa: E402

NETWORK = """
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1))

def broken():
    raise KeyError("weights")

ready = nn.Conv2d(3, 4, 1)
number = 3
"""


@pytest.fixture(autouse=True)
def network_file(tmp_path, monkeypatch):
    (tmp_path / "traced_network.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop("traced_network", None)


def test_file(capsys, tmp_path):
    assert main(["trace", "traced_network:build", "--input", "1,3,12,12", "-o", "net.txt"]) == 0
    assert "2 workloads of 3 layers in net.txt" in capsys.readouterr().out
    lines = (tmp_path / "net.txt").read_text().splitlines()
    assert lines[0] == "conv2d:n1,c3,o8,h12,w12,k3x3;padding=1:f32.f32.f32:nchw:bias  # 0 x1"
    assert [(c.name, c.count) for c in arguments.read("net.txt")] == [("0", 1), ("2", 2)]


def test_standard_output_and_json(capsys):
    assert main(["trace", "traced_network:ready", "--input", "1x3x12x12", "--layout", "channels_last"]) == 0
    assert capsys.readouterr().out == "conv2d:n1,c3,o4,h12,w12,k1x1:f32.f32.f32:nhwc:bias  # Conv2d x1\n"
    assert main(["trace", "traced_network:ready", "--input", "1,3,12,12", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"workloads": {"": "conv2d:n1,c3,o4,h12,w12,k1x1:f32.f32.f32:nchw:bias"}, "calls": {"": 1}, "skipped": {}}


@pytest.mark.parametrize("network, shape, message", [
    ("traced_network:broken", "1,3,8,8", "KeyError: 'weights'"),
    ("traced_network:missing", "1,3,8,8", "AttributeError"),
    ("no_such_network:build", "1,3,8,8", "ModuleNotFoundError"),
    ("traced_network", "1,3,8,8", "must be given as pkg.mod:function"),
    ("traced_network:number", "1,3,8,8", "TypeError"),
    ("traced_network:build", "1,3,a", "--input must be a shape like 1,3,224,224, got '1,3,a'"),
    ("traced_network:build", "1,5,8,8", "the network does not take these inputs: RuntimeError"),
])
def test_mistakes(capsys, network, shape, message):
    assert main(["trace", network, "--input", shape]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1
