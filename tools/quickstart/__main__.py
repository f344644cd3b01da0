"""Three published layers on a photograph: feature maps, tuning, one library, a process without the compiler, a race, a picture."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import convgen
import draw
import layers
import photo
from convgen import bench
from convgen.tune.progress import Progress

RACE = 4.0  # seconds of timing per layer, shared by all contestants


def say(text: str) -> None:
    print(text, flush=True)


def prepare(output: Path) -> None:
    """Write the list of layers and every layer's tensors below `output`."""
    (output / "tensors").mkdir(parents=True, exist_ok=True)
    (output / "layers.json").write_text(json.dumps([(layer.title, layer.workload) for layer in layers.LAYERS], indent=1) + "\n")
    for number, layer in enumerate(layers.LAYERS):
        np.savez(output / "tensors" / f"{number}.npz", **layers.inputs(layer, photo.photograph()))


def build(output: Path, seconds: float | None, trials: int | None = None) -> bool:
    """Tune the layers and export them as `output`/library.cvg; False if Ctrl-C ended the tuning. Records stay below `output`."""
    workloads = {layer.title: convgen.workload(layer.workload) for layer in layers.LAYERS}
    with Progress() as progress:
        result = convgen.tune(workloads, seconds=seconds, trials=trials, logs=output / "tuning_logs", progress=progress)
    if result.interrupted:
        return False
    say(str(convgen.export(workloads, output / "library.cvg", logs=output / "tuning_logs", name="quickstart")))
    return True


def serve(output: Path) -> list[dict]:
    """Rows of `serve.py`, which runs in a fresh process without the compiler. Raises CalledProcessError if it refuses a result."""
    subprocess.run([sys.executable, str(Path(__file__).with_name("serve.py")), str(output)], check=True)
    return json.loads((output / "served.json").read_text())


def race(output: Path, seconds: float, peers=("torch", "compile"), rounds: int = 9) -> bench.Result:
    """The layers against PyTorch, eager and compiled; every contestant's row goes to `output`/bench.jsonl."""
    (output / "bench.jsonl").unlink(missing_ok=True)
    workloads = [convgen.workload(layer.workload) for layer in layers.LAYERS]
    return bench.run(workloads, seconds=seconds, logs=output / "tuning_logs", peers=peers, rounds=rounds, output=output / "bench.jsonl", progress=say)


def report(output: Path, served: list[dict], result) -> str:
    """The table; also written to `output`/table.txt, beside the picture."""
    text = draw.table(served, result.races)
    if draw.busy(result.races):
        text += "\n" + draw.BUSY
    (output / "table.txt").write_text(text + "\n")
    maps = []
    for number in range(len(served)):
        with np.load(output / "tensors" / f"{number}.npz") as arrays:
            maps.append((arrays["x"][0], np.load(output / "outputs" / f"{number}.npy")[0]))
    draw.picture(output / "picture.png", photo.photograph(), served, result.races, maps)
    return text


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(prog="tools/quickstart.sh", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("quickstart-output"), help="folder for everything that is written (default ./quickstart-output)")
    parser.add_argument("--seconds", type=float, default=30.0, help="tuning time per layer (default 30)")
    options = parser.parse_args(arguments)
    output, begun = options.output.resolve(), time.monotonic()
    prepare(output)
    say(f"tuning {len(layers.LAYERS)} layers for {options.seconds:g} s each")
    if not build(output, options.seconds * len(layers.LAYERS)):
        say("interrupted; everything measured so far is saved, the same command continues")
        return 130
    served = serve(output)
    say("a fresh process without the compiler served every layer; all outputs agree with PyTorch")
    result = race(output, RACE)
    if result.interrupted:
        return 130
    say("\n" + report(output, served, result))
    for row in (r for r in result.rows if not r["ok"]):
        say(f"{row['contestant']} was not timed: {row['reason']}: {row['workload']}")
    say(f"\n{time.monotonic() - begun:.0f} s; picture, table, library and records are in {output}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except subprocess.CalledProcessError:  # it has said why
        sys.exit(1)
    except convgen.Error as error:
        sys.exit(f"quickstart: {error}")
