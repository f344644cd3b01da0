"""One workload's race on a card, `python -m convgen.bench.gpu_race`: our fastest candidate against PyTorch, in a process of its own."""

from __future__ import annotations

from ..errors import WorkerError
from ..tune.cases import NORM_BOUND
from ..tune.timing import quartiles, sample
from ..wave import bundle
from ..wave.device.cuda import CardDevice
from ..wave.device.peers import card_time, distance, judged, switch, tensors_of
from ..wave.device.trouble import Trouble
from ..wave.device.work import Trial, Wave, interleaved
from ..workers.child import serve

COMPILED = "compile max-autotune"


def race(folder: str, candidate: str, compiled: bool, libcuda: str, device: int, budget: float, rounds: int, dry: bool) -> list[dict]:
    """Rows of a bench: contestant, ours, counts, ok, kind, reason; times in µs and the relative L2 error where ok.

    `compiled`: torch.compile alone; else eager in both memory formats, with and without TF32, launched one by one and as a CUDA graph.
    `dry`: PyTorch runs on the processor.
    """
    import torch

    from ..lang import parse

    try:
        card = CardDevice(bundle.read(folder)[1]["target"], device, libcuda)
        wave = Wave(folder, bundle.read(folder)[1])
        trial = Trial(card, wave, wave.candidates[candidate])
        call = trial.ready()
    except Trouble as trouble:
        raise WorkerError(trouble.kind, str(trouble)) from None
    if not dry and not torch.cuda.is_available():
        raise WorkerError("invalid", "this PyTorch does not see the card")
    torch.backends.cudnn.benchmark = True
    bound = NORM_BOUND.get(trial.workload["output"]["dtype"], 1.0)
    entrants = [{"contestant": "convgen", "ours": True, "counts": True, "call": call, "take": card.take, "error": our_error(trial, card) * bound}]
    rows = []
    with torch.inference_mode():
        tensors = tensors_of(torch, trial, "cpu" if dry else "cuda")
        offered = compiled_ones(torch, parse(trial.workload["id"]), tensors) if compiled else eager_ones(torch, parse(trial.workload["id"]), tensors, dry)
        for name, peer, tf32 in offered:
            row = {"contestant": f"torch {name}", "ours": False, "counts": not tf32}
            try:
                call = switch(torch, peer(), tf32)
                row["error"] = judged(torch, trial, call()) * bound
                if row["error"] > bound and not tf32:
                    raise RuntimeError(f"its relative error is {row['error']:.2g}")
                entrants.append({**row, "call": call, "take": sample if dry else card_time(torch)})
                if not dry and not compiled:
                    entrants.append({**row, "contestant": row["contestant"] + " graph", "call": call, "take": graph_time(torch, call)})
            except Exception as error:  # a peer that fails is reported, whatever it raises
                text = str(error).strip().splitlines() or [type(error).__name__]
                rows.append({**row, "ok": False, "kind": "crash", "reason": text[0][:300]})
        timed = interleaved([e["call"] for e in entrants], [e["take"] for e in entrants], budget, rounds)
    for entrant, medians, leasts in zip(entrants, timed["median"], timed["least"]):
        low, middle, high = quartiles(medians)
        facts = {key: entrant[key] for key in ("contestant", "ours", "counts", "error")}
        rows.append({**facts, "ok": True, "kind": None, "reason": None, "median_us": middle, "spread_us": high - low, "least_us": min(leasts), "rounds_us": medians, "state": card.state()})
    ours = rows.index(next(r for r in rows if r["ours"]))
    return [row for i, row in enumerate(rows) if not (compiled and i == ours)]  # the first race has our row


def our_error(trial, card) -> float:
    """Relative L2 error of our result over its bound."""
    trial.kernel.run()
    card.finish()
    return distance(trial, trial.buffers[trial.output].read())


def eager_ones(torch, workload, tensors: dict, dry: bool) -> list:
    """(name, maker of the call, TF32): every formulation of the catalogue, in both memory formats, with and without TF32."""
    found = []
    for label, formulation in workload.formulations(**tensors).items():
        last = {k: t.to(memory_format=torch.channels_last) if t.ndim == 4 else t for k, t in tensors.items()}
        other = workload.formulations(**last)[label]
        name = "eager" if label == "torch" else f"eager {label}"
        for suffix, call in (("", formulation), (" channels_last", other)):
            single = tensors[next(iter(tensors))].dtype == torch.float32 and not dry
            found += [(name + suffix + (" tf32" if tf32 else ""), lambda call=call: call, tf32) for tf32 in ((False, True) if single else (False,))]
    return found


def compiled_ones(torch, workload, tensors: dict) -> list:
    """torch.compile's own search over the first formulation, in the workload's memory format."""
    def made():
        import torch._inductor.config as config

        config.freezing = True
        formulation = next(iter(workload.formulations(**tensors).values()))
        return torch.compile(formulation, mode="max-autotune")

    return [(COMPILED, made, False)]


def graph_time(torch, call):
    """A `take` that replays several calls as one CUDA graph. Raises RuntimeError where the call cannot be captured."""
    plain, graphs = card_time(torch), {}

    def graph_of(calls: int):
        if calls not in graphs:
            side = torch.cuda.Stream()
            with torch.cuda.stream(side):
                for _ in range(3):
                    call()
            torch.cuda.synchronize()
            graphs[calls] = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graphs[calls]):
                for _ in range(calls):
                    call()
        return graphs[calls]

    graph_of(1)

    def take(_, calls, before=None):
        return plain(graph_of(calls).replay, 1, before) / calls

    return take


if __name__ == "__main__":
    serve({"race": race}, default_kind="crash")
