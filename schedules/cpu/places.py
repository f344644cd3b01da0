"""Where around a sum's register tile other blocks are placed, and what the threads share."""

from __future__ import annotations

from dataclasses import dataclass

from convgen.emit import banded


@dataclass
class Places:
    """`tile`: the loop in which one register tile is done; `row`: in which a row of the output is, or None where no loop ends with one.

    `producers`: the loop inside which what tiles read is produced, or None. `shared`: how many of the outer loops the threads share.
    """

    tile: object
    row: object
    producers: object
    shared: int


def find(nest) -> Places:
    """The places of a sum whose loops are in order. Cuts bands of rows that share copies where the knobs say so."""
    outer = nest.outer
    if nest.parts is not None:
        return Places(outer[-1], outer[-1], (nest.parts or outer)[-1], len(outer))
    deep, bands = len(outer) > 2, banded.rows(nest.b.stage, nest.choice)
    producers = outer[-2] if nest.knob("producer") == "tile" and deep else None  # the last position loop: the vector blocks run inside it
    shared = max(1, len(outer) - deep - (producers is not None))
    if bands and deep:
        shared = _bands(nest, bands)
    row = outer[-2] if len(outer) > 1 and producers is None else None
    if nest.row:
        along = [nest.of[axis] for axis in nest.row]
        first = min(map(outer.index, along))
        whole = first and producers is None and all(l in along for l in outer[first:])
        row, shared = (outer[first - 1], min(shared, first)) if whole else (None, shared)
    return Places(outer[-1], row, producers, shared)


def _bands(nest, count) -> int:
    """Rows in so many bands, each with its copies. Returns how many loops are outside of these."""
    outer = nest.outer
    at = outer.index(nest.of[nest.b.rows])
    outer[at:at + 1] = nest.sch.split(outer[at], [count, None])
    free = [outer.index(l) for l in (nest.vectors, nest.tiles, nest.of.get(nest.b.tiles[1])) if l is not None and l in outer[:at]]
    if not free or not nest.dense:
        return at + 1
    outer.insert(min(free), outer.pop(at))  # what a band copies serves all its outputs
    nest.sch.reorder(*outer)
    return min(free) + 1
