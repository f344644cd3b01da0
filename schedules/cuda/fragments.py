"""Tensor intrinsics of the units that multiply 16 × 16 tiles, as warp-wide operations of CUDA's `nvcuda::wmma`. Imports TVM, so only compile workers load it.

Source: CUDA C++ Programming Guide, "Warp Matrix Functions"; a fragment's number is its place among the tiles of its buffer, row by row.
"""

from __future__ import annotations

from functools import lru_cache

from tvm.s_tir import TensorIntrin
from tvm.script import tirx as T

from convgen.emit.matrix import EDGE

SUMS, DATA, WEIGHTS = "wmma.accumulator", "wmma.matrix_a", "wmma.matrix_b"
SHARED = "shared.dyn"  # one piece of memory for all slices: dynamic, because it may exceed what a kernel can have otherwise


def _at(buffer, stride):
    """The number of the fragment that a tile of a buffer with rows of `stride` elements is."""
    return buffer.elem_offset // stride // EDGE * (stride // EDGE) + buffer.elem_offset % stride // EDGE


@lru_cache(maxsize=None)
def fill() -> str:
    """Zero in all of a tile of sums."""
    @T.prim_func(s_tir=True)
    def described(C: T.Buffer((EDGE, EDGE), "float32", align=64, offset_factor=EDGE, scope=SUMS)) -> None:
        with T.sblock("root"):
            T.reads()
            T.writes(C[0:EDGE, 0:EDGE])
            for i, j in T.grid(EDGE, EDGE):
                with T.sblock("zero"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    C[vi, vj] = T.float32(0)

    @T.prim_func(s_tir=True)
    def implemented(c: T.handle) -> None:
        s = T.int32()
        u = T.int32()
        C = T.match_buffer(c, (EDGE, EDGE), "float32", align=64, offset_factor=EDGE, scope=SUMS, strides=[s, u])
        with T.sblock("root"):
            T.reads()
            T.writes(C[0:EDGE, 0:EDGE])
            T.evaluate(T.tvm_fill_fragment(C.data, EDGE, EDGE, EDGE, _at(C, s), T.float32(0), dtype="void"))
    return _registered("convgen.tile.fill", described, implemented)


@lru_cache(maxsize=None)
def load(dtype: str, to: str, order: str = "row_major") -> str:
    """A tile of data or weights from shared memory, `order` row_major or col_major; the fragment's buffer has its dims in the order of memory."""
    @T.prim_func(s_tir=True)
    def described(A: T.Buffer((EDGE, EDGE), dtype, align=64, offset_factor=EDGE, scope=SHARED), C: T.Buffer((EDGE, EDGE), dtype, align=64, offset_factor=EDGE, scope=to)) -> None:
        with T.sblock("root"):
            T.reads(A[0:EDGE, 0:EDGE])
            T.writes(C[0:EDGE, 0:EDGE])
            for i, j in T.grid(EDGE, EDGE):
                with T.sblock("load"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    C[vi, vj] = A[vi, vj]

    @T.prim_func(s_tir=True)
    def implemented(a: T.handle, c: T.handle) -> None:
        r = T.int32()
        v = T.int32()
        s = T.int32()
        u = T.int32()
        A = T.match_buffer(a, (EDGE, EDGE), dtype, align=64, offset_factor=EDGE, scope=SHARED, strides=[r, v])
        C = T.match_buffer(c, (EDGE, EDGE), dtype, align=64, offset_factor=EDGE, scope=to, strides=[s, u])
        with T.sblock("root"):
            T.reads(A[0:EDGE, 0:EDGE])
            T.writes(C[0:EDGE, 0:EDGE])
            T.evaluate(T.tvm_load_matrix_sync(C.data, EDGE, EDGE, EDGE, _at(C, s), A.access_ptr("r", ptr_type=dtype), r, order, dtype="void"))
    return _registered(f"convgen.tile.load.{dtype}.{to}.{order}", described, implemented)


@lru_cache(maxsize=None)
def multiply(dtype: str, order: str) -> str:
    """sums += data × weights, the data loaded in `order`."""
    turned = order == "col_major"

    @T.prim_func(s_tir=True)
    def described(A: T.Buffer((EDGE, EDGE), dtype, align=64, offset_factor=EDGE, scope=DATA), B: T.Buffer((EDGE, EDGE), dtype, align=64, offset_factor=EDGE, scope=WEIGHTS),
                  C: T.Buffer((EDGE, EDGE), "float32", align=64, offset_factor=EDGE, scope=SUMS)) -> None:
        with T.sblock("root"):
            T.reads(C[0:EDGE, 0:EDGE], A[0:EDGE, 0:EDGE], B[0:EDGE, 0:EDGE])
            T.writes(C[0:EDGE, 0:EDGE])
            for i, j, k in T.grid(EDGE, EDGE, EDGE):
                with T.sblock("update"):
                    vi, vj, vk = T.axis.remap("SSR", [i, j, k])
                    row, term = T.meta_var((vk, vi) if turned else (vi, vk))
                    C[vi, vj] = C[vi, vj] + T.cast(A[row, term], "float32") * T.cast(B[vk, vj], "float32")

    @T.prim_func(s_tir=True)
    def implemented(a: T.handle, b: T.handle, c: T.handle) -> None:
        ra = T.int32()
        ua = T.int32()
        rb = T.int32()
        ub = T.int32()
        rc = T.int32()
        uc = T.int32()
        A = T.match_buffer(a, (EDGE, EDGE), dtype, align=64, offset_factor=EDGE, scope=DATA, strides=[ra, ua])
        B = T.match_buffer(b, (EDGE, EDGE), dtype, align=64, offset_factor=EDGE, scope=WEIGHTS, strides=[rb, ub])
        C = T.match_buffer(c, (EDGE, EDGE), "float32", align=64, offset_factor=EDGE, scope=SUMS, strides=[rc, uc])
        with T.sblock("root"):
            T.reads(C[0:EDGE, 0:EDGE], A[0:EDGE, 0:EDGE], B[0:EDGE, 0:EDGE])
            T.writes(C[0:EDGE, 0:EDGE])
            T.evaluate(T.tvm_mma_sync(C.data, _at(C, rc), A.data, _at(A, ra), B.data, _at(B, rb), C.data, _at(C, rc), dtype="void"))
    return _registered(f"convgen.tile.multiply.{dtype}.{order}", described, implemented)


@lru_cache(maxsize=None)
def store(down: int, across: int, order: str) -> str:
    """All of a warp's tiles of sums, `down` × `across`, into shared memory, row_major or col_major, after a barrier: TVM gives them the memory of the slices,
    from which other warps may still read, and it places its own barriers before it decides so.
    """
    turned = order == "col_major"
    rows, columns = EDGE * down, EDGE * across
    height, width = (columns, rows) if turned else (rows, columns)

    @T.prim_func(s_tir=True)
    def described(A: T.Buffer((rows, columns), "float32", align=64, offset_factor=EDGE, scope=SUMS), C: T.Buffer((height, width), "float32", align=64, offset_factor=EDGE, scope=SHARED)) -> None:
        with T.sblock("root"):
            T.reads(A[0:rows, 0:columns])
            T.writes(C[0:height, 0:width])
            for i, j in T.grid(rows, columns):
                with T.sblock("store"):
                    vi, vj = T.axis.remap("SS", [i, j])
                    row, column = T.meta_var((vj, vi) if turned else (vi, vj))
                    C[row, column] = A[vi, vj]

    @T.prim_func(s_tir=True)
    def implemented(a: T.handle, c: T.handle) -> None:
        r = T.int32()
        v = T.int32()
        s = T.int32()
        u = T.int32()
        A = T.match_buffer(a, (rows, columns), "float32", align=64, offset_factor=EDGE, scope=SUMS, strides=[r, v])
        C = T.match_buffer(c, (height, width), "float32", align=64, offset_factor=EDGE, scope=SHARED, strides=[s, u])
        with T.sblock("root"):
            T.reads(A[0:rows, 0:columns])
            T.writes(C[0:height, 0:width])
            T.evaluate(T.tvm_storage_sync("shared.dyn"))
            for i, j in T.grid(down, across):
                T.evaluate(T.tvm_store_matrix_sync(A.data, EDGE, EDGE, EDGE, _at(A, r) + i * (r // EDGE) + j,
                                                   C.access_ptr("w", ptr_type="float32", offset=(j * s + i if turned else i * s + j) * EDGE), s, order, dtype="void"))
    return _registered(f"convgen.tile.store.{down}.{across}.{order}", described, implemented)


def _registered(name, described, implemented) -> str:
    TensorIntrin.register(name, described, implemented, override=True)
    return name
