"""onnxruntime's CPU provider."""

from __future__ import annotations

from ..case import Case, NotOffered, Ready
from .onnx_model import build, logical


def session(case: Case, own: bool = False) -> Ready:
    """A session over the convolution as an ONNX model. own: NCHW input although the case is NHWC."""
    try:
        import onnxruntime as ort
    except ImportError:
        raise NotOffered("onnxruntime is not installed") from None
    model, x, last = build(case, own)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = case.threads, 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    run = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    binding = run.io_binding()
    binding.bind_ortvalue_input("x", ort.OrtValue.ortvalue_from_numpy(x))

    def call():
        binding.bind_output("y", "cpu")  # a new output each time; a binding would keep writing into the first one
        run.run_with_iobinding(binding)
        return binding
    return Ready(call, lambda b: logical(b.copy_outputs_to_cpu()[0], last))
