"""Vector functions, and those of device code, against float64 over their whole range."""

import math
import shutil

import numpy as np
import pytest

REFERENCE = {
    "exp": (np.exp, 1.0), "sigmoid": (lambda x: 1 / (1 + np.exp(-x)), 2.5), "tanh": (np.tanh, 1.5), "erf": (np.vectorize(math.erf), 1.0),
}
LIMITS = (-87.33, 88.37)  # of exp, inside which its result is a normal number
SPECIAL = (0.0, -0.0, 1e-45, 3.4e38, -3.4e38, math.inf, -math.inf, math.nan)


@pytest.fixture(scope="module")
def arguments():
    rng = np.random.default_rng(0)
    sizes = 10.0 ** rng.uniform(-30, 38, 8000) * rng.choice([-1, 1], 8000)
    dense = [np.linspace(-a, a, 20000) for a in (110, 9.5, 1)]
    return np.concatenate([*dense, sizes, SPECIAL]).astype(np.float32)


@pytest.fixture(scope="module", params=["functions", "device_functions"])
def found(kernels, arguments, request):
    if request.param == "device_functions" and shutil.which("g++") is None:
        pytest.skip("emulating CUDA kernels needs g++")
    (answer,) = kernels.ask([{"cmd": request.param, "names": list(REFERENCE), "values": arguments.tolist()}])
    return {name: np.array(values) for name, values in answer.items()}


@pytest.mark.parametrize("name", REFERENCE)
def test_error_in_ulp(name, found, arguments):
    reference, limit = REFERENCE[name]
    x = arguments[:-len(SPECIAL)].astype(np.float64)
    y = found[name][:-len(SPECIAL)]
    if name in ("exp", "sigmoid"):
        inside = (x > LIMITS[0]) & (x < LIMITS[1])
        x, y = x[inside], y[inside]
    expected = reference(x)
    ulp = np.spacing(np.abs(expected).astype(np.float32)).astype(np.float64)
    assert len(x) > 50000 and np.max(np.abs(y - expected) / ulp) <= limit


def test_limits_and_what_is_no_number(found):
    special = {name: dict(zip(map(str, SPECIAL), values[-len(SPECIAL):])) for name, values in found.items()}
    for name, at_zero, low, high in (("exp", 1, 1.2e-38, 2.4e38), ("sigmoid", 0.5, 0, 1), ("tanh", 0, -1, 1), ("erf", 0, -1, 1)):
        values = special[name]
        assert values["0.0"] == values["-0.0"] == at_zero and math.isnan(values["nan"])
        for size in ("3.4e+38", "inf"):
            assert values[size] == pytest.approx(high, rel=0.01) and values[f"-{size}"] == pytest.approx(low, rel=0.03, abs=1e-38)
    for name in ("sigmoid", "tanh", "erf"):
        assert np.nanmax(np.abs(found[name])) == 1


def test_nearest_integers_with_halves_to_even(kernels):
    values = np.concatenate([np.arange(-300, 300) / 2, np.nextafter(np.arange(-300, 300, dtype=np.float32) / 2, np.float32(1e9)), [2.0 ** 22 + 0.5, 2.0 ** 23 + 1, 3e9, -3e9, -0.25]]).astype(np.float32)
    (answer,) = kernels.ask([{"cmd": "functions", "names": ["round"], "values": values.tolist()}])
    assert np.array_equal(np.array(answer["round"], np.float32), np.rint(values))


def test_one_plus_erf_is_as_exact_as_rounding_erf_first(kernels, arguments):
    (answer,) = kernels.ask([{"cmd": "functions", "names": ["erf_plus_one"], "values": arguments.tolist()}])
    found, x = np.array(answer["erf_plus_one"]), arguments.astype(np.float64)
    expected = np.vectorize(math.erfc)(-x)
    assert math.isnan(found[-1]) and np.max(np.abs(found - expected)[:-1]) <= 1.2 * 2.0 ** -23
    assert set(found[x < -4]) == {0.0} and set(found[x > 4]) == {2.0}
