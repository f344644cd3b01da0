"""An ordinary convolution as an ONNX model, for the runtimes that read it."""

from __future__ import annotations

import numpy as np

from ...lang.sampling import to_numpy
from ..case import Case, NotOffered

_ACTIVATIONS = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "hardswish": "HardSwish", "gelu": "Gelu", "leaky_relu": "LeakyRelu"}


def array(v) -> np.ndarray:
    """Compact logical values of a torch tensor."""
    return np.ascontiguousarray(to_numpy(v))


def given(case: Case, own: bool) -> tuple[np.ndarray, bool]:
    """(x as the model takes it, whether the model transposes it). An NHWC case is given as NHWC memory unless `own` asks for NCHW."""
    if case.workload.dtype != "float32" or case.workload.out_dtype != "float32":
        raise NotOffered("its models are float32 here")
    x = array(case.tensors["x"])
    last = case.workload.layout == "channels_last" and not own
    return (np.ascontiguousarray(np.moveaxis(x, 1, -1)), True) if last else (x, False)


def build(case: Case, own: bool = False) -> tuple[bytes, np.ndarray, bool]:
    """(model, input array, whether input and output are channels last). Raises NotOffered for what is no ordinary convolution."""
    c = case.convolution()
    if list(case.inputs) != ["x"]:
        raise NotOffered("it has a residual or a gate, which these models have not")
    try:
        import onnx
        from onnx import TensorProto, helper, numpy_helper
    except ImportError:
        raise NotOffered("the package onnx is not installed") from None
    x, last = given(case, own)
    rank = x.ndim - 2
    weights = [numpy_helper.from_array(array(c["weight"]), "w")]
    names = ["x1" if last else "x", "w"]
    if c["bias"] is not None:
        weights.append(numpy_helper.from_array(array(c["bias"]), "b"))
        names.append("b")
    nodes = [helper.make_node("Transpose", ["x"], ["x1"], perm=[0, rank + 1, *range(1, rank + 1)])] if last else []
    facts = {"kernel_shape": list(c["weight"].shape[2:]), "strides": list(c["stride"]), "dilations": list(c["dilation"]), "group": c["groups"],
             "pads": [lo for lo, _ in c["padding"]] + [hi for _, hi in c["padding"]]}
    if c["transposed"]:
        facts["output_padding"] = list(c["output_padding"])
    nodes.append(helper.make_node("ConvTranspose" if c["transposed"] else "Conv", names, ["v0"], **facts))
    value = _activation(case, nodes, weights, "v0")
    if last:
        nodes.append(helper.make_node("Transpose", [value], ["y"], perm=[0, *range(2, rank + 2), 1]))
    else:
        nodes.append(helper.make_node("Identity", [value], ["y"]))
    shape = list(case.workload.program.output.shape)
    out = [shape[0], *shape[2:], shape[1]] if last else shape
    graph = helper.make_graph(nodes, "convolution", [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString(), x, last


def _activation(case: Case, nodes: list, weights: list, value: str) -> str:
    from onnx import helper, numpy_helper
    name = case.workload.attributes.get("activation") if case.workload.op.epilogue else None
    if not name:
        return value
    if name == "relu6":
        weights += [numpy_helper.from_array(np.float32(v), n) for n, v in (("low", 0), ("high", 6))]
        nodes.append(helper.make_node("Clip", [value, "low", "high"], ["v1"]))
    elif name == "silu":
        nodes += [helper.make_node("Sigmoid", [value], ["gate"]), helper.make_node("Mul", [value, "gate"], ["v1"])]
    elif name in _ACTIVATIONS:
        nodes.append(helper.make_node(_ACTIVATIONS[name], [value], ["v1"]))
    else:
        raise NotOffered(f"its models have no activation {name}")
    return "v1"


def logical(y: np.ndarray, last: bool) -> np.ndarray:
    """The model's output in channels-first order."""
    return np.moveaxis(y, -1, 1) if last else y
