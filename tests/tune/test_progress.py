"""What a terminal and a log file show of a run."""

import io

from convgen.tune.progress import Progress
from convgen.tune.result import Row, TuneResult

TRIAL = {"event": "trial", "workload": "conv2d:n1", "trial": 3, "trials": 20, "best_us": 123.456, "torch_us": 246.9, "failures": {"wrong": 1, "crash": 2},
         "seconds": 4.0, "seconds_left": 56.2}
ROW = {"event": "row", "row": Row("conv2d:n1", us=100.0, spread=2.0, default_ratio=1.5, baseline_ratio=2.0)}


def test_without_terminal_a_plain_line_every_ten_seconds():
    now, stream = [0.0], io.StringIO()
    show = Progress(stream, clock=lambda: now[0])
    show({"event": "store", "path": "/logs"})
    for step in range(25):
        now[0] = float(step)
        show(TRIAL)
    show(ROW)
    show({"event": "done"})
    lines = stream.getvalue().splitlines()
    assert lines[0] == "records: /logs" and len(lines) == 5 and lines[1] == lines[2] == lines[3]
    assert lines[1] == "conv2d:n1  trial 3/20  best 123.5 µs  2.00x torch  failed: 2 crash, 1 wrong  56 s left"
    assert lines[4] == "conv2d:n1  100 µs ± 2  1.50x default  2.00x torch"
    assert "\x1b" not in stream.getvalue() and "\r" not in stream.getvalue()


def test_on_a_terminal_one_line_is_updated():
    stream = io.StringIO()
    with Progress(stream, tty=True) as show:
        show(TRIAL)
        show({**TRIAL, "trial": 4, "best_us": None, "failures": {}, "trials": None, "seconds_left": None})
    text = stream.getvalue()
    assert text.count("\r\x1b[2K") == 2 and text.count("\n") == 1 and text.endswith("\n")
    assert "trial 4  no result yet" in text


def test_memory_only_and_missing_results():
    stream = io.StringIO()
    show = Progress(stream, tty=False)
    show({"event": "store", "path": None})
    show({"event": "row", "row": Row("conv2d:n1", note="given up: 32 of 32 failed")})
    assert stream.getvalue().splitlines() == ["records: memory only", "conv2d:n1  given up: 32 of 32 failed"]


def test_result_prints_as_a_table_and_as_json():
    result = TuneResult([ROW["row"], Row("x", note="interrupted before it began")], interrupted=True, store="/logs")
    lines = str(result).splitlines()
    assert lines[1].split() == ["conv2d:n1", "100", "2", "2.00x", "1.50x", "0", "-"] and "n/a" in lines[2]
    assert lines[3] == "x: interrupted before it began" and "same call continues" in lines[4]
    assert result.to_json()["rows"][0]["us"] == 100.0
