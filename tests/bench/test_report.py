"""Reports from rows: ratios, fast_p, network sums, tables, files, pictures, the command line."""

import json
import tempfile
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convgen import bench
from convgen.bench import memory, suites
from convgen.bench.groups import GROUPS, group
from convgen.bench.data import append, keep_whole
from convgen.bench.report import APART, Result
from convgen.bench.report import read as bench_read
from convgen.bench.roofline import Roofline, measure
from convgen.cli import main
from convgen.cli.arguments import layers as layers_of
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


def test_groups(result):
    """Failed and left-out workloads count a half in their group."""
    for r, name in zip(result.rows, ["fused blocks"] * 3 + ["int8"] * 5):
        r["group"] = name
    result.rows += [row("d", "convgen", 10.0, group="int8")]  # nobody else can do it
    result.plan = [{"workload": w, "group": "bf16", "count": 2, "suites": {}} for w in ("a", "e", "f")]
    fused, integers, halves = result.groups()
    assert (fused.name, fused.rows, fused.mean, fused.worst, fused.below_1) == ("fused blocks", 1, 2.0, (2.0, "a"), 0.0)
    assert (integers.name, integers.rows, integers.mean, integers.worst, integers.below_1) == ("int8", 3, pytest.approx(0.4 ** 0.5), (0.5, "c"), 1.0)
    assert (integers.failed, integers.left_out, integers.to_json()["without_peer"]) == (1, 0, 1)
    assert (halves.name, halves.rows, halves.mean, halves.left_out) == ("bf16", 2, 0.5, 2)
    s = result.summary()
    assert result.ratios == [2.0, 0.8, 0.5, 0.5, 0.5] and s["left_out"] == 2 and s["groups"]["bf16"]["geometric_mean"] == 0.5 and s["workloads"] == 6
    text = str(result)
    assert "1 failed, 1 without a peer" in text and "left out, counted as failed: 2 of 6 workloads" in text


def test_memory_bars(result):
    held = {"border": 1000, "scratch": 2000, "weights": 10, "prepared": 80}
    result.rows[0]["memory"] = held
    assert result.greedy() == [] and "exceeded by none" in str(result) and "3.0x" in str(result) and "8.0x" in str(result)
    result.rows[3]["memory"] = held | {"scratch": 2100, "prepared": 81}
    result.rows[0]["memory"] = held | {"weights": 0}
    assert result.greedy() == [("b", ["a call holds 3.1 times its inputs and output", "prepared parameters are 8.1 times as large"])]
    assert result.summary()["memory"][0]["workload"] == "b" and "exceeded by b (a call holds 3.1 times" in str(result)


def test_networks(result):
    """Each suite's layers are summed with its own counts; what has no times is said to be missing."""
    for r in result.rows:
        r["suites"] = {"a": {"one": 2, "two": 1}, "b": {"two": 5}, "c": {"one": 3}}[r["workload"]]
    result.plan = [{"workload": "d", "group": "int8", "count": 4, "suites": {"one": 4}}]
    one, two = result.networks()["one"], result.networks()["two"]
    assert (one["layers"], one["missing"], one["convgen"], one["best peers"]) == (2, 7, pytest.approx(200e-6), pytest.approx(400e-6))
    assert (two["layers"], two["missing"], two["convgen"], two["best peers"]) == (6, 0, pytest.approx(600e-6), pytest.approx(600e-6))
    assert "one: 2 layers one after another" in str(result) and "without 7 layers" in str(result)


def test_network_counts_layers(result):
    assert result.networks()["all"] == {"layers": 4, "missing": 1, "ideal": pytest.approx(4 * 2e-5), "waterline": pytest.approx(4 * 20e-6), "convgen": pytest.approx(400e-6), "best peers": pytest.approx(680e-6)}


