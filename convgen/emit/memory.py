"""What a call holds in memory beside its inputs and output, and why where that is more than it should be."""

from __future__ import annotations

from ..lang import access
from ..lang.count import CALL, border_bytes
from ..lang.cuts import tiles_of

_NAMED = 3  # temporaries that a reason names at most
_SMALL = 0.1  # and the share of all from which on it does


def held(plan, choice: dict, threads: int, peak: dict) -> dict:
    """{"border": bytes of inputs and output, "scratch": bytes of temporaries of all threads together, "ratio": what a call holds over its border, "why"}.

    `plan`: the kernel's, its batch a number; `peak`: temporary → bytes, of those that live at one time. "why" is a sentence where the ratio is above `count.CALL`, else None.
    """
    program = plan.program
    border, total = border_bytes(program), sum(peak.values())
    ratio = (border + total) / border
    return {"border": border, "scratch": total, "ratio": round(ratio, 2), "why": f"{_temporaries(plan, choice, peak)} lie between its stages, {_place(choice, threads)}" if ratio > CALL else None}


def _place(choice, threads) -> str:
    cut = [name.removeprefix("cut.") for name in choice if name.startswith("cut.")]
    tiles = ", ".join(f"{size} of {axis}" for axis, size in tiles_of(choice).items())
    if tiles:
        return f"for a tile of the output at a time ({tiles})" + (f", in each of {threads} threads" if threads > 1 else "")
    if cut:
        return f"as a whole, for the output is not cut into tiles (along {', '.join(cut)}), which would hold less but read parameters or borders again"
    return "as a whole, for the output cannot be cut into tiles without repeating work"


def _temporaries(plan, choice, peak) -> str:
    """The largest ones in words, with their sizes."""
    total, words = sum(peak.values()), _words(plan, choice)
    large = sorted((n for n in peak if peak[n] >= _SMALL * total), key=lambda n: -peak[n])[:_NAMED]
    named = [f"{words.get(n, n)} ({_size(peak[n])})" for n in large or peak]
    return " and ".join([", ".join(named[:-1]), named[-1]] if named[1:] else named)


def _size(n) -> str:
    return f"{n / 1e6:.1f} MB" if n >= 95_000 else f"{n / 1e3:.1f} kB"


def _words(plan, choice) -> dict:
    """Temporary → what it is."""
    program, found = plan.program, {}
    name_of = lambda source: source if program.tensor(source) is not None else found.get(source, source)
    for p in plan.stages:
        for o in p.operands.values():
            if o.kind == "staged":
                found[o.name] = f"a {'padded ' if o.load.data[1] is not None else ''}copy of {name_of(o.source)}"
        found[p.stage.name] = _result(program, p.stage, choice)
    return found


def _result(program, stage, choice) -> str:
    """What a stage computes: of an algorithm with transforms its part in that, else what it is called where it is described."""
    params = {t.name for t in program.tensors if t.kind == "param"}
    read = {load.data[0] for load in stage.body.loads()}
    if choice["algorithm"] != "direct" and stage.combiner:
        if not params & _sources(program, stage):
            return f"{' and '.join(sorted(_sources(program, stage)))} transformed"
        if read & {s.name for s in program.bind_stages} and not access.roles(stage).table:
            return "products of transforms"
        return "products in part transformed back"
    readers = [s for s in program.run_stages if any(load.data[0] == stage.name for load in s.body.loads())]
    named = stage.combiner and len(readers) == 1 and not readers[0].combiner and readers[0] is not program.run_stages[-1]
    return f"sums of {readers[0].name}" if named else stage.name


def _sources(program, stage) -> set:
    """The tensors that a stage depends on."""
    found, todo = set(), [load.data[0] for load in stage.body.loads()]
    while todo:
        name = todo.pop()
        source = program.stage(name)
        if program.tensor(name) is not None:
            found.add(name)
        elif source is not None:
            todo += [load.data[0] for load in source.body.loads()]
    return found
