"""Real contestants prepared in this process: right outputs for every kind of workload, inputs with canonical strides."""

import importlib.util

import numpy as np
import pytest

import convgen
from convgen.bench import case as cases
from convgen.bench.contestants import LAYER, PEERS, offered
from convgen.bench.worker import TOLERANCE, difference
from convgen.errors import WorkerError
from convgen.ops import table

torch = pytest.importorskip("torch")
from convgen.bench.peers import torch as torch_peers  # noqa: E402

PLAIN = [
    "conv2d:n1,c8,o16,h9,w7,k3x3;stride=2,padding=0_1x1_0:f32.f32.f32:nchw:act=relu6,bias",
    "conv2d:n1,c8,o8,h8,w8,k3x3;padding=2,dilation=2,groups=2:f32.f32.f32:nhwc:act=relu",
    "conv1d:n2,c8,o4,l9,k3;padding=1:f32.f32.f32:ncl:bias",
    "conv3d:n1,c4,o4,d3,h5,w4,k3x3x3;padding=1:f32.f32.f32:ndhwc:act=gelu",
    "conv_transpose2d:n1,c8,o4,h5,w4,k4x4;stride=2,padding=1,output_padding=1,groups=2:f32.f32.f32:nhwc:bias,bn",
    "depthwise_conv2d:n1,c8,m2,h7,w6,k5x5;padding=2:f32.f32.f32:nchw:act=silu,bias",
    "depthwise_conv2d:n1,c8,h7,w6,k5x5;padding=2:f32.f32.f32:nhwc:bn",
    "dilated_reparam_conv2d:n1,c8,h9,w8,k7x7:f32.f32.f32:nchw:bias",
]
OTHERS = [
    "involution2d:n1,c8,g2,h7,w6,k3x3;padding=1:f32.f32.f32:nhwc",
    "condconv2d:n3,c8,o8,e4,h6,w5,k3x3;padding=1,groups=8:f32.f32.f32:nchw",
    "deform_conv2d:n1,c8,o4,h7,w6,k3x3;padding=1:f32.f32.f32:nchw:act=leaky_relu,bias,bn,gate,mask,residual",
    "dynamic_conv1d:n2,c8,heads2,l9,k3:f32.f32.f32:nlc",
]


@pytest.fixture
def case(tmp_path):
    return lambda id: cases.make(convgen.workload(id), 1, tmp_path)


def check(case, ready):
    expected = np.asarray(case.workload.reference(**case.tensors))
    assert difference(ready.result(ready.call()), expected) < TOLERANCE["float32"]
    return ready


@pytest.mark.parametrize("id", PLAIN + OTHERS)
def test_eager_formulations(case, id):
    case = case(id)
    forms = [*case.workload.op.formulations, *([LAYER] if id in PLAIN else [])]
    for contestant in offered(case.workload, ["torch"]):
        with torch.inference_mode():
            check(case, torch_peers.eager(case, **contestant.options))
    assert {c.options["form"] for c in offered(case.workload, ["torch"])} == set(forms)


@pytest.mark.parametrize("library", ["onnxruntime", "openvino", "ncnn"])
def test_libraries(stage, tmp_path, library):
    """Each in its process, as in a race: some of them take over signals and threads of the process they are in."""
    if any(importlib.util.find_spec(name) is None for name in (library, "onnx")):
        pytest.skip(f"{library} is not installed")
    served = 0
    for id in PLAIN + OTHERS:
        workload, expected = convgen.workload(id), str(tmp_path / "expected.npy")
        stage.ask("referee", 240, "reference", workload=id, path=expected)
        for contestant in offered(workload, [library]):
            try:
                stage.ask(library, 240, "build", key="one", peer=contestant.peer, options=contestant.options, workload=id)
            except WorkerError as problem:
                assert problem.kind == "absent" and str(problem) and (id in OTHERS or library == "ncnn"), f"{id}: {problem}"
                continue
            assert stage.ask(library, 240, "check", key="one", expected=expected, dtype=workload.out_dtype)["error"] < TOLERANCE["float32"]
            served += 1
    stage.end(library)
    assert served >= (10 if library != "ncnn" else 5)


def test_free_conversions_do_not_count():
    """A library that only knows NCHW gets NHWC memory in an NHWC case; given NCHW for free it is shown only."""
    for peer in offered(convgen.workload(PLAIN[6]), ["onnxruntime", "openvino", "ncnn"]):
        assert peer.counts == ("given NCHW" not in peer.name) == (not peer.options.get("own"))


def test_via_the_other_format(case):
    """x is converted inside the call, and the result comes back in the case's format."""
    made = case(PLAIN[5])
    seen = []

    class Spy(torch.nn.Module):
        def forward(self, x):
            seen.append(x.is_contiguous(memory_format=torch.channels_last))
            return x
    y = torch_peers._converted(made, Spy(), True)(made.tensors["x"])
    assert seen == [True] and y.is_contiguous()


@pytest.mark.parametrize("id", ["conv2d:n1,c1,o4,h6,w5,k3x3:f32.f32.f32:nhwc", "conv2d:n1,c8,o4,h6,w5,k3x3:f32.f32.f32:nhwc",
                                "conv2d:n2,c8,o4,h1,w1,k1x1:f32.f32.f32:nhwc", "conv3d:n1,c4,o4,d3,h5,w4,k3x3x3:f32.f32.f32:ndhwc"])
def test_channels_last_inputs_are_canonical(case, id):
    x = case(id).tensors["x"]
    last = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
    assert x.stride() == torch.empty(x.shape, memory_format=last).stride() and x.storage_offset() == 0 and x.data_ptr() % 64 == 0


def test_permuted_strides_are_repaired():
    x = torch.arange(24.0).reshape(1, 2, 3, 4).permute(0, 3, 1, 2)  # its batch stride is that of another shape
    x = x.as_strided(x.shape, (7, *x.stride()[1:]))
    y = cases.canonical(x, (0, 2, 3, 1))
    assert torch.equal(x, y) and y.stride() == torch.empty(x.shape, memory_format=torch.channels_last).stride()


def test_contestants_of_every_published_workload():
    for name in table.names():
        for w in table.get(name).workloads():
            field = offered(w)
            names = [c.name for c in field]
            assert len(set(names)) == len(names) and {c.process for c in field} <= {"torch", "compile", "compile frozen", "onnxruntime", "openvino", "ncnn"}
            assert any(c.peer.endswith(":compiled") for c in field)
            params = any(t.kind == "param" for t in w.program.tensors)
            assert params == any(c.options.get("frozen") for c in field)
            assert {g for g in PEERS} == {c.process.split()[0] for c in field}


@pytest.mark.slow
@pytest.mark.parametrize("id", [PLAIN[6], OTHERS[1]])
def test_compiled_formulations(case, id):
    made = case(id)
    for contestant in offered(made.workload, ["compile"]):
        with torch.inference_mode():
            check(made, torch_peers.compiled(made, **contestant.options))
