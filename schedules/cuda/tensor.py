"""Products of matrices on the tensor cores: one block computes a tile of rows × columns, its warps 16 × 16 fragments of it.

Data and weights pass through shared memory in slices of the terms, as they are stored; sums stay in float32 fragments until the epilogue, which reads them from shared memory.
What memory has side by side lies side by side there, too: data and sums of channels_first tensors are turned matrices.
"""

from __future__ import annotations

from tvm.tirx import IndexMap

from convgen.emit.matrix import EDGE, Tile

from . import fragments as F

# Elements between two rows in shared memory: neighbouring rows then begin in other banks, and every fragment at a multiple of 32 bytes.
_SKEW, _SKEW_SUMS = 8, 4
_WARP = 32


def product(sch, b, copy, store, tile: Tile):
    """Loops of the product `b`, of the `copy` of its data and of the `store` of its results, Blocks of the lowering: one kernel."""
    (data_along, data_width), (out_along, out_width) = b.runs
    sums, data, out = (sch.get_sblock(x.name) for x in (b, copy, store))
    warps, order = tile.down * tile.across, ("col_major", "row_major")
    _flatten(sch, out, store, b.matrix)

    *batch, m, n, k = sch.get_loops(sums)
    mb, mw, mf, mi = sch.split(m, [None, tile.down, tile.rows // tile.down // EDGE, EDGE])
    nb, nw, nf, ni = sch.split(n, [None, tile.across, tile.columns // tile.across // EDGE, EDGE])
    ko, kf, ki = sch.split(k, [None, tile.terms // EDGE, EDGE])
    sch.reorder(*batch, mb, nb, mw, nw, ko, kf, mf, nf, mi, ni, ki)
    block, warp = sch.fuse(mb, nb), sch.fuse(mw, nw)
    sch.bind(block, "blockIdx.x")
    if batch:
        sch.bind(*batch, "blockIdx.y")

    kept = sch.cache_write(sums, 0, F.SUMS)  # `kept` writes fragments to where the store finds them
    sch.set_scope(kept, 0, F.SHARED)
    if not out_along:
        sch.transform_layout(kept, ("write", 0), lambda *at: [*at[:-2], at[-1], at[-2]])
    sch.reverse_compute_at(kept, warp)
    sch.reverse_compute_at(out, block, preserve_unit_loops=True)
    sch.bind(warp, "threadIdx.y")
    _spread(sch, sch.get_loops(out)[-2:], out_along, out_width, warps)

    sch.transform_layout(data, ("write", 0), lambda *at: _as_made(at, data_along, data_width))
    weights = sch.cache_read(sums, 1, F.SHARED)
    sch.set_scope(data, 0, F.SHARED)
    for slice_, along, width, vector in ((data, data_along, data_width, data_width > 1), (weights, 1, 8, False)):
        sch.compute_at(slice_, ko, preserve_unit_loops=True)
        sch.storage_align(slice_, 0, -2, EDGE, _SKEW)
        loops = sch.get_loops(slice_)
        loops, lanes = (loops[:-1], loops[-1:]) if vector else (loops, [])
        _spread(sch, loops[-2:], along, width, warps, lanes)
    if tile.ahead:
        _ahead(sch, ko, data, weights)
    for i, scope, along in ((0, F.DATA, data_along), (1, F.WEIGHTS, 1)):
        fragment = sch.cache_read(sums, i, scope)
        sch.compute_at(fragment, kf)
        _tiles(sch, fragment, F.load(b.matrix.dtype, scope, order[along]))
    sch.tensorize(sch.get_loops(sch.decompose_reduction(sums, ko))[-2], F.fill())
    sch.tensorize(mi, F.multiply(b.matrix.dtype, order[data_along]))
    whole = sch.blockize(sch.get_loops(kept)[-2])
    sch.storage_align(whole, 0, -2, EDGE, _SKEW_SUMS)
    sch.tensorize(whole, F.store(tile.rows // tile.down // EDGE, tile.columns // tile.across // EDGE, order[out_along]))


def _ahead(sch, loop, *slices):
    """Slices pass through registers, and TVM's software pipeline moves reading the next ones from memory in front of computing with these."""
    for slice_ in slices:
        sch.annotate(slice_, "tirx.manifest_shared_memory_local_stage", 1)
    # the loop's body: into registers and into shared memory, for each slice, and computing
    sch.annotate(loop, "software_pipeline_stage", [0, 0, 0, 0, 1])
    sch.annotate(loop, "software_pipeline_order", [0, 3, 1, 4, 2])


def _flatten(sch, out, store, product):
    """The store's loops as those of the sums: axes merged in the same groups."""
    names = [axis for axis, _ in store.loops]
    extents = dict(zip(names, (sch.get(l).extent for l in sch.get_loops(out))))

    def merged(*index):
        at, found = dict(zip(names, index)), []
        for group in (*((n,) for n in product.batch), product.rows, product.columns):
            place = at[group[0]]
            for name in group[1:]:
                place = place * int(extents[name]) + at[name]
            found.append(place)
        return found
    sch.transform_block_layout(out, IndexMap.from_func(merged, ndim=len(names), index_dtype="int32"))


def _as_made(at, along, width):
    """Where the data's matrix keeps element `at` (width apart where it is not 1): what memory has side by side last."""
    *outer, rows, terms = at[:-1] if width > 1 else at
    rows, terms = (rows * width + at[-1], terms) if width > 1 and not along else (rows, terms * width + at[-1]) if width > 1 else (rows, terms)
    return [*outer, rows, terms] if along else [*outer, terms, rows]


def _spread(sch, loops, along, width, warps, lanes=()):
    """A copy's loops over rows and columns, those of dim `along` last, over the threads of a block, `width` elements at once, which may be the loop `lanes` already."""
    loops = loops if along else loops[::-1]
    sch.reorder(*loops, *lanes)
    _, warp, thread, *width_loop = sch.split(sch.fuse(*loops), [None, warps, _WARP, *([] if lanes else [width])])
    sch.bind(warp, "threadIdx.y")
    sch.bind(thread, "threadIdx.x")
    if width > 1:
        sch.vectorize(*width_loop, *lanes)


def _tiles(sch, block, intrinsic):
    """The last two loops of a block in 16 × 16 tiles, each one instruction."""
    m, n = sch.get_loops(block)[-2:]
    mo, mi = sch.split(m, [None, EDGE])
    no, ni = sch.split(n, [None, EDGE])
    sch.reorder(mo, no, mi, ni)
    sch.tensorize(mi, intrinsic)
