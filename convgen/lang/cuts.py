"""Tiles of the output that a choice computes one after the other, and how long that makes the stages inside them.

A transform makes so many results at a time: from a tile of the output that ends inside one, the loops of the stages before would have to end early, each at
another place. Instead these stages go on to the end of the last tile; what lies beyond the output is computed and never stored.
"""

from __future__ import annotations

import math

from . import access
from .ranges import interval, whole
from .size import value_of


def tiles_of(choice: dict) -> dict:
    """Axis of the output → size of its tiles, for the axes that a choice cuts."""
    return {name.removeprefix("cut."): size for name, size in choice.items() if name.startswith("cut.") and size}


def lengths(program, tiles: dict) -> dict:
    """Stage → {axis: extent} of the axes that last longer than the output needs, so that whole tiles are computed. None where no transform runs along the tiles."""
    run, moved = program.run_stages, access.moved(program) if tiles else {}
    last = {a.name: value_of(a.size) for a in run[-1].axes}
    stepped = [a for a in tiles if any(0 < access.period(s, x) < access.extents(s)[x] for s in run for x in moved.get(s.name, {}).get(a, ()))]
    found = {run[-1].name: {a: n for a in stepped if (n := -(-last[a] // tiles[a]) * tiles[a]) > last[a]}} if stepped else {}
    for s in reversed(run):
        longer = found.get(s.name)
        if not longer:
            continue
        ranges = whole(access.extents(s) | longer)
        for load in s.body.loads():
            source = next((x for x in run if x.name == load.data[0]), None)
            if source is None or not all(moved[source.name][a] for a in tiles):
                continue
            own = access.extents(source)
            for d, (a, index) in enumerate(zip(source.axes, load.args)):
                end = interval(index, ranges)[1] + 1
                if longer.keys() & set(index.axes()) and not any(access.padding(load, d)) and own[a.name] < end < math.inf:
                    of = found.setdefault(source.name, {})
                    of[a.name] = max(of.get(a.name, 0), end)
    return {name: axes for name, axes in found.items() if axes}
