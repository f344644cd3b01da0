"""Plain tiles to begin a search of defaults from: usual numbers of results per thread, threads spread over the axes in order of memory."""

from __future__ import annotations

import math

_DENSE = ((8, 1, 8), (8, 1, 4), (4, 1, 4), (4, 2, 4), (4, 1, 1), (1, 1, 1))  # results per thread on f, y and x where an operand is reused along f
_LOCAL = ((1, 1, 8), (1, 1, 4), (1, 2, 4), (1, 1, 12), (1, 1, 14), (1, 4, 1), (1, 7, 1), (4, 1, 1), (8, 1, 1), (2, 1, 1), (1, 1, 1))
_MANY = 1 << 16  # threads that keep a card busy


def points(w, domains) -> list:
    """Choices of one reduction's knobs, not all valid. `w`: its Work; `domains`: of the space."""
    f = w.slots["f"]
    dense = f is not None and any(f not in r.axes for r in w.reads) and bool(w.roles.channel)
    found = []
    for each in _DENSE if dense else _LOCAL:
        for threads, split in ((64, 1), (128, 1), (256, 1), *_shared(w, domains, each)):
            base = {f"{w.name}.{slot}.each": _nearest(domains[f"{w.name}.{slot}.each"], e) for slot, e in zip(("f", "y", "x"), each) if slot in w.used}
            base |= _spread(w, domains, base, threads, dense)
            for shared in (True, False):
                for chunk in (16, 8, 4) if dense and shared else (0,):
                    c = dict(base)
                    c[f"{w.name}.chunk"] = _nearest(domains[f"{w.name}.chunk"], chunk)
                    for part in ("data", "weights"):
                        c[f"{w.name}.{part}"] = "shared" if shared and "shared" in domains[f"{w.name}.{part}"] else "direct"
                    if f"{w.name}.tensor" in domains:
                        c[f"{w.name}.tensor"] = False
                    for unroll in (1, 2, 3) if w.roles.window else (1,):
                        found.append(c | {f"{w.name}.unroll": _nearest(domains[f"{w.name}.unroll"], unroll)} | ({f"{w.name}.split": split} if f"{w.name}.split" in domains else {}))
    return found


def _shared(w, domains, each):
    """(threads of a tile, threads per sum) where one for each result would leave most of a card without work."""
    values = domains.get(f"{w.name}.split", [1])
    few = w.points < _MANY * math.prod(each)
    return sorted({(max(1, 256 // n), n) for n in (_nearest(values, wish) for wish in (4, 16, 64)) if n > 1}) if few else []


def _spread(w, domains, base, threads, dense):
    """Threads by axis: neighbours of memory first; where an operand is reused along f, f gets its share before."""
    order = sorted((slot for slot in ("x", "y", "f") if slot in w.used), key=lambda slot: w.used[slot] != w.last)
    if dense:
        order.sort(key=lambda slot: slot != "f")
    left, found = threads, {}
    for i, slot in enumerate(order):
        need = -(-w.extents[w.used[slot]] // base[f"{w.name}.{slot}.each"])
        limit = 1 << (left.bit_length() // 2) if dense and i == 0 else min(left, 32) if i == 0 and len(order) > 1 and w.used[slot] not in w.roles.spatial else left
        fits = [t for t in domains[f"{w.name}.{slot}.threads"] if t <= limit]
        whole = [t for t in fits if t >= need]
        found[f"{w.name}.{slot}.threads"] = t = whole[0] if whole else fits[-1]
        left = max(1, left // t)
    return found


def _nearest(values, wish):
    return min(values, key=lambda v: abs(v - wish))
