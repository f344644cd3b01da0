"""Workloads of networks: each traced workload must describe exactly what the layer computed."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from convgen.torch import workloads  # noqa: E402

LAYERS = [
    (nn.Conv1d(4, 6, 3, padding=1), (2, 4, 9)),
    (nn.Conv1d(4, 4, 3, groups=2, bias=False), (2, 4, 9)),
    (nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2)), (1, 4, 9, 8)),
    (nn.Conv2d(4, 6, 3, padding="same"), (1, 4, 7, 8)),
    (nn.Conv2d(4, 6, 4, padding="same"), (1, 4, 7, 8)),
    (nn.Conv2d(4, 6, 3, padding="valid", bias=False), (1, 4, 7, 8)),
    (nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), (1, 4, 7, 8)),
    (nn.Conv2d(4, 6, 3, padding=(2, 1), padding_mode="circular"), (1, 4, 7, 8)),
    (nn.Conv2d(6, 4, 3, groups=2), (1, 6, 5, 5)),
    (nn.Conv2d(6, 6, 3, groups=6, padding=1), (1, 6, 5, 5)),
    (nn.Conv2d(6, 12, 3, groups=6, padding=1, stride=2), (1, 6, 5, 5)),
    (nn.Conv3d(2, 3, 3, padding=1), (1, 2, 4, 5, 6)),
    (nn.ConvTranspose1d(4, 3, 3, stride=2), (1, 4, 5)),
    (nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2), (1, 4, 5, 6)),
    (nn.ConvTranspose2d(4, 3, (3, 2), dilation=2, bias=False), (1, 4, 5, 6)),
    (nn.ConvTranspose3d(2, 3, 2, stride=2), (1, 2, 3, 3, 3)),
]


def name(layer):
    text = str(layer).replace(" ", "")
    return text.replace("kernel_size=", "k").replace("Conv", "")


@pytest.mark.parametrize("layer, shape", LAYERS, ids=[name(layer) for layer, _ in LAYERS])
def test_the_workload_computes_what_the_layer_computes(layer, shape):
    torch.manual_seed(0)
    layer = layer.double()
    x = torch.randn(shape).double()  # values that float32 holds, so that both sides read the same
    with torch.no_grad():
        expected = layer(x).numpy()
    found = workloads(nn.Sequential(layer.float()), x.float())
    assert found.skipped == {}
    (w,) = found.values()
    tensors = {"x": x, "weight": layer.double().weight.detach()}
    if layer.bias is not None:
        tensors["bias"] = layer.bias.detach()
    assert set(tensors) == {t.name for t in w.program.tensors}
    result = np.asarray(w.reference(**tensors))
    assert result.shape == expected.shape
    np.testing.assert_allclose(result, expected, rtol=1e-10, atol=1e-10)


def test_depthwise_is_recognised():
    layers = nn.Sequential(nn.Conv2d(6, 6, 3, groups=6), nn.Conv2d(6, 12, 3, groups=6), nn.Conv2d(12, 6, 1, groups=6), nn.Conv2d(6, 3, 1))
    found = workloads(layers, torch.zeros(1, 6, 9, 9))
    assert [w.operator for w in found.values()] == ["depthwise_conv2d", "depthwise_conv2d", "conv2d", "conv2d"]
    assert [w.dims.get("M") for w in found.values()][:2] == [1, 2]


class Net(nn.Module):
    """Two stages, a shared head at two sizes, a layer nobody calls, one that takes no batch."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.body = nn.Sequential(nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.ReLU())
        self.head = nn.Conv2d(8, 4, 1)
        self.unused = nn.Conv2d(8, 4, 1)
        self.flat = nn.Conv1d(8, 2, 1)

    def forward(self, x):
        x = self.body(self.stem(x))
        y = self.head(x), self.head(x), self.head(x[:, :, ::2, ::2])
        return y, self.flat(x[0, :, 0])


def test_paths_calls_and_reasons():
    found = workloads(Net(), torch.zeros(1, 3, 16, 16))
    assert list(found) == ["stem", "body.1", "head", "head#2"]
    assert found.calls == {"stem": 1, "body.1": 1, "head": 2, "head#2": 1}
    assert found["stem"].id == "conv2d:n1,c3,o8,h16,w16,k3x3;stride=2,padding=1:f32.f32.f32:nchw:bias"
    assert (found["head"].dims["H"], found["head#2"].dims["H"]) == (8, 4)
    assert set(found.skipped) == {"unused", "flat"}
    assert "not called" in found.skipped["unused"] and "without a batch axis" in found.skipped["flat"]


def test_the_network_is_left_as_it_was():
    net = Net().train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    workloads(net, torch.randn(1, 3, 16, 16))
    assert all(module.training for module in net.modules())
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules())


def test_hooks_and_modes_are_restored_when_the_network_fails():
    net = Net()
    with pytest.raises(RuntimeError):
        workloads(net, torch.zeros(1, 5, 16, 16))
    assert net.training and not any(module._forward_hooks for module in net.modules())


def test_layout_follows_the_input_that_reaches_the_layer():
    net = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Conv2d(8, 8, 3)).to(memory_format=torch.channels_last)
    x = torch.zeros(1, 4, 12, 12)
    last = workloads(net, x.contiguous(memory_format=torch.channels_last))
    assert {w.layout for w in last.values()} == {"channels_last"}
    assert workloads(nn.Sequential(nn.Conv2d(4, 8, 3)), x)["0"].layout == "channels_first"
    assert workloads(nn.Conv2d(1, 8, 3), torch.zeros(1, 1, 12, 12).contiguous(memory_format=torch.channels_last))[""].layout == "channels_first"


def test_dtype_follows_the_layer():
    found = workloads(nn.Conv2d(4, 8, 3).bfloat16(), torch.zeros(1, 4, 9, 9, dtype=torch.bfloat16))
    assert found[""].dtype == "bfloat16"


def test_what_no_operator_covers_is_stated_with_the_reason():
    class Output(nn.Module):
        def __init__(self):
            super().__init__()
            self.wide = nn.Conv2d(3, 4, 3).double()
            self.depthwise = nn.Conv3d(3, 3, 3, groups=3)
            self.up = nn.ConvTranspose2d(3, 3, 3, stride=2)

        def forward(self, x):
            return self.wide(x.double()), self.depthwise(x[:, :, None].expand(-1, -1, 5, -1, -1)), self.up(x, output_size=(18, 18))

    found = workloads(Output(), torch.zeros(1, 3, 8, 8))
    assert found["up"].attributes["output_padding"] == (1, 1)
    assert "float64" in found.skipped["wide"]
    assert found.skipped.get("depthwise") == "the catalogue has no depthwise_conv3d"
