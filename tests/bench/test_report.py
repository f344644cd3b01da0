"""Reports from rows: ratios, fast_p, network sums, tables, files, pictures, the command line."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convgen import bench
from convgen.bench import efficiency, suites
from convgen.bench.report import Result, append
from convgen.bench.roofline import Roofline, measure
from convgen.cli import main
from convgen.cli.arguments import read
from convgen.errors import ArgumentError

ROOF = {"threads": 2, "gflops": 100.0, "copy_gbs": [[1 << 20, 50.0], [1 << 28, 10.0]]}


def row(workload, contestant, us, **more):
    base = {"workload": workload, "contestant": contestant, "ours": contestant == "convgen", "counts": True, "ok": us is not None, "kind": None, "reason": None,
            "flops": 2e6, "bytes": 1e5, "roofline_us": 20.0, "busy": False, "threads": 2, "cold": False, "suite": None, "date": "2030-01-01", "cpu": "a machine",
            "layer": None, "count": 1, "roofline": ROOF}
    times = {"median_us": us, "spread_us": 1.0, "least_us": us, "error": 1e-7} if us is not None else {"kind": "failed", "reason": "it was ill"}
    return base | times | more


@pytest.fixture
def result():
    return Result([row("a", "convgen", 100.0, count=3), row("a", "torch one", 400.0, count=3), row("a", "ncnn", 200.0, count=3),
                   row("b", "convgen", 100.0, busy=True), row("b", "torch one", 80.0, busy=True), row("b", "ncnn", None, busy=True),
                   row("c", "convgen", None), row("c", "torch one", 50.0)])


def test_figures(result):
    assert result.ratios == [2.0, 0.8, 0.5]
    assert result.geometric_mean == pytest.approx(0.8 ** (1 / 3))
    assert result.fast_p() == {0.5: 2 / 3, 1.0: 1 / 3, 1.5: 1 / 3, 2.0: 0.0, 3.0: 0.0}
    s = result.summary()
    assert s["geometric_mean_torch"] == pytest.approx((4 * 0.8 * 0.5) ** (1 / 3)) and s["below_1"] == pytest.approx(2 / 3)
    assert (s["failed"], s["busy"], s["workloads"]) == (1, 1, 3)
    assert [race.fraction for race in result.races] == [0.2, 0.2, None]


def test_network_counts_layers(result):
    assert result.network() == {"layers": 4, "ideal": pytest.approx(4 * 2e-5), "waterline": pytest.approx(4 * 20e-6), "convgen": pytest.approx(400e-6), "best peers": pytest.approx(680e-6)}


def test_table_names_failures_and_doubts(result):
    text = str(result)
    assert "* b" in text and "not timed: ncnn (failed: it was ill): b" in text and "not timed: convgen (failed: it was ill): c" in text
    assert "measure them again" in text and "peak 100 GFLOP/s" in text
    assert "it was ill" in result.details()
    assert str(Result()) == "nothing was measured"
    json.dumps(result.to_json())


def test_files(result, tmp_path):
    path = tmp_path / "data.jsonl"
    append(path, result.rows[:3])
    append(path, result.rows[3:])
    assert bench.read(path).rows == result.rows
    path.write_text(path.read_text() + '{"workload": "torn')
    with pytest.raises(ArgumentError, match="line 9: it is no row"):
        bench.read(path)


def test_picture(result, tmp_path):
    pytest.importorskip("matplotlib")
    from convgen.bench.plot import draw
    draw(result, tmp_path / "bench.png")
    assert (tmp_path / "bench.png").read_bytes()[:4] == b"\x89PNG"


def test_command_line(result, tmp_path, capsys):
    append(tmp_path / "data.jsonl", result.rows)
    assert main(["bench", "--read", str(tmp_path / "data.jsonl"), "--json"]) == 1  # convgen failed on one
    assert json.loads(capsys.readouterr().out)["summary"]["workloads"] == 3
    assert main(["bench", "--read", str(tmp_path / "data.jsonl"), "--all"]) == 1
    assert "ncnn" in capsys.readouterr().out
    assert main(["bench", "--suite", "list"]) == 0 and "spine" in capsys.readouterr().out.split()
    for words, message in ((["--suite", "vgg"], "unknown suite 'vgg'"), ([], "no workload given"), (["conv1d", "--peers", "torch,tf"], "peers are")):
        assert main(["bench", *words]) == 2
        assert message in capsys.readouterr().err


LAYERS = {"resnet50": 53, "mobilenetv2": 52, "convnext_t": 58, "replknet31b": 130, "unireplknet_t": 86, "inceptionnext_t": 58, "van_b1": 84, "im2win12": 12, "spine": 9, "dynamic": 43}


def test_every_suite_is_known():
    assert set(suites.names()) == set(LAYERS)


@pytest.mark.parametrize("name", LAYERS)
def test_suites(name):
    cases = read(suites.path(name))
    assert sum(case.count for case in cases) == LAYERS[name]
    lines = [line.partition("#")[0].strip() for line in suites.path(name).read_text().splitlines()]
    assert [case.workload.id for case in cases] == [line for line in lines if line]
    assert all(case.name for case in cases) and len({case.workload for case in cases}) == len(cases)


positive = st.floats(1e-3, 1e3)
layers = st.lists(st.tuples(positive, positive), min_size=1, max_size=6)


@given(layers, positive, positive)
def test_waterline(layers, peak, bandwidth):
    """One roofline point over-estimates; fusing two layers never lowers the highest efficiency."""
    flops, nbytes = map(list, zip(*layers))
    highest = efficiency.highest(flops, nbytes, peak, bandwidth)
    assert 0 < highest <= 1 + 1e-9
    assert efficiency.single_point(flops, nbytes, peak, bandwidth) >= highest * (1 - 1e-9)
    if len(layers) > 1:
        fused = efficiency.highest([flops[0] + flops[1], *flops[2:]], [max(nbytes[0], nbytes[1]), *nbytes[2:]], peak, bandwidth)
        assert fused >= highest * (1 - 1e-9)


@given(layers, positive, positive)
def test_one_point_suffices_where_all_layers_are_on_one_side(layers, peak, bandwidth):
    flops, nbytes = map(list, zip(*layers))
    sides = {efficiency.submerged(f, b, peak, bandwidth) for f, b in layers}
    if len(sides) == 1:
        assert efficiency.single_point(flops, nbytes, peak, bandwidth) == pytest.approx(efficiency.highest(flops, nbytes, peak, bandwidth))


def test_roofline_takes_the_cache_that_fits():
    roof = Roofline.from_json(ROOF)
    assert (roof.bandwidth(1e5), roof.bandwidth(1e7), roof.bandwidth(1e12), roof.bandwidth(1e5, cold=True)) == (50, 10, 10, 10)
    assert roof.seconds(1e9, 1) == pytest.approx(0.01) and roof.seconds(1, 5e5) == pytest.approx(1e-5)
    assert Roofline.from_json(roof.to_json()) == roof


def test_roofline_is_measured():
    roof = measure(1, (1 << 18, 1 << 20))
    assert roof.gflops > 0 and [size for size, _ in roof.copy] == [1 << 18, 1 << 20] and all(rate > 0 for _, rate in roof.copy)
