"""Values as a kernel stores them: numpy arrays in float64 or integers to raw memory and back, bfloat16 included.

Shapes are unchanged; float16 and bfloat16 round to nearest even as hardware does.
"""

from __future__ import annotations

import numpy as np

# numpy has no bfloat16: its bits travel as uint16.
RAW = {"float64": np.float64, "float32": np.float32, "float16": np.float16, "bfloat16": np.uint16,
       "int64": np.int64, "int32": np.int32, "int16": np.int16, "int8": np.int8, "uint8": np.uint8, "bool": np.uint8}
# DLPack type codes: 0 int, 1 uint, 2 float, 4 bfloat
DLPACK = {"float64": (2, 64), "float32": (2, 32), "float16": (2, 16), "bfloat16": (4, 16),
          "int64": (0, 64), "int32": (0, 32), "int16": (0, 16), "int8": (0, 8), "uint8": (1, 8), "bool": (6, 8)}
# Unit roundoff and the largest integer up to which every integer is exact, per floating dtype.
ROUNDOFF = {"float64": 2.0 ** -53, "float32": 2.0 ** -24, "float16": 2.0 ** -11, "bfloat16": 2.0 ** -8}
EXACT_UP_TO = {"float64": 2 ** 53, "float32": 2 ** 24, "float16": 2 ** 11, "bfloat16": 2 ** 8, "int64": 2 ** 53,
               "int32": 2 ** 31 - 1, "int16": 2 ** 15 - 1, "int8": 2 ** 7 - 1, "uint8": 2 ** 8 - 1}


def is_float(dtype: str) -> bool:
    """True for dtypes that hold NaN."""
    return dtype in ROUNDOFF


def to_raw(values, dtype: str) -> np.ndarray:
    """`values` rounded to `dtype`, as the array of raw storage."""
    values = np.asarray(values)
    if dtype != "bfloat16":
        return values.astype(RAW[dtype])
    bits = values.astype(np.float32).view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)


def from_raw(raw: np.ndarray, dtype: str) -> np.ndarray:
    """The numbers that raw storage means: float64 for floating dtypes, else int64."""
    if dtype == "bfloat16":
        return (raw.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return raw.astype(np.float64 if is_float(dtype) else np.int64)


def rounded(values, dtype: str) -> np.ndarray:
    """`values` as a kernel will see them: through storage and back."""
    return from_raw(to_raw(values, dtype), dtype)
