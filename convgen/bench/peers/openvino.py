"""OpenVINO's CPU plugin, float32, tuned for latency."""

from __future__ import annotations

import numpy as np

from ..case import Case, NotOffered, Ready
from .onnx_model import build, logical


def request(case: Case, own: bool = False) -> Ready:
    """An infer request over the convolution as an ONNX model. own: NCHW input although the case is NHWC."""
    try:
        import openvino as ov
    except ImportError:
        raise NotOffered("openvino is not installed") from None
    model, x, last = build(case, own)
    core = ov.Core()
    # Without the hint it may compute in bfloat16 where the processor can.
    settings = {"INFERENCE_NUM_THREADS": case.threads, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1", "INFERENCE_PRECISION_HINT": "f32"}
    infer = core.compile_model(core.read_model(model, b""), "CPU", settings).create_infer_request()
    infer.set_input_tensor(ov.Tensor(x))  # a copy in its own memory

    def call():
        infer.infer(None, share_inputs=True, share_outputs=True)
    return Ready(call, lambda _: logical(np.array(infer.get_output_tensor().data), last), output="own")
