"""Inputs and references of a wave's workloads: drawn by the device's own code, answered by the float64 oracle, stored in compact form."""

from __future__ import annotations

import hashlib
import itertools
import statistics
import zlib

import numpy as np

from ..errors import TuneError
from ..lang.sampling import integers, realistic, usual_values
from ..tune.cases import NORM_BOUND, Case, accumulator, float_bound
from ..tune.storage import EXACT_UP_TO, RAW, from_raw, is_float, to_raw
from .device import check, values

POSITIONS = 1024  # elements of a float output that are compared one by one
BLOCK, BLOCKS = 32, 8192  # elements of a sum at least, and sums at most
SEEDS = (0, 1, 2)  # of exact cases where most values must be zero, so that one draw may miss a tap
DENSE = 128  # of 256 levels that are not zero, above which one seed will do
CORRELATED = 4.0  # how far a block's error may exceed the average element's, for algorithms that only the norm bounds


def cases_of(program, files: dict) -> list[dict]:
    """The cases of a workload, as wave.json states them: exact ones where the program is exact, and one of realistic floats.

    Files they need are added to `files` (name → content before compression).
    """
    found = []
    if program.exact:
        first = _exact(program, 0, files)
        sparse = not program.integral and any(_nonzero(spec) < DENSE for spec in first["inputs"].values())
        found += [first, *(_exact(program, seed, files) for seed in SEEDS[1:] if sparse)]
    if is_float(program.output.dtype):
        found.append(_float(program, files))
    return found


def _nonzero(spec: dict) -> float:
    """Of 256 elements, how many are not the level zero."""
    if "file" in spec:
        return 256
    table = bytes.fromhex(spec["levels"])
    share = sum(any(table[i:i + spec["width"]]) for i in range(0, len(table), spec["width"]))
    for threshold in spec["keep"]:
        share *= threshold / 256
    return share


# -- inputs ---------------------------------------------------------------------------------------------------------------------


def _drawn(tensor, levels, key: str, noise: int = 0, keep=()) -> dict:
    """A spec of `values.drawn`."""
    raw = to_raw(np.asarray(levels, np.float64), tensor.dtype)
    return {"count": int(np.prod(tensor.shape, dtype=np.int64)), "width": raw.itemsize, "key": f"{key}/{tensor.name}", "levels": raw.tobytes().hex(),
            "noise": noise, "keep": list(keep)}


def logical(program, tensor, data: bytes) -> np.ndarray:
    """A tensor's numbers in logical order from its storage."""
    order = tensor.permutation(program.layout)
    physical = np.frombuffer(data, RAW[tensor.dtype]).reshape([tensor.shape[d] for d in order])
    return from_raw(np.ascontiguousarray(physical.transpose(np.argsort(order))), tensor.dtype)


def storage(program, tensor, array: np.ndarray) -> bytes:
    """The inverse of `logical`; rounds to the tensor's dtype."""
    return np.ascontiguousarray(to_raw(np.asarray(array).transpose(tensor.permutation(program.layout)), tensor.dtype)).tobytes()


def _stored(program, tensor, array, files: dict) -> dict:
    data = storage(program, tensor, array)
    name = f"data/{hashlib.sha256(data).hexdigest()[:16]}.z"
    files[name] = data
    return {"file": name}


def _few(tensor, density: float, key: str) -> dict:
    """Small integers, positive and negative alike, of which the share `density` is not zero."""
    top, keep = 4 if tensor.kind == "input" else 2, []
    while 0 < density < 0.25:  # a table of 256 levels cannot hold less than a few; what is left out is decided by bytes of its own
        threshold = max(1, round(256 * max(density, 1 / 16)))
        keep.append(threshold)
        density = density * 256 / threshold
    values = itertools.cycle([v for size in range(1, top + 1) for v in (size, -size)])
    wanted = min(255, round(256 * density)) if density < 1 or keep else 256
    levels = [0] * (256 - wanted) + [next(values) for _ in range(wanted)]
    return _drawn(tensor, levels, key, keep=keep)


