"""Serves a library on numpy arrays in a process of its own: serve_numpy.py LIBRARY CALLS IN.npz OUT.npz. Prints what was loaded and why nothing else, as JSON."""

import json
import sys

import numpy as np

import convgen
from convgen.errors import LibraryError
from convgen.runtime import cpu
from convgen.runtime import manifest as manifests


def main(path, calls, given, made):
    try:
        lib = convgen.load(path)
    except LibraryError as error:
        print(json.dumps({"error": str(error)}))
        return
    tensors, results = np.load(given), {}
    for key, (operator, attributes) in json.loads(calls).items():
        results[key] = lib.__getattr__(operator)(**{name.partition("/")[2]: tensors[name] for name in tensors if name.startswith(f"{key}/")}, **attributes)
    np.savez(made, **results)
    print(json.dumps({"family": cpu.family(), "features": sorted(cpu.features()), "variant": lib.variant, "shim": manifests.shim_of(manifests.read(path)),
                      "sick": [f.kernel for f in lib.selftest() if f.problem]}))


main(*sys.argv[1:])
