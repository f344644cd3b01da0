"""Hand-written CUDA kernels as entries: what the harness must be able to do, and what it must notice."""

import numpy as np

from convgen.emulate import cuda

TARGET = {"isa": "sm_90"}


def tensor(name, kind, values, dtype=None):
    """An argument of an entry; `values`: array or shape."""
    shape = np.shape(values) if not isinstance(values, tuple) else values
    return {"name": name, "kind": kind, "shape": list(shape), "perm": None, "dtype": dtype or "float32"}


def entry(launches, args, temporaries=()):
    """An entry without prepare. Launches: (symbol, argument names, grid, block, dynamic shared bytes)."""
    pad = lambda n: [*n, 1, 1][:3] if isinstance(n, (tuple, list)) else [n, 1, 1]
    return {"args": args, "temporaries": list(temporaries), "prepare": None,
            "launches": [{"symbol": s, "args": list(a), "grid": pad(g), "block": pad(b), "shared": shared} for s, a, g, b, shared in launches]}


def run(folder, source, made, inputs, times=1, sanitizer=None, dims=None):
    """Outputs of every call, by name; inputs are {name: array}."""
    path = folder / "kernel.cu"
    path.write_text(source)
    kernel = cuda.EmulatedKernel(cuda.build(path, folder / "kernel", sanitizer=sanitizer), made, dims or {})
    buffers, found = kernel.buffers(made["args"]), []
    for _ in range(times):
        for a in made["args"]:
            if a["kind"] == "output":
                buffers[a["name"]].bytes[:] = 0xFF
            else:
                buffers[a["name"]].array[...] = inputs[a["name"]]
        kernel.caller(buffers)()
        damaged = [f"{name} {b.damaged()}" for name, b in buffers.items() if b.damaged()]
        assert not damaged, damaged
        found.append({a["name"]: buffers[a["name"]].array.copy() for a in made["args"] if a["kind"] == "output"})
    return found


HEADER = """#include <cstdint>
#include <cuda.h>
#include <cuda_fp16.h>
#include <cuda_bf16.h>
#include <mma.h>
"""

REDUCE = HEADER + """
extern "C" __global__ void __launch_bounds__(128) sums(float* __restrict__ out, float* __restrict__ x, int n) {
  __shared__ alignas(64) float part[128];
  extern __shared__ unsigned char more[];
  float sum = 0;
  for (int i = threadIdx.x; i < n; i += 128) sum += x[blockIdx.x * n + i];
  part[threadIdx.x] = sum;
  __syncthreads();
  for (int step = 64; step >= 32; step /= 2) {
    if ((int)threadIdx.x < step) part[threadIdx.x] += part[threadIdx.x + step];
    __syncthreads();
  }
  if (threadIdx.x < 32) {
    float v = part[threadIdx.x];
    for (int step = 16; step; step /= 2) v += __shfl_down_sync(0xffffffffu, v, step, 32);
    if (threadIdx.x == 0) ((float*)more)[0] = v;
  }
  __syncthreads();
  if (threadIdx.x == 127) out[blockIdx.x] = ((float*)more)[0];
}
"""
