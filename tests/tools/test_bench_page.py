"""tools/bench_page.py: figures in pages are those of the data."""

import pytest

from convgen.bench.data import append
from convgen.tune import records
from tests.tool import load


@pytest.fixture(scope="module")
def tool():
    return load("bench_page")


def test_pages_tell_what_the_data_says(tool):
    for name in tool.PAGES:
        text = (tool.ROOT / name).read_text()
        assert tool.BLOCK.search(text) and text.count("<!-- bench: end -->") == len(tool.BLOCK.findall(text))
        assert tool.filled(text) == text, f"{name}: run tools/bench_page.py"


def row(workload, who, us, **more):
    return {"workload": workload, "contestant": who, "ours": who == "convgen", "counts": who != tool_name, "ok": us is not None, "date": "2030-01-01", "threads": 2, "cold": False, "cpu": "a machine",
            "group": "fused blocks", "products": 1, "count": 1, "suites": {"net": 2}, "flops": 1e6, "roofline_us": 5.0, "roofline": {"threads": 2, "gflops": 100.0, "copy_gbs": [[1, 1.0]]},
            "layer": "apart: x" if workload == "b" else None, **({"median_us": us} if us else {}), **more}


tool_name = "TVM MetaSchedule"


def test_every_kind(tool, tmp_path):
    """Each kind names its figures; a file that is not there is not measured yet."""
    append(tmp_path / "data.jsonl", [
        row("a", "convgen", 20.0), row("a", "torch x", 40.0), row("a", "any batch", 21.0, counts=False), row("a", "matrix products, packed", 15.0, counts=False),
        row("a", tool_name, 50.0, facts={"seconds": 33.3, "trials": 64}), row("b", "convgen", 20.0), row("b", "torch x", 10.0), row("c", "convgen", None), row("c", "torch x", 9.0)])
    page = "".join(f"<!-- bench: {kind} data.jsonl -->\nold\n<!-- bench: end -->\n" for kind in tool.KINDS)
    text = tool.filled(page, tmp_path)
    assert "old" not in text and tool.filled(text, tmp_path) == text
    assert "| fused blocks | 3 | 0.79 | 0.50 | 67% | 0.79 |" in text and "1x 33%" in text and "Failed, counted as 0.5: 1." in text  # groups: 2, 0.5 and a failure
    assert "a machine, 2 threads, warm caches, 2030-01-01." in text
    assert "| `c` | failed | torch x | 9.00 | 0.50 |" in text  # below, rows
    assert "| fused blocks | 1 | 0.50 | 1.25 | -60% | 0.50 | 1.00 |" in text and "| fused blocks | `b` | 0.50 | -60% |" in text and "0 of 1 groups are within 15%" in text  # apart
    assert "| `a` | 20.0 | 40.0 | 15.0 | 80% |" in text  # fused: 20 of the 25 us outside the products
    assert "| net | 4 | 0.04 | 0.02 |" in text  # networks
    assert "| fused blocks | `a` | 20.0 | 33 | 64 | 50.0 | 2.50 | 2.00 |" in text  # tuners
    assert "| `a` | 20.0 | 21.0 | 1.05 |" in text and "1 of 3 within 10 %" in text  # batches
    assert "| fused blocks | 2 | 125% | 50% | 50% | `a` |" in text  # untuned: as if the best peers were the defaults
    assert "Not measured yet." in tool.filled(page, tmp_path / "nowhere")
    with pytest.raises(KeyError):
        tool.made("unknown", tmp_path / "data.jsonl")


def test_what_holds_much_is_listed_with_its_reason(tool, tmp_path):
    record = {"format": 1, "operator": "conv2d", "description": "d", "target": "t", "family": "x86", "space": 1, "choice": {}, "kind": "ok", "median_us": 1.0, "spread_us": 0.0, "repeats": 1, "verified": "E", "threads": 2}
    for name, ratio, why in (("little", 2.9, None), ("much", 3.1, "a copy of x (1.0 MB) lies there")):
        records.append(tmp_path / "logs" / "x86.jsonl", record | {"workload": name, "memory": {"border": 1, "scratch": 2, "ratio": ratio, "why": why}})
    text = tool.filled("<!-- bench: held logs -->\nold\n<!-- bench: end -->\n", tmp_path)
    assert "1 of 2 records hold at most 3 times" in text and "| `much` | 2 | 3.10 | a copy of x (1.0 MB) lies there |" in text and "little" not in text