def test_table_names_failures_and_doubts(result):
    text = str(result)
    assert "* b" in text and "not timed: ncnn (failed: it was ill): b" in text and "not timed: convgen (failed: it was ill): c" in text
    assert "measure them again" in text and "peak 100 GFLOP/s" in text
    assert "it was ill" in result.details()
    assert str(Result()) == "nothing was measured"
    json.dumps(result.to_json())


def test_files(result, tmp_path):
    """What rows share stands once, and reading gives back the very rows."""
    path = tmp_path / "data.jsonl"
    result.rows[1] |= {"memory": {"border": 7}, "load": None}
    append(path, result.rows[:3])
    append(path, result.rows[3:])
    assert bench.read(path).rows == result.rows
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line.get("workload") for line in lines] == [None, "a", "b", "c"] and len({line["run"] for line in lines}) == 1
    assert path.read_text().count("a machine") == 1 and "cpu" in lines[0] and lines[1]["count"] == 3 and "count" not in lines[1]["rows"][0]
    append(path, [row("a", "convgen", 90.0, date="2030-01-02")])
    assert [len(line.get("rows", ())) for line in map(json.loads, path.read_text().splitlines())] == [0, 3, 3, 2, 0, 1]
    assert bench.read(path).rows[-1] == row("a", "convgen", 90.0, date="2030-01-02") and len(bench.read(path).races) == 4
    whole = path.read_text()
    path.write_text(whole + '{"run": "torn')
    with pytest.raises(ArgumentError, match="line 7: it is no line of a bench"):
        bench.read(path)
    assert keep_whole(path) == bench.read(path).rows and path.read_text() == whole
    for strange in ("[]", "7", '{"run": "unknown", "workload": "a", "rows": [{}]}', '{"workload": "a"}'):
        path.write_text(strange + "\n")
        with pytest.raises(ArgumentError, match="line 1: it is no line of a bench"):
            bench.read(path)
    path.write_text("a letter\nto somebody")
    with pytest.raises(ArgumentError):
        keep_whole(path)
    assert path.read_text() == "a letter\nto somebody"


named = st.dictionaries(st.sampled_from(["cpu", "date", "threads", "kind", "count", "facts", "median_us"]), st.none() | st.integers(0, 2) | st.lists(st.floats(0, 1), max_size=2), max_size=6)


@given(st.lists(st.tuples(st.sampled_from("ab"), named), max_size=8))
def test_any_rows_come_back(parts):
    rows = [{"workload": w, "contestant": f"{n}", "ours": n == 0, "ok": True, **more} for n, (w, more) in enumerate(parts)]
    with tempfile.TemporaryDirectory() as folder:
        append(f"{folder}/data.jsonl", rows[:3])
        append(f"{folder}/data.jsonl", rows[3:])
        assert bench.read(f"{folder}/data.jsonl").rows == rows


def test_fused_blocks(result):
    """Of 400 us of the best peer 100 are products; ours takes 100: all that can be saved is saved. A block without products counts whole."""
    rows = [row("a", "convgen", 100.0), row("a", "torch one", 400.0), row("a", "matrix products, packed", 100.0, counts=False, error=None),
            row("a", "matrix products, rows first", 150.0, counts=False, error=None), row("b", "convgen", 100.0), row("b", "torch one", 125.0),
            row("c", "convgen", 10.0), row("c", "torch one", 90.0), row("c", "matrix products, packed", 91.0, counts=False, error=None), row("d", "convgen", None), row("d", "torch one", 9.0)]
    known = {"a": 2, "b": 0, "c": 1, "d": 1, "e": 1}
    rows += [row("e", "convgen", 10.0), row("e", "torch one", 90.0)]  # its products were not timed
    blocks = Result([r | {"group": "fused blocks", "products": known[r["workload"]]} for r in rows])
    assert blocks.fused() == [("b", pytest.approx(0.2)), ("a", pytest.approx(1.0))] and blocks.races[0].best["contestant"] == "torch one"
    assert blocks.summary()["fused"] == [{"workload": "b", "removed": pytest.approx(0.2)}, {"workload": "a", "removed": pytest.approx(1.0)}]
    assert "60% in the median of 2, at least 20% (b); 70% or more: 50% of them" in str(blocks) and "a part of it" in blocks.details()
    assert not result.fused() and "fused blocks" not in str(result)


