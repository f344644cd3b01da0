"""Random workloads of every catalogue operator, biased to the shapes where kernels break, and one way to compare."""

import math

import numpy as np
from hypothesis import reject, settings
from hypothesis import strategies as st

from convgen.errors import ArgumentError
from convgen.lang.epilogue import ACTIVATIONS
from convgen.lang.workload import flag_names
from convgen.ops.table import TABLE

OPERATORS = {op.name: op for op in TABLE}
FLOATING = {name: op for name, op in OPERATORS.items() if not op.types}
repeatable = settings(max_examples=16)
brief = settings(repeatable, max_examples=6)

_WINDOW_OF = {"D": ("KD", 0), "H": ("KH", 1), "W": ("KW", 2), "L": ("K", 0)}
_DIVISORS = ("G", "HEADS", "DG")


@st.composite
def workloads(draw, op, **fixed):
    """Any valid small workload: H < K, odd sizes, one batch, channels of no multiple of the lanes, strides beyond the kernel, one-sided padding."""
    transposed = "output_padding" in op.attributes
    kw = {name: _attribute(draw, spec) for name, spec in op.attributes.items()}
    for name in op.dims:
        kw[name] = draw(st.sampled_from((1, 2, 3)))
    for name in op.window_dims():
        kw[name] = draw(st.sampled_from((1, 2, 3, 3, 4, 5)))
    if op.name == "dilated_reparam_conv2d":
        kw["KH"] = kw["KW"] = draw(st.sampled_from((5, 7, 9, 11, 13, 15, 17)))
    if op.module.endswith(".blocks"):  # windows with a centre; one hidden size is the input's, where a layer less is there
        kw |= {d: draw(st.sampled_from((1, 3, 5))) for d in (*op.window_dims(), *{"SMALL"} & set(op.dims))}
        kw |= {"HIDDEN": draw(st.sampled_from((1, 3, 17)))} if "HIDDEN" in op.dims else {}
    if op.name == "inception_depthwise_conv2d":
        kw |= {"SQUARE": draw(st.sampled_from((1, 3, 5))), "BAND": draw(st.sampled_from((1, 3, 11))), "C": kw["GC"] * 3 + draw(st.integers(0, 4))}
    else:
        unit = math.lcm(kw.get("groups", 1), *(kw[d] for d in _DIVISORS if d in op.dims))
        kw["C"] = unit * draw(st.sampled_from((1, 2, 3, 7)))
    if "O" in op.dims:
        kw["O"] = kw.get("groups", 1) * draw(st.sampled_from((1, 2, 5, 17)))
    kw |= fixed
    for i, length in enumerate(d for d in op.dims if d in _WINDOW_OF):
        kw[length] = draw(st.integers(1, 3 if "D" in op.dims else 9))
        if "padding" in kw:
            lo, hi = kw["padding"][i]
            reach = kw.get("dilation", (1,) * 3)[i] * (kw[op.window_dims()[i]] - 1) + 1
            if transposed:
                kw["output_padding"] = _replaced(kw["output_padding"], i, min(kw["output_padding"][i], max(kw["stride"][i], kw["dilation"][i]) - 1))
            elif kw.get("padding_mode") in ("reflect", "circular"):
                kw[length] = max(kw[length], max(lo, hi) + (kw["padding_mode"] == "reflect"), reach - lo - hi)
            else:
                kw[length] = max(kw[length], reach - lo - hi)
    for flag in (f for f in flag_names(op) if f != "any_batch"):
        kw.setdefault(flag, draw(st.booleans()))
    kw["layout"] = draw(st.sampled_from(("channels_first", "channels_last")))
    try:
        return op(**kw)
    except ArgumentError:
        reject()


def _attribute(draw, spec):
    kind = spec["type"]
    if spec["name"] == "activation":
        return draw(st.sampled_from((None, None, None, *ACTIVATIONS)))
    if kind == "ints":
        return tuple(draw(st.integers(spec["minimum"], spec["minimum"] + 2)) for _ in range(spec["rank"]))
    if kind == "pads":
        return tuple(draw(st.tuples(st.integers(0, 2), st.integers(0, 2))) for _ in range(spec["rank"]))
    if kind == "int":
        return draw(st.sampled_from((1, 1, 2, 3)))
    if kind == "bool":
        return draw(st.booleans())
    if kind == "str":
        return draw(st.sampled_from(spec["choices"]))
    return spec["default"]


def _replaced(values, i, value):
    return (*values[:i], value, *values[i + 1:])


def double(w, seed=0):
    """Realistic tensors of a workload in float64."""
    return {name: t.double() for name, t in w.sample(seed).items()}


def assert_equal(found, expected, tolerance=1e-11):
    """Equal up to a few roundings of float64, relative to the largest element."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * max(1e-300, np.abs(expected).max()))
