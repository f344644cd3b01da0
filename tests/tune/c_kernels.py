"""Small kernels in C with the calling convention of compiled ones: right, and wrong in every way a compiler could be."""

from __future__ import annotations

import subprocess
from pathlib import Path

# A depthwise 3x3 convolution, padding 1, channels first: x, weight (packed or not) and out are DLTensor* in 16-byte slots.
SOURCE = r"""
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <stdio.h>
typedef struct { float* data; int32_t device[2]; int32_t ndim; uint8_t code, bits; uint16_t lanes; int64_t* shape; int64_t* strides; uint64_t offset; } T;
typedef struct { int32_t index; uint32_t zero; T* t; } Any;
int __tvm_ffi_k_prepare(void* h, const Any* a, int32_t n, Any* r) {
  long count = a[0].t->shape[0] * 9;
  for (long i = 0; i < count; i++) a[1].t->data[i] = -a[0].t->data[i];
  return 0;
}
int __tvm_ffi_k(void* h, const Any* a, int32_t n, Any* r) {
  T *x = a[0].t, *w = a[1].t, *o = a[2].t;
  long C = x->shape[1], H = x->shape[2], W = x->shape[3];
  float sign = PACKED ? -1.0f : 1.0f;
  BEFORE
  for (long c = 0; c < C; c++)
    for (long p = 0; p < H; p++)
      for (long q = 0; q < W; q++) {
        ACC s = 0;
        for (int i = 0; i < 3; i++)
          for (int j = 0; j < 3; j++) {
            long y = p + i - 1, z = q + j - 1;
            if (y < 0 || z < 0 || y >= H || z >= W) continue;
            s += (ACC)(sign * x->data[(c * H + y) * W + z] * w->data[c * 9 + i * 3 + j]);
          }
        STORE
      }
  AFTER
  return 0;
}
"""
GOOD = "o->data[(c * H + p) * W + q] = (float)s;"
# name: (BEFORE, STORE, AFTER, ACC)
VARIANTS = {
    "right": ("", GOOD, "", "float"),
    "unwritten": ("", "if (c || p || q) " + GOOD, "", "float"),
    "stale": ("if (o->data[0] == o->data[0]) return 0;", GOOD, "", "float"),
    "beyond": ("", GOOD, "o->data[C * H * W] = 1;", "float"),
    "ahead": ("", GOOD, "o->data[-1] = 1;", "float"),
    "mutates": ("", GOOD, "x->data[3] += 1;", "float"),
    "mutates_weight": ("", GOOD, "w->data[3] = 0;", "float"),
    "reads_beyond": ("", "o->data[(c * H + p) * W + q] = s + (c + p + q == 0 ? ((volatile int*)x->data)[C * H * W] & 1 : 0);", "", "float"),
    "lost_tap": ("", "o->data[(c * H + p) * W + q] = s - (p == H - 1 && q == W - 1 && c == C - 1 ? sign * x->data[(c * H + p) * W + q] * w->data[c * 9 + 4] : 0);", "", "float"),
    "low_precision": ("", GOOD, "", "_Float16"),
    "noisy": ("static int turn;", "o->data[(c * H + p) * W + q] = s * (1 + (turn > 0 && c + p + q == 0) * 1e-7f);", "turn++;", "float"),
    "infinite": ("", "o->data[(c * H + p) * W + q] = s / (c + p + q == 0 ? 0.0f : 1.0f) + (c + p + q == 0);", "", "float"),
    "segfault": ("*(volatile int*)8 = 1;", GOOD, "", "float"),
    "sleeps": ("extern unsigned sleep(unsigned); for (;;) sleep(9);", GOOD, "", "float"),
    "naps": ("extern unsigned sleep(unsigned); static int turn; if (!turn++) sleep(2);", GOOD, "", "float"),
    "hang": ("for (volatile int i = 0;; i++) {}", GOOD, "", "float"),
    "exit": ("_exit(1);", GOOD, "", "float"),
    "bomb": ("for (;;) { volatile char* m = malloc(1 << 28); if (!m) abort(); *m = 1; }", GOOD, "", "float"),
    "prints": ("for (int i = 0; i < 20000; i++) puts(\"noise on standard output, again and again and again\"); fflush(stdout);", GOOD, "", "float"),
    "refuses": ("return -1;", GOOD, "", "float"),
    "lazy": ("return 0;", GOOD, "", "float"),
}


def compile_kernel(folder: Path, name: str, packed: bool = False) -> str:
    """Shared object of a variant."""
    before, store, after, accumulator = VARIANTS[name]
    source, target = Path(folder) / f"{name}{packed:d}.c", Path(folder) / f"{name}{packed:d}.so"
    if not target.exists():
        text = SOURCE
        for key, value in (("BEFORE", before), ("STORE", store), ("AFTER", after), ("ACC", accumulator), ("PACKED", str(int(packed)))):
            text = text.replace(key, value)
        source.write_text(text)
        subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", str(target), str(source)], check=True)
    return str(target)


def entry(shape, packed: bool = False, oracle: str | None = None, choice=None) -> dict:
    """Kernel entry of a variant for x of `shape` (N, C, H, W)."""
    n, c, h, w = shape
    weight = {"name": "weight", "kind": "param", "shape": [c, 1, 3, 3], "perm": None, "dtype": "float32"}
    second = {"name": "packed0", "kind": "packed", "shape": [c, 9], "perm": None, "dtype": "float32"} if packed else weight
    made = {"symbol": "k", "prepare": {"symbol": "k_prepare", "args": [weight, second]} if packed else None, "choice": choice or {},
            "args": [{"name": "x", "kind": "input", "shape": ["N", "C", h, w], "perm": None, "dtype": "float32"}, second,
                     {"name": "out", "kind": "output", "shape": [n, c, h, w], "perm": None, "dtype": "float32"}]}
    return {**made, "oracle": oracle} if oracle else made