def test_workloads_outside_the_networks(result):
    rows = [row(w, who, us * scale, group="int8", layer=layer) for w, layer, scale in (("a", "x", 1), ("b", "y", 2), ("c", "z", 3), ("d", "apart: near", 2.2), ("e", "apart: far", 1.6))
            for who, us in (("convgen", 10.0 / scale), ("ncnn", 10.0))]
    apart = Result(rows)
    assert [(g, w, pytest.approx(ratio), pytest.approx(middle)) for g, w, ratio, middle in apart.apart()] == [("int8", "d", 2.2 ** 1, 2.0), ("int8", "e", 1.6, 2.0)]
    (found,) = apart.outside()
    assert (found.group, found.distance, found.to_json()["rows"], found.to_json()["median_of_others"]) == ("int8", pytest.approx(-0.05), 2, pytest.approx(2.0))
    assert "outside the networks: int8: median 1.90, -5% from that of the others (2.00): d 2.20, e 1.60" in str(apart)
    far = Result([r for r in rows if r["workload"] != "d"])
    assert "outside the networks: int8: median 1.60, -20% from that of the others (2.00), beyond 15%: e 1.60" in str(far)
    assert apart.summary()["apart"][1]["workload"] == "e" and apart.summary()["outside"][0]["group"] == "int8" and "outside" not in str(result)


def test_picture(result, tmp_path):
    pytest.importorskip("matplotlib")
    from convgen.bench.plot import draw
    draw(result, tmp_path / "bench.png")
    assert (tmp_path / "bench.png").read_bytes()[:4] == b"\x89PNG"
    draw(Result(), tmp_path / "empty.svg")


def test_picture_of_many(tmp_path):
    """330 rows keep a line each: every workload, its peer, group and network is text in the picture, no two on the same line."""
    pytest.importorskip("matplotlib")
    from convgen.bench.plot import draw
    ids = [f"w{n}:f32.f32.f32:nchw" for n in range(330)]
    rows = [row(id, who, us * (1 + n % 7), group=GROUPS[n % 5], suites={f"net{n % 8}": 1}) for n, id in enumerate(ids) for who, us in (("convgen", 100.0), (f"peer{n}", 150.0))]
    rows[0] |= {"ok": False, "kind": "failed", "reason": "it was ill"}
    draw(Result(rows, plan=[{"workload": "missing one", "group": GROUPS[0], "suites": {}, "count": 1}]), tmp_path / "bench.svg")
    picture = ElementTree.parse(tmp_path / "bench.svg").getroot()
    texts = {}
    for element in picture.iter("{http://www.w3.org/2000/svg}text"):
        texts.setdefault("".join(element.itertext()).strip(), []).append(element)
    assert all(f"w{n} nchw" in texts and any(f"peer{n}," in t for t in texts) for n in range(330)) and "missing one" in texts
    assert all(name in texts for name in GROUPS[:5]) and all(f"net{n} ({42 if n == 1 else 41} layers)" in texts for n in range(8))
    assert any(t.startswith("failed  peer0") for t in texts)
    lines = sorted(float(texts[f"w{n} nchw"][0].get("y")) for n in range(330))
    assert all(below - above > 6 for above, below in zip(lines, lines[1:]))  # points; the text is 6 high


