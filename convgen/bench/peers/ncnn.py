"""ncnn, from a model written as its text format."""

from __future__ import annotations

import numpy as np

from ..case import Case, NotOffered, Ready
from .onnx_model import array, given, logical

_ACTIVATIONS = {None: "", "relu": " 9=1", "relu6": " 9=3 -23310=2,0.0,6.0", "sigmoid": " 9=4"}
_TO_CHANNELS_FIRST, _TO_CHANNELS_LAST = 4, 3  # order types of ncnn's Permute layer


def network(case: Case, own: bool = False) -> Ready:
    """A network of one convolution. own: NCHW input although the case is NHWC."""
    try:
        import ncnn
    except ImportError:
        raise NotOffered("ncnn is not installed") from None
    c, w = case.convolution(), case.workload
    name = w.attributes.get("activation") if w.op.epilogue else None
    if list(case.inputs) != ["x"] or name not in _ACTIVATIONS:
        raise NotOffered("its models hold a convolution, a bias and relu, relu6 or sigmoid")
    if c["weight"].ndim != 4 or c["transposed"]:
        raise NotOffered("its models are 2-D convolutions here")
    x, last = given(case, own)
    if x.shape[0] != 1:
        raise NotOffered("it takes one sample at a time")
    text, weights = case.folder / "model.param", case.folder / "model.bin"
    text.write_text(_text(c, _ACTIVATIONS[name], last))
    tag = np.zeros(1, np.uint32).tobytes()  # "what follows is float32"
    weights.write_bytes(tag + array(c["weight"]).tobytes() + (array(c["bias"]).tobytes() if c["bias"] is not None else b""))
    net = ncnn.Net()
    net.opt.num_threads = case.threads
    for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage", "use_bf16_packed", "use_vulkan_compute"):
        if hasattr(net.opt, option):
            setattr(net.opt, option, False)
    if net.load_param(str(text)) or net.load_model(str(weights)):
        raise RuntimeError("ncnn cannot load its model")
    image = ncnn.Mat(x[0]).clone()  # its own allocation, aligned as it likes

    def call():
        run = net.create_extractor()
        run.input("x", image)
        return run.extract("y")[1]
    return Ready(call, lambda y: logical(np.array(y)[None], last))


def _text(c: dict, activation: str, last: bool) -> str:
    """The .param file: blobs x, (a,) (b,) y."""
    o, _, kh, kw = c["weight"].shape
    (top, bottom), (left, right) = c["padding"]
    settings = (f"0={o} 1={kw} 11={kh} 2={c['dilation'][1]} 12={c['dilation'][0]} 3={c['stride'][1]} 13={c['stride'][0]} "
                f"4={left} 15={right} 14={top} 16={bottom} 5={int(c['bias'] is not None)} 6={c['weight'].numel()}{activation}")
    kind, groups = ("ConvolutionDepthWise", f" 7={c['groups']}") if c["groups"] > 1 else ("Convolution", "")
    source, target = ("a", "b") if last else ("x", "y")
    layers = ["Input x 0 1 x"]
    layers += [f"Permute first 1 1 x a 0={_TO_CHANNELS_FIRST}"] if last else []
    layers.append(f"{kind} conv 1 1 {source} {target} {settings}{groups}")
    layers += [f"Permute second 1 1 b y 0={_TO_CHANNELS_LAST}"] if last else []
    return "\n".join(["7767517", f"{len(layers)} {len(layers)}", *layers, ""])
