"""Tensor intrinsics of dot.py's instructions. Imports TVM, so only compile workers load it."""

from __future__ import annotations

from functools import lru_cache

from tvm.s_tir import TensorIntrin
from tvm.script import tirx as T

from ..cpu.intrinsics import described

# The intrinsic's own types do not survive TVM's legalisation of bfloat16, so a function on int32 lanes stands in between.
_BF16 = """
target triple = "x86_64-unknown-linux-gnu"
define linkonce_odr <{n} x float> @convgen_dpbf16_{n}(<{n} x float> %c, <{n} x i32> %a, <{n} x i32> %b) alwaysinline nounwind {{
  %x = bitcast <{n} x i32> %a to <{m} x bfloat>
  %y = bitcast <{n} x i32> %b to <{m} x bfloat>
  %r = call <{n} x float> @llvm.x86.avx512bf16.dpbf16ps.{bits}(<{n} x float> %c, <{m} x bfloat> %x, <{m} x bfloat> %y)
  ret <{n} x float> %r
}}
declare <{n} x float> @llvm.x86.avx512bf16.dpbf16ps.{bits}(<{n} x float>, <{m} x bfloat>, <{m} x bfloat>)
"""


@lru_cache(maxsize=None)
def register(dtypes: tuple, data: str, lanes: int, weight_first: bool) -> str:
    """The name of the intrinsic `sum[lane] += weight[lane, i] * data[i]`, factors in the order of the description. `data`: how the data is stored."""
    name = f"convgen.dot.{dtypes[0]}.{data}.{lanes}.{int(weight_first)}"
    implemented = _u8s8(lanes) if dtypes == ("uint8", "int8") else _bf16(lanes, data)
    TensorIntrin.register(name, described(data, dtypes[1], lanes, weight_first), implemented, override=True)
    return name


def library(dtypes: tuple, lanes: int) -> str | None:
    """LLVM code that the kernel must import for the intrinsic, or None."""
    return _BF16.format(n=lanes, m=2 * lanes, bits=32 * lanes) if dtypes[0] == "bfloat16" else None


def _u8s8(lanes):
    wide, bytes_, signed = f"int32x{lanes}", f"uint8x{4 * lanes}", f"int8x{4 * lanes}"
    name = f"llvm.x86.avx512.vpdpbusd.{32 * lanes}"

    @T.prim_func(s_tir=True)
    def impl(A: T.Buffer((4,), "uint8", offset_factor=1), B: T.Buffer((lanes, 4), "int8", offset_factor=1), C: T.Buffer((lanes,), "int32", offset_factor=1)) -> None:
        with T.sblock("root"):
            T.reads(C[0:lanes], A[0:4], B[0:lanes, 0:4])
            T.writes(C[0:lanes])
            C[T.ramp(T.int32(0), 1, lanes)] = T.call_llvm_pure_intrin(
                T.llvm_lookup_intrinsic_id(name), C.vload([0], dtype=wide), T.reinterpret(T.broadcast(T.reinterpret(A.vload([0], "uint8x4"), dtype="int32"), lanes), dtype=bytes_),
                B.vload([0, 0], dtype=signed), dtype=wide)
    return impl


def _bf16(lanes, data):
    wide, many, pair, name = f"float32x{lanes}", f"bfloat16x{2 * lanes}", f"{data}x2", f"convgen_dpbf16_{lanes}"
    bits = f"int32x{lanes}"

    @T.prim_func(s_tir=True)
    def impl(A: T.Buffer((2,), data, offset_factor=1), B: T.Buffer((lanes, 2), "bfloat16", offset_factor=1), C: T.Buffer((lanes,), "float32", offset_factor=1)) -> None:
        with T.sblock("root"):
            T.reads(C[0:lanes], A[0:2], B[0:lanes, 0:2])
            T.writes(C[0:lanes])
            C[T.ramp(T.int32(0), 1, lanes)] = T.call_pure_extern(
                wide, name, C.vload([0], wide), T.broadcast(T.reinterpret(A.vload([0], pair), dtype="int32"), lanes), T.reinterpret(B.vload([0, 0], many), dtype=bits))
    return impl
