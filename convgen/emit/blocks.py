"""What a lowering tells a schedule: the blocks of its function."""

from __future__ import annotations

from dataclasses import dataclass, field, replace


@dataclass
class Block:
    """What a schedule may know of one block: the roles of its loops, never the operator.

    `loops`: (axis, part) per loop, part "full", "outer" (blocks of the vector axis) or "lanes". `kind`: "reduce", "map", "copy", "finish" (the store stage
    in the layout of the tiles) or "store".
    """

    name: str
    kind: str
    loops: list
    stage: str
    lanes: int
    reduce: list = field(default_factory=list)  # (axis, "window" | "channel" | "table")
    reads: list = field(default_factory=list)  # names of copy blocks made for this one
    producers: list = field(default_factory=list)  # names of earlier stages whose results it reads without a border
    vec: str = ""
    tiles: tuple = (None, None)  # axes of the register tile, innermost first
    sizes: tuple = (1, 1)  # its steps along them
    rows: str | None = None  # the axis whose steps are rows of positions
    turn: object = None  # the turns.Turn of a copy or store between rows of memory and vectors across them
    tested: bool = False  # whether terms are conditional, because some meet nothing but padding
    separate: bool = False  # whether the tiles of a row leave out different terms, so that each needs its own code
    moves: tuple = ()  # axes of the output that it depends on
    batch: tuple = ()  # of the output: the axes that only ever count samples
    narrow: int = 1  # how many elements of what it writes fit where a float32 does
    dot: object = None  # the dot.Dot that its innermost loops are
    data: str = ""  # dtype in which it finds the dot product's data
    matrix: object = None  # the matrix.Product that it is
    runs: tuple = ()  # of such a product: matrix.run_of_data, matrix.run_of_output
    parameters: dict = field(default_factory=dict)  # names of the prepared parameters that it reads, and how many of their elements one instruction may move
    finishes: str = ""  # of a map: the sum whose results it takes one by one in the same layout
    steady: list = field(default_factory=list)  # axes of a map that no gathered position depends on, none where it gathers nothing
    wide: int = 1  # how many elements of a copy one instruction may move
    along: int | None = None  # which of its loops a copy of a stage's result runs along where that has its neighbours in memory
    spread: list = field(default_factory=list)  # how a block of threads lies on its axes (simt.Tile), none where the plan has no such tiles
    share: object = None  # how threads share its sums (simt.Share)
    slide: str | None = None  # the axis of a window whose loop may be the innermost, because the register tile moves along it (tiling.slide)
    columns: tuple | None = None  # axes along which its producers can run part by part (tiling.columns)


def needed(blocks, out):
    """The blocks that became part of the function: where a condition never holds, nothing reads what lies behind it."""
    names, left = set(), [out]
    while left:
        tensor = left.pop()
        if tensor.op.name not in names:
            names.add(tensor.op.name)
            left.extend(tensor.op.input_tensors)
    keep = lambda found: [n for n in found if n in names]
    return [replace(b, reads=keep(b.reads), producers=keep(b.producers)) for b in blocks if b.name in names]
