"""exp, sigmoid, tanh and erf as arithmetic on float32 vectors, so that no kernel calls libm.

Errors against float64 over all finite float32 arguments (measured in tests/emit/test_vector_math.py): exp 2 ulp, sigmoid 4 ulp, tanh 8 ulp, erf 1e-6 relative or
1e-7 absolute, whichever is larger. exp saturates at the float32 limits instead of giving inf or subnormals.
"""

from __future__ import annotations

from tvm import te, tirx


def _f(v):
    return tirx.const(v, "float32")


def _poly(x, coefficients):
    """Horner's rule, highest power first."""
    value = _f(coefficients[0])
    for c in coefficients[1:]:
        value = value * x + _f(c)
    return value


def exp(x):
    """2^n e^r with n = round(x / ln 2); polynomial and two-step reduction of Cephes' expf (S. L. Moshier)."""
    x = te.max(te.min(x, _f(88.37626)), _f(-87.33654))
    n = te.floor(x * _f(1.44269504088896341) + _f(0.5))
    r = x - n * _f(0.693359375) - n * _f(-2.12194440e-4)
    p = _poly(r, (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)) * r * r + r + _f(1.0)
    return p * tirx.reinterpret("float32", (n.astype("int32") + tirx.const(127, "int32")) << tirx.const(23, "int32"))


def sigmoid(x):
    return _f(1.0) / (_f(1.0) + exp(_f(0.0) - x))


def tanh(x):
    """Odd rational approximation on [-9, 9] (coefficients as in Eigen's generic_fast_tanh_float)."""
    x = te.max(te.min(x, _f(9.0)), _f(-9.0))
    s = x * x
    top = _poly(s, (-2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-08, 1.48572235717979e-05, 6.37261928875436e-04, 4.89352455891786e-03))
    return x * top / _poly(s, (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03))


def erf(x):
    """Odd rational approximation on [-4, 4] (coefficients as in Eigen's generic_fast_erf_float)."""
    x = te.max(te.min(x, _f(4.0)), _f(-4.0))
    s = x * x
    top = _poly(s, (-2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06, -5.69250639462346e-05, -7.34990630326855e-04, -2.95459980854025e-03, -1.60960333262415e-02))
    return x * top / _poly(s, (-1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03, -7.37332916720468e-03, -1.42647390514189e-02))


FUNCTIONS = {"exp": exp, "sigmoid": sigmoid, "tanh": tanh, "erf": erf}
