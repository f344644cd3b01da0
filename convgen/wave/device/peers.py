"""PyTorch as a contestant, where the device happens to have it and the workload is an ordinary convolution."""

from __future__ import annotations

import ctypes
import math
import os

from ...tune.timing import sample
from .check import exact
from .work import Trial, Wave, interleaved, middle


def torch_of():
    """The module torch, or None."""
    try:
        import torch
    except ImportError:
        return None
    return torch


def tensors_of(torch, trial: Trial, device: str) -> dict:
    """The realistic case's tensors, with the strides that our kernel's memory order has."""
    data = trial.wave.inputs(trial.candidate["workload"], trial.realistic())
    found = {}
    for name, facts in trial.workload["tensors"].items():
        flat, order = torch.frombuffer(bytearray(data[name]), dtype=getattr(torch, facts["dtype"])), facts["perm"]
        found[name] = flat.reshape(facts["shape"]).permute([order.index(d) for d in range(len(order))]).to(device)
    return found


def formulation(torch, facts: dict, tensors: dict):
    """What people write in PyTorch for this workload, as a function without arguments."""
    x, weight, bias = tensors["x"], tensors[facts["weight"]], tensors.get(facts["bias"])
    functional = torch.nn.functional
    function = getattr(functional, ("conv_transpose%dd" if facts["transposed"] else "conv%dd") % (x.ndim - 2))
    more = {"output_padding": facts["output_padding"]} if facts["transposed"] else {}
    activation = getattr(functional, facts["activation"]) if facts["activation"] else None

    def call():
        y = function(x, weight, bias, stride=facts["stride"], padding=facts["padding"], dilation=facts["dilation"], groups=facts["groups"], **more)
        return activation(y) if activation else y

    return call


def judged(torch, trial: Trial, y) -> float:
    """Relative L2 error of a contestant's result over the bound that candidates of the norm oracle have."""
    y = y.permute(trial.workload["output"]["perm"]).contiguous().cpu()
    return distance(trial, ctypes.string_at(y.data_ptr(), y.numel() * y.element_size()))


def distance(trial: Trial, data: bytes) -> float:
    """The same of an output's storage; an integer result is right (0) or not."""
    case = trial.realistic()
    if case["letter"] == "E":
        return math.inf if exact(data, case) else 0.0
    return trial.wave.reference(case).compare(data, True)[0]


def contestants(torch, facts: dict, tensors: dict, cuda: bool) -> dict:
    """{name: (call, settings)}: eager as given, in the other memory format, with and without TF32."""
    formats = {"": lambda t: t, "channels_last": lambda t: t.to(memory_format=torch.channels_last) if t.ndim == 4 else t}
    found = {}
    for name, change in formats.items():
        changed = {key: change(tensor) for key, tensor in tensors.items()}
        call = formulation(torch, facts, changed)
        for tf32 in ((False, True) if cuda and tensors["x"].dtype == torch.float32 else (False,)):
            found[" ".join(w for w in ("eager", name, "tf32" if tf32 else "") if w)] = (call, tf32)
    return found


def race_torch(device, wave: Wave, identities: list, budget: float, rounds: int) -> dict:
    """Ours (the first id) against PyTorch, interleaved; {"skipped": why} where there is nothing to race.

    `ratios` says how far each contestant's result is from the reference (as `judged`); one that computes something else, or fails, stands in `errors`.
    """
    torch = torch_of()
    trial = Trial(device, wave, wave.candidates[identities[0]])
    facts = trial.workload["torch"]
    cuda = wave.manifest["target"]["family"] == "cuda"
    if torch is None or facts is None:
        return {"skipped": "PyTorch is not installed" if torch is None else "the workload is no ordinary convolution"}
    if cuda and not torch.cuda.is_available():
        return {"skipped": "this PyTorch does not see the card"}
    if not cuda:
        torch.set_num_threads(device.facts()["threads"])
        device.join_pool(os.path.dirname(torch.__file__))
    torch.backends.cudnn.benchmark = True
    with torch.inference_mode():
        tensors = tensors_of(torch, trial, "cuda" if cuda else "cpu")
        field = contestants(torch, facts, tensors, cuda)
        names, calls, takes, errors, ratios = ["ours"], [trial.ready()], [device.take or sample], {}, {}
        for name, (call, tf32) in field.items():
            setting = switch(torch, call, tf32)
            try:
                ratios[name] = round(judged(torch, trial, setting()), 4)
                if ratios[name] > 1 and not tf32:
                    raise RuntimeError("its result is wrong by %.3g times the bound" % ratios[name])
            except RuntimeError as error:  # a contestant that fails is reported, not dropped
                errors[name] = str(error).splitlines()[0]
                continue
            names.append(name)
            calls.append(setting)
            takes.append(card_time(torch) if cuda else sample)
        rows = interleaved(calls, takes, budget, rounds)
    return {"names": names, **rows, "errors": errors, "ratios": ratios, "torch": torch.__version__, "median_us": [middle(row) for row in rows["median"]]}


def switch(torch, call, tf32: bool):
    """The call with TF32 allowed or not in convolutions and products."""
    def switched():
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
        return call()

    return switched


def card_time(torch):
    """A `take` by events on torch's own stream."""
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)

    def take(call, calls, before=None):
        if before:
            before()
        begin.record()
        for _ in range(calls):
            call()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) * 1e-3 / calls

    return take
