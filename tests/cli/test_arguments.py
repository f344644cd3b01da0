"""Workloads as words, ids and files."""

from argparse import Namespace

import pytest

import convgen
from convgen.cli import arguments
from convgen.errors import ArgumentError

CONV = ["N=1", "C=8", "O=4", "H=9", "W=7"]
ID = "conv2d:n1,c8,o4,h9,w7,k3x3:f32.f32.f32:nchw"


def cases(*words, file=(), operator=(), required=True):
    return arguments.cases(Namespace(words=list(words), file=list(file), operator=list(operator), workloads_required=required))


def ids(*words, **options):
    return [case.workload.id for case in cases(*words, **options)]


@pytest.mark.parametrize("words, expected", [
    (["k=3x3"], ID),
    (["kernel=3"], ID),
    (["KH=3", "KW=3"], ID),
    (["k=3,3"], ID),
    (["k=3", "padding=same"], "conv2d:n1,c8,o4,h9,w7,k3x3;padding=1:f32.f32.f32:nchw"),
    (["k=3", "padding=1,1"], "conv2d:n1,c8,o4,h9,w7,k3x3;padding=1:f32.f32.f32:nchw"),
    (["k=3", "padding=0_1x2_1"], "conv2d:n1,c8,o4,h9,w7,k3x3;padding=0_1x2_1:f32.f32.f32:nchw"),
    (["k=3", "stride=2x1", "groups=2", "dtype=bfloat16"], "conv2d:n1,c8,o4,h9,w7,k3x3;stride=2x1,groups=2:bf16.f32.bf16:nchw"),
    (["k=3", "layout=channels_last", "bias=true"], "conv2d:n1,c8,o4,h9,w7,k3x3:f32.f32.f32:nhwc:bias"),
    (["k=3", "bias=false"], ID),
])
def test_words(words, expected):
    assert ids("conv2d", *CONV, *words) == [expected]


def test_any_batch():
    (case,) = cases("conv2d", "N=8+", *CONV[1:], "k=3")
    assert case.workload.id.startswith("conv2d:n8+,c8")


@pytest.mark.parametrize("words, message", [
    (["conv2d", "C=x"], "^conv2d: C must be a number, got 'x'$"),
    (["conv2d", *CONV, "k=3", "groups=two"], "^conv2d: groups must be an integer, got 'two'$"),
    (["conv2d", *CONV, "k=3", "stride=a"], "^conv2d: stride must be numbers like 3 or 3x3, got 'a'$"),
    (["conv2d", *CONV, "k=3", "bias=maybe"], "^conv2d: bias must be true or false, got 'maybe'$"),
    (["conv2d", *CONV, "k=3", "k=5"], "^conv2d: kernel is given twice$"),
    (["conv2d", *CONV, "k=3", "speed=9"], "^conv2d: unknown argument 'speed'"),
    (["conv2d", "N=1"], "^conv2d: dimensions C, O, .* missing"),
    (["N=1", "conv2d"], "^'N=1' stands before any operator"),
    ([], "^no workload given"),
    (["conv2d:n1:f32:nchw:"], "^workload id"),
])
def test_mistakes_are_named(words, message):
    with pytest.raises(ArgumentError, match=message):
        cases(*words)


def test_none_may_be_optional():
    assert cases(required=False) == []


def test_several_workloads_in_one_line():
    assert ids(ID, "conv2d", *CONV, "k=3", "conv2d", *CONV, "k=1", ID) == [ID, ID, ID.replace("k3x3", "k1x1"), ID]


def test_an_operator_alone_stands_for_its_published_shapes():
    assert ids("conv2d") == [w.id for w in convgen.operator("conv2d").workloads()]


def test_files_keep_layer_names_and_counts(tmp_path):
    file = tmp_path / "net.txt"
    file.write_text(f"# a network\n\n{ID}  # layer1.0.conv1 x12\n{ID} # head\n{ID}\n{ID}  # x3\n")
    assert [(c.name, c.count) for c in cases(file=[file])] == [("layer1.0.conv1", 12), ("head", 1), (None, 1), (None, 3)]


def test_a_wrong_line_of_a_file_is_named(tmp_path):
    file = tmp_path / "net.txt"
    file.write_text(f"{ID}\nconv2d:n1,z9:f32.f32.f32:nchw\n")
    with pytest.raises(ArgumentError, match="net.txt, line 2: .*conv2d has no dimension Z"):
        cases(file=[file])


def test_ids_of_own_operators_need_their_operator(own):
    (case,) = cases(own, "N=1", "C=3", "H=8", "W=8", "k=3")
    assert ids(case.workload.id, operator=[own]) == [case.workload.id]
    with pytest.raises(ArgumentError, match="unknown operator 'my_blur2d'"):
        cases(case.workload.id)
