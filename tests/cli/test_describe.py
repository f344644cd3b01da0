"""`ops` and `show`."""

import json

import convgen

ID = "conv2d:n1,c8,o4,h9,w7,k3x3;padding=1:f32.f32.f32:nhwc:act=relu,bias"


def test_ops_lists_the_catalogue(run):
    listed = json.loads(run("ops", "--json").out)
    assert [row["name"] for row in listed] == convgen.operators()
    assert all(row["summary"] for row in listed)


def test_ops_takes_a_pattern(run):
    names = [line.split()[0] for line in run("ops", "transpose").out.splitlines()]
    assert {"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"} <= set(names) and "conv2d" not in names


def test_show_operator(run):
    facts = json.loads(run("show", "conv2d", "--json").out)
    assert facts["name"] == "conv2d" and facts["attributes"]["groups"] == 1 and "C" in facts["dims"] and facts["workloads"]
    text = run("show", "conv2d").out
    assert "sum_{c, kh, kw}" in text and "published shapes:" in text


def test_show_workload_by_words_and_by_id_agree(run):
    words = ["N=1", "C=8", "O=4", "H=9", "W=7", "k=3x3", "padding=1", "bias=true", "activation=relu", "layout=NHWC"]
    by_words = run("show", "conv2d", *words, "--json")
    assert json.loads(by_words.out)["id"] == ID
    assert run("show", ID, "--json").out == by_words.out
    tensors = {t["name"]: t["shape"] for t in json.loads(by_words.out)["tensors"]}
    assert tensors == {"x": [1, 8, 9, 7], "weight": [4, 8, 3, 3], "bias": [4], "out": [1, 4, 9, 7]}
    assert "FLOP/B" in run("show", ID).out


def test_unknown_operator_offers_the_nearest(run):
    result = run("show", "conv2")
    assert result.code == 2 and "unknown operator 'conv2': did you mean conv2d" in result.err


def test_own_operator_by_file(run, own):
    facts = json.loads(run("show", own, "--json").out)
    assert (facts["name"], facts["baseline"]) == ("my_blur2d", False)
    result = run("show", own, "N=1", "C=3", "H=8", "W=8", "k=3", "padding=1", "--json")
    assert json.loads(result.out)["id"].startswith("my_blur2d@")
