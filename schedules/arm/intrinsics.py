"""Tensor intrinsics of dot.py's instructions. Imports TVM, so only compile workers load it."""

from __future__ import annotations

from tvm.s_tir import TensorIntrin
from tvm.script import tirx as T

from ..cpu.intrinsics import described


class Intrinsics:
    """Those of one target. `mixed`: whether it multiplies unsigned by signed bytes (FEAT_I8MM)."""

    def __init__(self, mixed: bool):
        self.mixed = mixed

    def register(self, dtypes: tuple, data: str, lanes: int, weight_first: bool) -> str:
        """The name of the intrinsic `sum[lane] += weight[lane, i] * data[i]`, factors in the order of the description. `data`: how the data is stored."""
        name = f"convgen.dot.{dtypes[0]}.{data}.{lanes}.{int(weight_first)}.{'usdot' if self.mixed else 'sdot'}"
        TensorIntrin.register(name, described(data, dtypes[1], lanes, weight_first), _usdot() if self.mixed else _sdot(), override=True)
        return name

    @staticmethod
    def library(dtypes: tuple, lanes: int) -> None:
        """LLVM code that the kernel must import for the intrinsic: none."""


def _usdot():
    name = "llvm.aarch64.neon.usdot"

    @T.prim_func(s_tir=True)
    def impl(A: T.Buffer((4,), "uint8", offset_factor=1), B: T.Buffer((4, 4), "int8", offset_factor=1), C: T.Buffer((4,), "int32", offset_factor=1)) -> None:
        with T.sblock("root"):
            T.reads(C[0:4], A[0:4], B[0:4, 0:4])
            T.writes(C[0:4])
            C[T.ramp(T.int32(0), 1, 4)] = T.call_llvm_pure_intrin(
                T.llvm_lookup_intrinsic_id(name), C.vload([0], dtype="int32x4"), T.reinterpret(T.broadcast(T.reinterpret(A.vload([0], "uint8x4"), dtype="int32"), 4), dtype="uint8x16"),
                B.vload([0, 0], dtype="int8x16"), dtype="int32x4")
    return impl


def _sdot():
    """x w = (x - 128) w + 128 w; the second term is the same for all data that meets these weights, so that LLVM computes it once for a whole register tile."""
    name = "llvm.aarch64.neon.sdot"

    @T.prim_func(s_tir=True)
    def impl(A: T.Buffer((4,), "uint8", offset_factor=1), B: T.Buffer((4, 4), "int8", offset_factor=1), C: T.Buffer((4,), "int32", offset_factor=1)) -> None:
        with T.sblock("root"):
            T.reads(C[0:4], A[0:4], B[0:4, 0:4])
            T.writes(C[0:4])
            C[T.ramp(T.int32(0), 1, 4)] = T.call_llvm_pure_intrin(
                T.llvm_lookup_intrinsic_id(name), C.vload([0], dtype="int32x4"), B.vload([0, 0], dtype="int8x16"),
                T.reinterpret(T.broadcast(T.bitwise_xor(T.reinterpret(A.vload([0], "uint8x4"), dtype="int32"), T.int32(-2139062144)), 4), dtype="int8x16"), dtype="int32x4") - T.call_llvm_pure_intrin(
                T.llvm_lookup_intrinsic_id(name), T.broadcast(T.int32(0), 4), B.vload([0, 0], dtype="int8x16"), T.broadcast(T.int8(-128), 16), dtype="int32x4")
    return impl
