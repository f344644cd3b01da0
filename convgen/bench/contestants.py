"""Who takes part in the race for a workload."""

from __future__ import annotations

from dataclasses import dataclass, field

from .groups import FUSED, group
from .products import products

OURS = "convgen"
LAYER = "layer"  # the formulation that is a layer of torch.nn; see peers/torch.py

# Libraries that know ordinary convolutions only: (name, function).
_LIBRARIES = (("onnxruntime", "convgen.bench.peers.onnxruntime:session"), ("openvino", "convgen.bench.peers.openvino:request"),
              ("ncnn", "convgen.bench.peers.ncnn:network"))
PEERS = ("torch", "compile", *(name for name, _ in _LIBRARIES))
PRODUCTS = "matrix products"  # prefix of those that compute a fused block's plain products only; never a peer
PRODUCT_WAYS = ("rows first", "columns first", "packed")
METASCHEDULE, METASCHEDULE_NAME = "metaschedule", "TVM MetaSchedule"
OPTIONAL = (METASCHEDULE,)  # take part where asked for; being tuners as convgen is, they are shown only unless asked to count
TUNING_SECONDS = 60.0  # of search for a workload, where convgen's own search is not known


@dataclass(frozen=True)
class Contestant:
    """One way to compute a workload.

    name: as reports show it. peer: "module:function" of its code. process: contestants of equal `process` share one, since their thread pool is one.
    counts: whether it may be the best peer; what computes in another memory format than the case's for free is shown only. seconds: it measures that long
    while it is prepared, so that nothing else may run then.
    """

    name: str
    peer: str
    process: str
    options: dict = field(default_factory=dict)
    counts: bool = True
    seconds: float = 0.0

    @property
    def alone(self) -> bool:
        """Whether it must be prepared alone."""
        return self.seconds > 0


def offered(workload, peers=PEERS, counting=(), tuning_seconds: float = TUNING_SECONDS) -> list[Contestant]:
    """All contestants besides convgen, for the groups named in `peers`. counting: those of OPTIONAL that may be the best peer; tuning_seconds: for their search."""
    op = workload.op
    forms = [*op.formulations, *([LAYER] if op.convolution else [])]
    other = "channels_first" if workload.layout == "channels_last" else "channels_last"
    formats = len(workload.program.output.shape) in (4, 5)  # those that PyTorch has a channels_last format for
    found = []
    for form in forms:
        label = {LAYER: "nn layer", "torch": "functional"}.get(form, form)
        if "torch" in peers:
            found.append(Contestant(f"torch {label}", "convgen.bench.peers.torch:eager", "torch", {"form": form}))
            if formats:
                found.append(Contestant(f"torch {label}, via {other}", "convgen.bench.peers.torch:eager", "torch", {"form": form, "other": True}))
        # The layer and the functional call are one graph to a compiler; the layer holds its bias where the compiler expects it.
        if "compile" in peers and (form == LAYER or not op.convolution or form != forms[0]):
            for frozen in (False, True):
                if frozen and not _parameters(workload):
                    continue  # there is nothing to freeze
                name = f"torch.compile {label}" + (", frozen" if frozen else "")
                process = "compile frozen" if frozen else "compile"
                found.append(Contestant(name, "convgen.bench.peers.torch:compiled", process, {"form": form, "frozen": frozen}))
    for name, function in _LIBRARIES:
        if name in peers:
            found.append(Contestant(name, function, name))
            if workload.layout == "channels_last" and formats and op.convolution:
                found.append(Contestant(f"{name}, given NCHW", function, name, {"own": True}, counts=False))
    if "torch" in peers and group(workload) == FUSED and (sizes := products(workload)):
        for way in PRODUCT_WAYS:
            found.append(Contestant(f"{PRODUCTS}, {way}", "convgen.bench.peers.torch:multiplied", "torch", {"sizes": sizes, "way": way}, counts=False))
    if METASCHEDULE in peers:
        found.append(Contestant(METASCHEDULE_NAME, "convgen.bench.peers.metaschedule:tuned", METASCHEDULE, {"seconds": tuning_seconds},
                                METASCHEDULE in counting, tuning_seconds))
    return found


def _parameters(workload) -> bool:
    return any(t.kind == "param" for t in workload.program.tensors)


def ours(library: str, name: str = OURS) -> Contestant:
    """convgen's bound call of an exported one-kernel library; under another name, a kernel to compare with."""
    return Contestant(name, "convgen.bench.peers.convgen:bound", "convgen", {"library": library})