def test_command_line(result, tmp_path, capsys):
    append(tmp_path / "data.jsonl", result.rows)
    assert main(["bench", "--read", str(tmp_path / "data.jsonl"), "--json"]) == 1  # convgen failed on one
    assert json.loads(capsys.readouterr().out)["summary"]["workloads"] == 3
    assert main(["bench", "--read", str(tmp_path / "data.jsonl"), "--all"]) == 1
    assert "ncnn" in capsys.readouterr().out
    assert main(["bench", "--read", str(tmp_path / "data.jsonl"), "--suite", "im2win12", "--json"]) == 1
    summary = json.loads(capsys.readouterr().out)["summary"]
    assert (summary["workloads"], summary["left_out"], summary["groups"]["dense 3x3, stride 1"]["left_out"]) == (15, 12, 6)
    assert main(["bench", "--suite", "list"]) == 0 and {"all", "spine"} <= set(capsys.readouterr().out.split())
    for words, message in ((["--suite", "vgg"], "unknown suite 'vgg'"), ([], "no workload given"), (["conv1d", "--peers", "torch,tf"], "peers are")):
        assert main(["bench", *words]) == 2
        assert message in capsys.readouterr().err


LAYERS = {"resnet50": 53, "mobilenetv2": 52, "convnext_t": 58, "replknet31b": 130, "unireplknet_t": 86, "inceptionnext_t": 58, "van_b1": 84, "im2win12": 12, "spine": 9, "dynamic": 43,
          "batch8": 11, "blocks": 90, "variants": 12, "groups": 58, "long": 6, "lowprecision": 116, "outside": 48}


def test_workloads_outside_stand_in_no_network():
    """Four of each group, named so, at least three of them with their source; elsewhere they stand at most among the samples of groups."""
    here = read(suites.path("outside"))
    inside = {case.workload.id for name in LAYERS if name not in ("outside", "groups") for case in read(suites.path(name))}
    assert not inside & {case.workload.id for case in here} and all(case.name.startswith(APART) for case in here)
    counts = Counter(group(case.workload) for case in here)
    assert len(counts) == 12 and set(counts.values()) == {4} and sum("(arXiv:" in case.name for case in here) == 36


def test_all_suites():
    """Each layer in float32 of each suite, with the suite it stands in."""
    every = layers_of(["all"])
    assert len(every) == sum(len(read(suites.path(name))) for name in LAYERS if name != "lowprecision")
    assert {case.suite for case in every} == set(LAYERS) - {"lowprecision"} and layers_of(["spine"])[0].suite == "spine"
    with pytest.raises(ArgumentError, match="unknown suite 'every'"):
        layers_of(["every"])


def test_every_suite_is_known():
    assert set(suites.names()) == set(LAYERS)


@pytest.mark.parametrize("name", LAYERS)
def test_suites(name):
    cases = read(suites.path(name))
    assert sum(case.count for case in cases) == LAYERS[name]
    lines = [line.partition("#")[0].strip() for line in suites.path(name).read_text().splitlines()]
    assert [case.workload.id for case in cases] == [line for line in lines if line]
    assert all(case.name for case in cases) and len({case.workload for case in cases}) == len(cases)


def test_roofline_takes_the_cache_that_fits():
    roof = Roofline.from_json(ROOF)
    assert (roof.bandwidth(1e5), roof.bandwidth(1e7), roof.bandwidth(1e12), roof.bandwidth(1e5, cold=True)) == (50, 10, 10, 10)
    assert roof.seconds(1e9, 1) == pytest.approx(0.01) and roof.seconds(1, 5e5) == pytest.approx(1e-5)
    assert Roofline.from_json(roof.to_json()) == roof


def test_roofline_is_measured():
    roof = measure(1, (1 << 18, 1 << 20))
    assert roof.gflops > 0 and [size for size, _ in roof.copy] == [1 << 18, 1 << 20] and all(rate > 0 for _, rate in roof.copy)


def test_prepared_parameters_of_the_measured_layers_keep_to_their_bar():
    """As `f.nbytes` of the bound calls said."""
    found = [(race.workload, memory.prepared_ratio(race.memory)) for race in bench_read(Path(__file__).parents[2] / "docs/measured/all.jsonl").races if race.memory]
    assert found and [pair for pair in found if (pair[1] or 0.0) > memory.PREPARED] == []
