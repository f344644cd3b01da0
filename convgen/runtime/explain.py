"""Why a call is served as it is, in a form to print and to read by program."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from convgen.runtime.serve import Server, fits


@dataclass(frozen=True)
class Explanation:
    """Which kernel serves a call and why. `str()` is for people."""

    kernel: str                      # workload id
    symbol: str
    how: str                         # "exact", "any batch" or "any shape"
    origin: str | None               # how near the record is: "exact", "near", "default"
    record: str | None               # where it came from, as a sentence
    target: str
    refused: tuple                   # (target, reason) of the library's other variants
    layout: str                      # memory format the kernel reads and writes
    output_format: str
    copies: tuple                    # tensors that are copied before or after the kernel
    prepares: bool                   # parameters are prepared at every call; a bound call does it once
    threads: int                     # threads that the call would use now; 0 on a CUDA device
    tuned_threads: int | None
    workspace: int                   # scratch bytes of the kernel
    measured_us: float | None        # when it was tuned, on the machine it was tuned on
    torch_us: float | None
    device: str = "cpu"              # or "cuda:0", ...
    code: str | None = None          # CUDA: the architecture that the code was made for, or the PTX that the driver compiles for the device
    launches: int = 0                # CUDA: kernels that a call launches
    memory: dict | None = None       # bytes of inputs and output ("border") and of temporaries ("scratch"), what a call holds over its border ("ratio"), why it is much

    def to_json(self) -> dict:
        return asdict(self)

    def __str__(self) -> str:
        match = f"{self.how} match, record: {self.origin or 'unknown'}" + (f", {self.record}" if self.record else "")
        lines = [self.kernel, f"  kernel {self.symbol} ({match}) for {self.target}, {self.layout}"]
        lines += [f"  variant {name} not taken: {why}" for name, why in self.refused]
        if self.copies:
            lines.append(f"  copied at each call: {', '.join(self.copies)}")
        if self.prepares:
            lines.append("  parameters are prepared at each call; lib.bind does it once")
        if self.code is None:
            tuned = f", tuned for {self.tuned_threads}" if self.tuned_threads else ""
            lines.append(f"  {self.threads} threads now{tuned}; {self.workspace} bytes of scratch memory")
        else:
            lines.append(f"  {self.launches} launches on {self.device}, code for {self.code}; {self.workspace} bytes of scratch memory")
            if self.code.startswith("PTX"):
                lines.append("  the driver compiles this code for the device when it is first used; export a variant for its architecture to spare that")
        if self.memory is not None:
            why = f": {self.memory['why']}" if self.memory["why"] else ""
            lines.append(f"  a call holds {self.memory['ratio']:.1f} times its inputs and output{why}")
        if self.measured_us is not None:
            against = ""
            if self.torch_us is not None:
                against = f", PyTorch {self.torch_us:.1f} µs" + (" (faster)" if self.torch_us < self.measured_us else "")
            lines.append(f"  measured {self.measured_us:.1f} µs when tuned{against}")
        return "\n".join(lines)


def explain(server: Server, operator: str, seen, attributes) -> Explanation:
    """The explanation of a call with these views. Raises what the call would raise."""
    found = server.find(operator, seen, attributes)
    plan = server.plan(found)
    entry = found.kernel.entry
    copies = [name for name, wanted in zip(plan.names, plan.wanted) if not (seen[name].aligned and fits(seen[name], wanted))]
    if not found.direct(plan):
        copies.append("out")
    choice, steps = server.choice, [step for step in (entry, entry.get("prepare")) if step]
    return Explanation(
        entry["id"], entry["symbol"], found.kernel.how, entry.get("origin"), entry.get("record"), choice.target, choice.refused,
        entry["layout"], found.format, tuple(copies), bool(entry.get("prepare")), server.threads, entry.get("threads"),
        entry.get("workspace") or 0, entry.get("measured_us"), entry.get("torch_us"),
        server.device, choice.code, sum(len(step.get("launches") or ()) for step in steps), entry.get("memory"))