def _as_declared(program, tensor, key: str, seed: int, files: dict) -> dict:
    """Realistic contents: 256 equally likely values of the declared distribution, the mantissa's lower half random; else as numpy draws them."""
    declared = usual_values(program, tensor)
    kind, noise = declared["kind"], 2 if tensor.dtype == "float32" else 0
    steps = [(i + 0.5) / 256 for i in range(256)]
    if kind == "normal":
        bell = statistics.NormalDist()
        return _drawn(tensor, [declared["mean"] + declared["deviation"] * bell.inv_cdf(p) for p in steps], key, noise)
    if kind == "uniform":
        return _drawn(tensor, [declared["low"] + (declared["high"] - declared["low"]) * p for p in steps], key, noise)
    if kind == "either":
        return _drawn(tensor, [float(p < declared["ones"]) for p in steps], key)
    if kind == "whole" and declared["high"] - declared["low"] < 256:
        return _drawn(tensor, [declared["low"] + int(p * (declared["high"] - declared["low"] + 1)) for p in steps], key)
    return _stored(program, tensor, realistic(program, seed)[tensor.name], files)


def _read(program, specs: dict, files: dict) -> dict:
    return {t.name: logical(program, t, files[specs[t.name]["file"]] if "file" in specs[t.name] else values.drawn(specs[t.name])) for t in program.tensors}


# -- references -----------------------------------------------------------------------------------------------------------------


def _exact(program, seed: int, files: dict) -> dict:
    limit = min(EXACT_UP_TO[d] for d in (accumulator(program), program.output.dtype))
    key, specs = f"{program.id}/E{seed}", {}
    if program.integral:
        specs = {t.name: _as_declared(program, t, key, seed, files) for t in program.tensors}
    else:
        def draw(tensor, density):
            specs[tensor.name] = _few(tensor, density, key)
            return logical(program, tensor, values.drawn(specs[tensor.name]))

        integers(program, seed, limit, draw)
    expected = np.asarray(program.reference(_read(program, specs, files)))
    if expected.size and np.abs(expected).max() > limit:
        raise TuneError(f"{program.id}: no integer sample keeps the result below {limit}")
    dtype = program.output.dtype
    data = check.canonical(storage(program, program.output, expected), dtype)
    width = np.dtype(RAW[dtype]).itemsize
    return {"letter": "E", "seed": seed, "inputs": specs, "dtype": dtype, "width": width, "sha256": hashlib.sha256(data).hexdigest(),
            "shares": [share[2] for share in check.shares(data, width)]}


def _float(program, files: dict) -> dict:
    specs = {t.name: _as_declared(program, t, f"{program.id}/F0", 0, files) for t in program.tensors}
    tensors = _read(program, specs, files)
    expected, magnitude, terms = program.reference_with_bound(tensors)
    case = Case("F", 0, tensors, np.asarray(expected), np.asarray(magnitude), int(terms))
    dtype = program.output.dtype
    order = program.output.permutation(program.layout)
    flat = np.ascontiguousarray(case.expected.transpose(order)).ravel()
    bound = np.ascontiguousarray(float_bound(case, accumulator(program), dtype).transpose(order)).ravel()
    where = _positions([program.output.shape[d] for d in order], program.id)
    block = max(BLOCK, -(-flat.size // BLOCKS))
    starts = np.arange(0, flat.size, block)
    sums, sum_bound = np.add.reduceat(flat, starts), np.add.reduceat(bound, starts)
    data = b"".join(a.astype(kind).tobytes() for a, kind in ((where, "<u4"), (flat[where], "<f8"), (_up(bound[where]), "<f4"), (sums, "<f8"), (_up(sum_bound), "<f4")))
    name = f"data/{hashlib.sha256(data).hexdigest()[:16]}.z"
    files[name] = data
    size = float(np.sqrt(np.mean(flat ** 2))) if flat.size else 0.0
    return {"letter": "F", "seed": 0, "inputs": specs, "dtype": dtype, "file": name, "positions": len(where), "blocks": len(starts), "block": block,
            "norm": NORM_BOUND[dtype], "norm_sum": CORRELATED * block * NORM_BOUND[dtype] * size}


def _up(bound: np.ndarray) -> np.ndarray:
    """Bounds as float32 that are not below what they were."""
    return np.nextafter(bound.astype(np.float32), np.float32(np.inf))


def _positions(shape: list[int], key: str) -> np.ndarray:
    """Flat positions to compare: all of a small output, else every corner and as many others by chance as make POSITIONS."""
    count = int(np.prod(shape, dtype=np.int64))
    if count <= POSITIONS:
        return np.arange(count)
    corners = {int(np.ravel_multi_index(c, shape)) for c in itertools.product(*[{0, n - 1} for n in shape])}
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    others = rng.choice(count, POSITIONS, replace=False)
    return np.array(sorted(corners | {int(i) for i in others[:POSITIONS - len(corners)]}))
