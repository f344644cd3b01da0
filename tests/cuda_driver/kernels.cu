// Kernels of the test library, by their definitions: one thread per element, sizes fixed but for the batch.
extern "C" __global__ void __launch_bounds__(64) conv_prepare_kernel(float* __restrict__ packed, float* __restrict__ weight) {
  int i = blockIdx.x * 64 + threadIdx.x;  // packed[c][kh][kw][o] of weight[o][c][kh][kw]
  if (i < 288) packed[i] = weight[i % 8 * 36 + i / 8];
}

extern "C" __global__ void __launch_bounds__(64) conv_run_kernel(float* __restrict__ padded, float* __restrict__ x) {
  int i = blockIdx.x * 64 + threadIdx.x;
  if (i < 256) {
    int c = i / 64, h = i / 8 % 8 - 1, w = i % 8 - 1;
    padded[i] = h >= 0 && h < 6 && w >= 0 && w < 6 ? x[c * 36 + h * 6 + w] : 0.0f;
  }
}

extern "C" __global__ void __launch_bounds__(64) conv_run_kernel_1(float* __restrict__ out, float* __restrict__ packed, float* __restrict__ padded) {
  int i = blockIdx.x * 64 + threadIdx.x;
  if (i < 288) {
    int o = i / 36, h = i / 6 % 6, w = i % 6;
    float sum = 0.0f;
    for (int c = 0; c < 4; c++)
      for (int k = 0; k < 9; k++) sum += padded[c * 64 + (h + k / 3) * 8 + w + k % 3] * packed[(c * 9 + k) * 8 + o];
    out[i] = sum;
  }
}

extern "C" __global__ void __launch_bounds__(128) batch_run_kernel(float* __restrict__ out, float* __restrict__ weight, float* __restrict__ x, int N) {
  int i = blockIdx.x * 128 + threadIdx.x;
  if (i < N * 200) {
    int n = i / 200, o = i / 25 % 8, h = i / 5 % 5, w = i % 5;
    float sum = 0.0f;
    for (int c = 0; c < 4; c++)
      for (int k = 0; k < 9; k++) {
        int y = h + k / 3 - 1, z = w + k % 3 - 1;
        if (y >= 0 && y < 5 && z >= 0 && z < 5) sum += x[((n * 4 + c) * 5 + y) * 5 + z] * weight[(o * 4 + c) * 9 + k];
      }
    out[i] = sum;
  }
}

extern "C" __global__ void __launch_bounds__(120) gate_run_kernel(float* __restrict__ gate, float* __restrict__ out, float* __restrict__ x) {
  extern __shared__ float row[];
  row[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = row[threadIdx.x] * gate[threadIdx.x / 20];
}
