"""Functions of device code as calls, and their text in CUDA C: the polynomials of vector_math with its errors, float32 operations that are rounded at once, and comparisons."""

from __future__ import annotations

from tvm import tirx


def _call(name):
    return lambda *a: tirx.call_pure_extern("float32", name, *a)


FUNCTIONS = {name: _call(f"convgen_{name}") for name in ("exp", "sigmoid", "tanh", "erf")}
PLUS_ONE: dict = {}
# Operations whose result is used as it is rounded: nvcc contracts a plain a * b + c.
ROUNDED = {"+": _call("__fadd_rn"), "-": _call("__fsub_rn"), "*": _call("__fmul_rn")}

# min and max keep NaN as the other targets do: a comparison with NaN is false and takes the second operand. The functions of CUDA would drop it.
TEXT = """
template <class T> static __device__ __forceinline__ T convgen_max(T a, T b) { return a > b ? a : b; }
template <class T> static __device__ __forceinline__ T convgen_min(T a, T b) { return a < b ? a : b; }
#define max convgen_max
#define min convgen_min

static __device__ __forceinline__ float convgen_exp(float x) {
  x = max(-87.33654f, min(88.37626f, x));
  float n = floorf(x * 1.44269504088896341f + 0.5f), r = x - n * 0.693359375f - n * -2.12194440e-4f;
  float p = (((((1.9875691500e-4f * r + 1.3981999507e-3f) * r + 8.3334519073e-3f) * r + 4.1665795894e-2f) * r + 1.6666665459e-1f) * r + 5.0000001201e-1f) * r * r + r + 1.0f;
  return p * __int_as_float(((int)n + 127) << 23);
}

static __device__ __forceinline__ float convgen_sigmoid(float x) { return 1.0f / (1.0f + convgen_exp(-x)); }

static __device__ __forceinline__ float convgen_tanh(float x) {
  float size = fabsf(x), s = x * x;
  float small = x * s * ((((-5.70498872745e-3f * s + 2.06390887954e-2f) * s - 5.37397155531e-2f) * s + 1.33314422036e-1f) * s - 3.33332819422e-1f) + x;
  float large = 1.0f - 2.0f / (convgen_exp(size + size) + 1.0f);
  return size > 0.625f ? (x < 0.0f ? -large : large) : small;
}

static __device__ __forceinline__ float convgen_erf(float x) {
  float size = fabsf(x), s = x * x, t = min(4.0f, size);
  float small = fmaf(fmaf(fmaf(fmaf(fmaf(fmaf(-5.96761703e-4f, s, 4.99119423e-3f), s, -2.67681349e-2f), s, 1.12819925e-1f), s, -3.76125336e-1f), s, 1.28379166e-1f), x, x);
  float slope = fmaf(fmaf(fmaf(fmaf(fmaf(2.79996020e-4f, t, -4.36428050e-3f), t, 3.19631600e-2f), t, -0.149728660f), t, -0.919500053f), t, -1.62675071f);
  float whole = rintf(fmaf(slope, t, -3.16144960e-4f)), r = fmaf(slope, t, -3.16144960e-4f - whole);
  float p = fmaf(fmaf(fmaf(1.53292640e-4f, r, 1.33909690e-3f), r * r, fmaf(9.61849900e-3f, r, 5.55035960e-2f)), r * r, fmaf(0.240226477f, r, 0.693147182f));
  float large = 1.0f - __int_as_float(__float_as_int(fmaf(p, r, 1.0f)) + (int)whole * (1 << 23));
  return size > 0.927734375f ? (x < 0.0f ? -large : large) : small;
}

"""
