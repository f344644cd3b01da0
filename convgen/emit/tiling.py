"""Which axes of a stage its vectors, its register tile and its bands run along, and in what order it is summed up.

Follows from access maps and a choice's vector axis; no operator, no target.
"""

from __future__ import annotations

import numpy as np

from ..lang import access
from ..lang.size import tree_of, value_of
from ..lang.unfold import phases


def vector_kinds(load, vec: str, extents: dict, lanes: int) -> list:
    """Per index dim, how it moves with the vector axis: "free", "constant" within a vector, "plain" (the axis itself), "window",
    "run" (every vector meets whole vectors of the dim, as a channel map c % g does), or "other"."""
    kinds = []
    for index in load.args:
        if vec not in index.axes():
            kinds.append("free")
            continue
        others = [a for a in index.axes() if a != vec and extents.get(a, 2) > 1]
        values = access.on_axis(index, vec, extents[vec])
        if not others and values is not None and (values == np.arange(extents[vec])).all():
            kinds.append("plain")
            continue
        terms = access.linear(index)
        if terms is not None and terms[0].get(vec) == 1:
            kinds.append("window")
        elif values is not None and all(len(set(values[i:i + lanes])) == 1 for i in range(0, extents[vec], lanes)) and extents[vec] % lanes == 0:
            kinds.append("constant")
        elif not others and values is not None and extents[vec] % lanes == 0 and _runs(values, lanes):
            kinds.append("run")
        else:
            kinds.append("other")
    return kinds


def _runs(values, lanes) -> bool:
    """Whether every `lanes` values are neighbours, in order, from a multiple of `lanes` on."""
    groups = values.reshape(-1, lanes)
    return bool((groups[:, 0] % lanes == 0).all() and (groups == groups[:, :1] + np.arange(lanes)).all())


def spacing(program, stage, load, vec: str) -> tuple | None:
    """(positions of memory from lane to lane, tap's axis or None, positions from tap to tap, first position) of a read whose vectors take every second, third, ... number of a row; None for other reads."""
    spec = program.tensor(load.data[0])
    inner = spec.permutation(program.layout)[-1] if spec is not None else None
    terms = access.linear(load.args[inner]) if inner is not None and sum(vec in i.axes() for i in load.args) == 1 else None
    if terms is None or terms[0].get(vec, 0) < 2 or len(terms[0]) > 2 or spec.dtype != "float32":
        return None
    tap, apart = next(((a, k) for a, k in terms[0].items() if a != vec), (None, 0))
    return None if apart < 0 or tap in {a.name for a in stage.axes} else (terms[0][vec], tap, apart, terms[1])


def tile_axes(program, stage, vec: str) -> tuple:
    """The output axes beside the vector axis that a register tile spans: where an operand is reused, then the innermost (None where there is none).

    Where phases take turns along the output's rows, the second one is theirs.
    """
    loads = stage.body.loads()
    reuse = {a.name: sum(1 for l in loads if not any(a.name in i.axes() for i in l.args)) for a in stage.axes}
    rest = [a.name for a in stage.axes if a.name != vec and value_of(a.size) > 1 and not is_batch(program, stage, a.name)]
    rest.sort(key=lambda n: reuse[n])  # stable: among equals the innermost stays last
    phase = row_phase(program, stage)
    if phase in rest:
        rest.remove(phase)
        return (rest[-1] if rest else None, phase)
    return (rest[-1] if rest else None, rest[-2] if len(rest) > 1 else None)


def tile_sizes(program, stage, vec: str, choice: dict) -> tuple:
    """Steps of the register tile along its axes; without knobs one, and all constants of a transform."""
    axes = tile_axes(program, stage, vec)
    return tuple(choice.get(f"{stage.name}.tile{i + 1}", a and access.period(stage, a) or 1) for i, a in enumerate(axes))


def row_phase(program, stage) -> str | None:
    """The axis of a stage whose steps take turns along the rows of the output, if its tiles are what is stored there."""
    inner = program.output.permutation(program.layout)[-1]
    if inner not in phases(program.output) or [a.name for a in stage.axes] != [a.name for a in program.stages[-1].axes]:
        return None
    return stage.axes[inner].name


def is_batch(program, stage, axis) -> bool:
    """Whether an axis counts the samples of an open batch."""
    return program.any_batch and any(a.name == axis and tree_of(a.size) == "N" for a in stage.axes)


def columns(program, stage, vec: str) -> tuple | None:
    """(output axis, reduced axes) along which the results of maps that a sum reads can be produced part by part, nothing twice; None where they cannot.

    Such maps gather or compute a column of values for every position. A part lasts for some steps of the output axis and one of the reduced axes, which are all
    but the one that the maps' vectors run along (which the plan decides).
    """
    if stage.combiner != "sum":
        return None
    run = program.run_stages
    sources = {s.name: s for s in run}
    loads = [l for l in stage.body.loads() if l.data[0] in sources]
    readers = [l.data[0] for s in run for l in s.body.loads()]
    once = all(sources[l.data[0]].combiner is None and l.data[1] is None and readers.count(l.data[0]) == 1 for l in loads)
    rows, reduced = tile_axes(program, stage, vec)[1], {a.name for a in stage.reduce}
    if not loads or not once or rows is None or any(x.data[0] in {l.data[0] for l in loads} for l in loads for x in sources[l.data[0]].body.loads()):
        return None
    taps = []
    for load in loads:
        alone = [a.data if a.op == "axis" else None for a in load.args]
        uses = [n for a in load.args for n in a.axes()]
        if rows not in alone or uses.count(rows) > 1 or vec in alone:
            return None
        dims = sorted((value_of(a.size), d) for d, (a, i) in enumerate(zip(sources[load.data[0]].axes, load.args)) if reduced & set(i.axes()))
        taps.append({alone[d] for _, d in dims[:-1] if alone[d] is not None and uses.count(alone[d]) == 1})
    return rows, [a.name for a in stage.reduce if all(a.name in t for t in taps)]


def slide(program, stage, vec: str) -> str | None:
    """The axis of a window that the register tile's first axis moves along, where it is not the window's last one, whose loop is inside all others anyway; else None."""
    window, along = access.roles(stage).window, tile_axes(program, stage, vec)[0]
    moved = {a for load in stage.body.loads() for i in load.args if along in i.axes() for a in i.axes()}
    return next((a for a in window if a in moved), None) if window and window[-1] not in moved else None


def window_order(program, stage, choice) -> list:
    """A window's axes, the one of the innermost loop last."""
    inside = slide(program, stage, choice[f"{stage.name}.vec"]) if choice.get(f"{stage.name}.inner") == "slide" else None
    return sorted(access.roles(stage).window, key=lambda a: a == inside)


def unrolled(program, stage, choice) -> list:
    """A window's axes whose loops are unrolled."""
    count = choice.get(f"{stage.name}.unroll", 0)
    return window_order(program, stage, choice)[-count:] if count else []


def reduce_order(program, stage, choice) -> list:
    """Reduced axes in loop order: channel outside, window taps, then (after blocking) channel inside."""
    r, window = access.roles(stage), window_order(program, stage, choice)
    return [*window, *r.channel, *r.table] if choice.get(f"{stage.name}.inner", "channel") == "channel" else [*r.channel, *window, *r.table]
