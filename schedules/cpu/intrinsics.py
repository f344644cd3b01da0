"""What a dot product instruction computes, in the words of TVM: the same for every family."""

from __future__ import annotations

from tvm.script import tirx as T


def _value(element, dtype):
    """What a stored element means: an int32, or the float32 of a bfloat16 or of its bits."""
    if dtype == "uint16":
        return T.reinterpret(T.shift_left(T.cast(element, "uint32"), T.uint32(16)), dtype="float32")
    return T.cast(element, "float32" if dtype == "bfloat16" else "int32")


def described(data: str, weight: str, lanes: int, weight_first: bool):
    """`sum[lane] += weight[lane, i] * data[i]` as a PrimFunc, factors in the order of the description. `data`, `weight`: stored dtypes."""
    width, wide = (4, "int32") if data == "uint8" else (2, "float32")
    if weight_first:
        @T.prim_func(s_tir=True)
        def described(A: T.Buffer((width,), data, offset_factor=1), B: T.Buffer((lanes, width), weight, offset_factor=1), C: T.Buffer((lanes,), wide, offset_factor=1)) -> None:
            with T.sblock("root"):
                T.reads(C[0:lanes], B[0:lanes, 0:width], A[0:width])  # in the order of the factors
                T.writes(C[0:lanes])
                for i in T.serial(0, lanes):
                    for k in T.serial(0, width):
                        with T.sblock("update"):
                            vi, vk = T.axis.remap("SR", [i, k])
                            C[vi] = C[vi] + _value(B[vi, vk], weight) * _value(A[vk], data)
    else:
        @T.prim_func(s_tir=True)
        def described(A: T.Buffer((width,), data, offset_factor=1), B: T.Buffer((lanes, width), weight, offset_factor=1), C: T.Buffer((lanes,), wide, offset_factor=1)) -> None:
            with T.sblock("root"):
                T.reads(C[0:lanes], A[0:width], B[0:lanes, 0:width])
                T.writes(C[0:lanes])
                for i in T.serial(0, lanes):
                    for k in T.serial(0, width):
                        with T.sblock("update"):
                            vi, vk = T.axis.remap("SR", [i, k])
                            C[vi] = C[vi] + _value(A[vk], data) * _value(B[vi, vk], weight)
    return described
