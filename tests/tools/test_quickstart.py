"""The parts of the quickstart, with small layers and budgets."""

import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "tools" / "quickstart"

pytest.importorskip("skimage", reason="needs convgen[bench]")
pytest.importorskip("matplotlib", reason="needs convgen[bench]")


@pytest.fixture(scope="module")
def parts():
    """The quickstart's modules, found as when its folder is run."""
    names = ("photo", "layers", "draw")
    sys.path.insert(0, str(FOLDER))
    try:
        spec = importlib.util.spec_from_file_location("quickstart_main", FOLDER / "__main__.py")
        main = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(main)
        yield main
    finally:
        sys.path.remove(str(FOLDER))
        for name in names:
            sys.modules.pop(name, None)


def python(code: str, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code, *arguments], cwd=FOLDER, capture_output=True, text=True, timeout=280)


def test_photograph_is_in_the_wheel(parts):
    import skimage.data
    image = parts.photo.photograph()
    assert image.shape == (300, 300, 3) and image.dtype == np.uint8 and np.ptp(image) > 200
    assert (Path(skimage.data.__file__).parent / "chelsea.png").is_file(), "nothing is downloaded"


def test_lifting_is_the_same_everywhere(parts):
    maps = parts.photo.lift(parts.photo.photograph(), 8, 20)
    assert maps.shape == (1, 8, 20, 20) and maps.dtype == np.float32
    assert maps.min() == 0 and maps.std((2, 3)).min() > 0.3, "rectified, and no map is empty"
    code = "import hashlib, photo; print(hashlib.sha256(photo.lift(photo.photograph(), 8, 20).tobytes()).hexdigest())"
    assert python(code).stdout.strip() == hashlib.sha256(maps.tobytes()).hexdigest()
    other = parts.photo.lift(parts.photo.photograph(), 8, 20, seed=1)
    assert np.abs(other - maps).max() > 0.1


def test_layers_are_the_published_ones(parts):
    import convgen
    for layer in parts.layers.LAYERS:
        w = convgen.workload(layer.workload)
        assert w.id == layer.workload
        arrays = parts.layers.inputs(layer, parts.photo.photograph())
        assert {name: value.shape for name, value in arrays.items()} == {t.name: tuple(t.shape) for t in w.program.tensors}
        assert all(value.dtype == np.float32 and np.isfinite(value).all() for value in arrays.values())


def fake_race(us, peers, roofline, busy=False):
    from convgen.bench.report import Race
    facts = {"workload": "w", "roofline_us": roofline, "cpu": "a CPU", "threads": 2, "date": "a day", "counts": True, "ok": True, "busy": busy}
    ours = {"contestant": "convgen", "ours": True, "median_us": us, **facts}
    return Race((ours, *({"contestant": f"torch {name}", "ours": False, "median_us": value, **facts} for name, value in peers.items())))


def test_table_and_picture(parts, tmp_path):
    races = [fake_race(100.0, {"eager": 300.0, "compiled": 250.0}, 60.0), fake_race(2000.0, {"eager": 1000.0}, None)]
    served = [{"title": "one", "error": 3e-7}, {"title": "two", "error": 1e-6}]
    head, first, second = parts.draw.table(served, races).splitlines()
    assert head.split() == ["layer", "error", "convgen", "best", "PyTorch", "ratio", "of", "roofline", "which", "PyTorch"]
    assert first.split() == ["one", "3.0e-07", "100", "us", "250", "us", "2.50x", "60%", "torch", "compiled"]
    assert second.split() == ["two", "1.0e-06", "2,000", "us", "1,000", "us", "0.50x", "n/a", "torch", "eager"]
    assert not parts.draw.busy(races) and parts.draw.busy([*races, fake_race(1.0, {}, None, busy=True)])
    maps = [(np.random.default_rng(i).standard_normal((4, 9, 9)),) * 2 for i in range(2)]
    parts.draw.picture(tmp_path / "picture.png", parts.photo.photograph(), served, races, maps)
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_fresh_process_has_no_compiler():
    """Where it is installed, too: it cannot be imported, asking for it finds nothing, and convgen serves without it."""
    code = """
import bare
bare.remove_compiler()
import importlib.util, convgen.runtime.library
for name in ("tvm", "xgboost", "tvm.ir"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        pass
    else:
        raise AssertionError(name)
assert importlib.util.find_spec("tvm") is None and importlib.util.find_spec("tvm_ffi") is not None
bare.assert_bare()
"""
    result = python(code)
    assert result.returncode == 0, result.stderr


@pytest.mark.skipif(importlib.util.find_spec("xgboost") is None, reason="needs convgen[tune]")
def test_a_compiler_that_is_there_is_noticed():
    for code, complaint in (("import bare; bare.assert_bare()", "can be imported"),
                            ("import xgboost, bare; bare.remove_compiler()", "xgboost can be imported"),
                            ("import xgboost, sys, bare; [sys.modules.pop(n) for n in list(sys.modules) if n.startswith('xgboost')]; bare.remove_compiler()",
                             "libxgboost.so is mapped")):
        result = python(code)
        assert result.returncode == 1 and complaint in result.stderr, (code, result.stderr)


@pytest.mark.skipif(any(importlib.util.find_spec(name) is None for name in ("tvm", "torch")), reason="needs convgen[tune,torch]")
def test_the_whole_way(parts, tmp_path, monkeypatch):
    layers = parts.layers
    small = (layers.Layer("small convolution", "conv2d:n1,c16,o16,h9,w9,k3x3;padding=1:f32.f32.f32:nhwc"),
             layers.Layer("small involution", "involution2d:n1,c16,g2,h8,w8,k3x3;padding=1:f32.f32.f32:nhwc", layers.generated))
    monkeypatch.setattr(layers, "LAYERS", small)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    output = tmp_path / "output"
    parts.prepare(output)
    assert parts.build(output, None, trials=1)
    served = parts.serve(output)
    assert [row["title"] for row in served] == ["small convolution", "small involution"]
    assert all(row["error"] < 1e-6 and row["calls"] == 1 for row in served)
    result = parts.race(output, 0.1, peers=("torch",), rounds=1)
    text = parts.report(output, served, result)
    assert [line.split("  ")[0] for line in text.splitlines()[1:3]] == ["small convolution", "small involution"] and "failed" not in text
    assert {path.name for path in output.iterdir()} >= {"library.cvg", "table.txt", "picture.png", "bench.jsonl", "tuning_logs"}
    shipped = "".join(path.read_text() for path in (ROOT / "tuning_logs").rglob("*.jsonl"))
    assert not any(layer.workload in shipped for layer in small), "records stay in the output folder"


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs convgen[torch]")
def test_wrong_outputs_are_refused(parts, tmp_path, monkeypatch):
    """A library that does not compute what PyTorch does ends the process that serves."""
    code = """
import sys, types
import bare
bare.remove_compiler()
import numpy as np, torch
import serve
wrong = types.SimpleNamespace(bind=lambda *a, **k: (lambda x: torch.zeros(1, 2, 4, 4)), stats=lambda: {"calls": {}})
arrays = {"x": np.ones((1, 2, 4, 4), np.float32), "weight": np.ones((2, 2, 1, 1), np.float32)}
serve.serve("layer", "conv2d:n1,c2,o2,h4,w4,k1x1:f32.f32.f32:nhwc", wrong, arrays)
"""
    result = python(code)
    assert result.returncode == 1 and "RuntimeError: layer: relative L2 distance 1.00e+00" in result.stderr, result.stderr
