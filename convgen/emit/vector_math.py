"""exp, sigmoid, tanh and erf as arithmetic on float32 vectors, so that no kernel calls libm.

Errors against float64, measured over all magnitudes in tests/emit/test_vector_math.py: exp 1 ulp, sigmoid 2.5 ulp, tanh 1.5 ulp, erf 1 ulp, where the
result is a normal number. exp saturates: at 88.37626 (2.4e38) instead of giving infinity, at -87.33654 (1.2e-38) instead of zero. NaN stays NaN.
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


def _by_pairs(x, coefficients):
    """The same for an even number of coefficients in steps of x * x: half as many that wait for each other."""
    square, pairs = x * x, [_f(a) * x + _f(b) for a, b in zip(coefficients[::2], coefficients[1::2])]
    value = pairs[0]
    for pair in pairs[1:]:
        value = value * square + pair
    return value


def _bits(x):
    return tirx.reinterpret("int32", x)


def _fma(a, b, c):
    """a * b + c rounded once even where a * b has other uses, too, for which LLVM would round it first."""
    return tirx.call_llvm_pure_intrin("float32", "llvm.fma", a, b, c)


def _sign_of(x, magnitude):
    return tirx.reinterpret("float32", (_bits(x) & tirx.const(-2 ** 31, "int32")) | _bits(magnitude))


def exp(x):
    """2^n e^r with n = round(x / ln 2); polynomial and two-step reduction of Cephes' expf (S. L. Moshier)."""
    x = te.max(_f(-87.33654), te.min(_f(88.37626), x))  # the constants first: a comparison with NaN then keeps NaN
    n = te.floor(x * _f(1.44269504088896341) + _f(0.5))
    r = x - n * _f(0.693359375) - n * _f(-2.12194440e-4)
    p = _poly(r, (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)) * r * r + r + _f(1.0)
    return p * tirx.reinterpret("float32", (n.astype("int32") + tirx.const(127, "int32")) << tirx.const(23, "int32"))


def sigmoid(x):
    return _f(1.0) / (_f(1.0) + exp(_f(0.0) - x))


def tanh(x):
    """By exp beyond 0.625, else an odd polynomial (as Cephes' tanhf)."""
    size, s = te.abs(x), x * x
    small = x * s * _poly(s, (-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1)) + x
    large = _f(1.0) - _f(2.0) / (exp(size + size) + _f(1.0))
    return tirx.Select(size > _f(0.625), _sign_of(x, large), small)


def erf(x):
    """1 - 2^polynomial beyond 0.927734375, else an odd polynomial (N. Juffa's minimax coefficients).

    The polynomial of degree 6 fits log2(erfc) with its error weighted by erfc, that of degree 6 fits 2^r: least squares reweighted towards the least maximum.
    """
    size, s = te.abs(x), x * x
    small = x * _poly(s, (-5.96761703e-4, 4.99119423e-3, -2.67681349e-2, 1.12819925e-1, -3.76125336e-1, 1.28379166e-1)) + x
    t = te.min(_f(4.0), size)  # from here on erf rounds to one
    slope, start = _poly(t, (2.79996020e-4, -4.36428050e-3, 3.19631600e-2, -0.149728660, -0.919500053, -1.62675071)), _f(-3.16144960e-4)
    large = _f(1.0) - _power_of_two(slope, t, start)
    return tirx.Select(size > _f(0.927734375), _sign_of(x, large), small)


def erf_plus_one(x):
    """1 + erf(x) within 1.2 units in the last place of one, as exact as erf rounded before it is added: near zero no polynomial of its own is needed.

    The polynomial of degree 8 fits log2(erfc) from 0 to 4 with its error weighted by erfc (least squares reweighted towards the least maximum).
    """
    t = te.min(_f(4.0), te.abs(x))
    slope = _by_pairs(t, (-4.53585978e-5, 4.45507649e-4, -1.48944167e-3, -7.74629555e-4, 2.82536809e-2, -0.148481615, -0.918416393, -1.62790859))
    return _f(1.0) + _sign_of(x, _f(1.0) - _power_of_two(slope, t, _f(0.0)))


def _power_of_two(slope, t, start):
    """2^(slope t + start), not beyond 1."""
    whole = nearest(slope * t + start)
    r = _fma(slope, t, start - whole)  # what is left of the exponent, rounded once
    p = _by_pairs(r, (1.53292640e-4, 1.33909690e-3, 9.61849900e-3, 5.55035960e-2, 0.240226477, 0.693147182)) * r + _f(1.0)
    return tirx.reinterpret("float32", _bits(p) + (whole.astype("int32") << tirx.const(23, "int32")))


def nearest(x):
    """The nearest integer, halves to even. TVM's own nearbyint turns a loop over vectors into one over numbers."""
    return tirx.call_llvm_pure_intrin("float32", "llvm.roundeven", x)


FUNCTIONS = {"round": nearest, "exp": exp, "sigmoid": sigmoid, "tanh": tanh, "erf": erf}
PLUS_ONE = {"erf": erf_plus_one}  # sums of one and a function that need less than the function by itself
ROUNDED: dict = {}  # LLVM contracts nothing by itself
