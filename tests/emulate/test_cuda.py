"""The emulation of CUDA: right where a GPU is right, loud where a kernel relies on luck."""

import shutil

import numpy as np
import pytest

from convgen.emulate import cuda
from convgen.errors import WorkerError
from tests.emulate.sources import HEADER, REDUCE, entry, run, tensor

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="emulating CUDA kernels needs g++")
random = np.random.default_rng(0)


def kernel(body, args="float* __restrict__ out, float* __restrict__ x", name="k", threads=64):
    """CUDA C of one kernel in TVM's manner."""
    return f'{HEADER}\nextern "C" __global__ void __launch_bounds__({threads}) {name}({args}) {{\n{body}\n}}\n'


def one(folder, body, x, shape, grid=1, block=64, shared=0, times=1, dtypes=("float32", "float32"), args=None, sanitizer=None):
    """Outputs of a kernel of one input and one output."""
    made = entry([("k", ["out", "x"], grid, block, shared)], [tensor("x", "input", x, dtypes[1]), tensor("out", "output", shape, dtypes[0])])
    return [r["out"] for r in run(folder, kernel(body, *([args] if args else [])), made, {"x": x}, times, sanitizer)]


def test_barriers_shared_memory_and_shuffles(tmp_path):
    x = random.integers(-50, 50, (5, 300)).astype(np.float32)
    made = entry([("sums", ["out", "x", {"size": "L"}], 5, 128, 16)], [tensor("x", "input", x), tensor("out", "output", (5,))])
    for found in run(tmp_path, REDUCE, made, {"x": x}, times=3, dims={"L": 300}):
        assert (found["out"] == x.sum(1)).all()


def test_every_index_of_grid_and_block(tmp_path):
    body = """  int at = ((blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x) * (blockDim.x * blockDim.y * blockDim.z)
      + (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  out[at] = x[at] + blockIdx.x * 1e1f + blockIdx.y * 1e2f + blockIdx.z * 1e3f + threadIdx.x * 1e4f + threadIdx.y * 1e5f + threadIdx.z * 1e6f;"""
    x = np.zeros(2 * 3 * 4 * 2 * 3 * 4, np.float32)
    (found,) = one(tmp_path, body, x, x.shape, (2, 3, 4), (2, 3, 4))
    bz, by, bx, tz, ty, tx = np.indices((4, 3, 2, 4, 3, 2))
    assert (found == (bx * 1e1 + by * 1e2 + bz * 1e3 + tx * 1e4 + ty * 1e5 + tz * 1e6).ravel().astype(np.float32)).all()


@pytest.mark.parametrize("exchange, source", [("__shfl_xor_sync(0xffffffffu, v, 5, 32)", lambda i: i ^ 5), ("__shfl_sync(0xffffffffu, v, 3, 32)", lambda i: i // 32 * 32 + 3),
                                              ("__shfl_up_sync(0xffffffffu, v, 2, 32)", lambda i: i - 2 if i % 32 >= 2 else i), ("__shfl_down_sync(0xffffffffu, v, 7, 32)", lambda i: i + 7 if i % 32 < 25 else i)])
def test_exchange_between_lanes(tmp_path, exchange, source):
    x = random.standard_normal(64).astype(np.float32)
    (found,) = one(tmp_path, f"  float v = x[threadIdx.x];\n  out[threadIdx.x] = {exchange};", x, x.shape)
    assert (found == x[[source(i) for i in range(64)]]).all()


@pytest.mark.parametrize("kind, dtype", [("half", "float16"), ("nv_bfloat16", "bfloat16")])
def test_narrow_floats_round_as_torch_does(tmp_path, kind, dtype):
    """Every pattern of bits widens exactly; ties, subnormals, overflow and NaN narrow as in PyTorch."""
    import torch
    patterns = torch.arange(65536, dtype=torch.int32).to(torch.int16).view(getattr(torch, dtype))
    wide = patterns.float()
    between = torch.cat([(wide[:-1] + wide[1:]) / 2, wide * 1.0001, torch.tensor([1e30, -65519.0, 65520.0, 1e-9, 3.4e38])])
    values = torch.cat([wide, between[:131072 - 65536]]).numpy()
    body = f"  int i = blockIdx.x * 256 + threadIdx.x;\n  out[i] = ({kind})x[i];\n  x[i] = (float)out[i];"
    made = entry([("k", ["out", "x"], values.size // 256, 256, 0)], [tensor("x", "input", values), tensor("out", "output", values.shape, dtype)])
    (found,) = run(tmp_path, kernel(body, f"{kind}* __restrict__ out, float* __restrict__ x", threads=256), made, {"x": values})
    expected = torch.from_numpy(values).to(getattr(torch, dtype))
    bits = torch.from_numpy(found["out"].view(np.int16).copy()).view(getattr(torch, dtype))
    assert torch.equal(bits.isnan(), expected.isnan()) and torch.equal(bits[~expected.isnan()], expected[~expected.isnan()])


def test_vectors_pack_and_unpack(tmp_path):
    body = """  float4 v = *(float4*)(x + threadIdx.x * 4);
  uint2 packed = make_uint2(__float_as_uint(v.x), __float_as_uint(v.w));
  *(float2*)(out + threadIdx.x * 4) = make_float2(v.y, v.z);
  *(uint2*)(out + threadIdx.x * 4 + 2) = packed;"""
    x = random.standard_normal(256).astype(np.float32)
    (found,) = one(tmp_path, body, x, x.shape)
    assert (found.reshape(-1, 4) == x.reshape(-1, 4)[:, [1, 2, 0, 3]]).all()


@pytest.mark.parametrize("layout, given", [("row_major", lambda b: b), ("col_major", lambda b: b.T)])
def test_matrices_of_a_warp(tmp_path, layout, given):
    body = f"""  using namespace nvcuda::wmma;
  fragment<matrix_a, 16, 16, 16, half, row_major> a;
  fragment<matrix_b, 16, 16, 16, half, {layout}> b;
  fragment<accumulator, 16, 16, 16, float> c;
  __shared__ half left[256];
  for (int i = threadIdx.x; i < 256; i += 32) left[i] = x[i];
  __syncthreads();
  fill_fragment(c, 1.0f);
  load_matrix_sync(a, left, 16);
  load_matrix_sync(b, x + 256, 16);
  mma_sync(c, a, b, c);
  store_matrix_sync(out, c, 16, mem_row_major);"""
    a, b = random.integers(-4, 5, (2, 16, 16)).astype(np.float16)
    x = np.concatenate([a.ravel(), np.ascontiguousarray(given(b)).ravel()])
    (found,) = one(tmp_path, body, x, (16, 16), block=32, dtypes=("float32", "float16"), args="float* __restrict__ out, half* __restrict__ x")
    assert (found == a.astype(np.float32) @ b.astype(np.float32) + 1).all()


def test_atomics_and_integers(tmp_path):
    x = random.integers(-100, 100, 64).astype(np.float32)
    (found,) = one(tmp_path, "  if (threadIdx.x < 4) out[threadIdx.x] = 0;\n  __syncthreads();\n  atomicAdd(&out[threadIdx.x % 4], x[threadIdx.x]);", x, (4,))
    assert (found == x.reshape(-1, 4).sum(0)).all()
    words = random.integers(-2**31, 2**31, (3, 64)).astype(np.int32)
    (found,) = one(tmp_path, "  int i = threadIdx.x;\n  out[i] = __dp4a(x[i], x[64 + i], x[128 + i]);", words, (64,), dtypes=("int32", "int32"), args="int* __restrict__ out, int* __restrict__ x")
    bytes_of = lambda w: w.view(np.int8).reshape(-1, 4).astype(np.int64)
    assert (found == ((bytes_of(words[0]) * bytes_of(words[1])).sum(1) + words[2]).astype(np.int32)).all()


def test_an_operation_rounded_at_once_is_not_contracted(tmp_path):
    x = (1 + random.integers(1, 4096, 64) * 2.0**-23).astype(np.float32)
    (found,) = one(tmp_path, "  float v = x[threadIdx.x];\n  out[threadIdx.x] = __fadd_rn(__fmul_rn(v, v), -1.0f);", x, x.shape)
    assert (found == x * x - np.float32(1)).all()


WRONG = {
    "a missing barrier": ("  __shared__ float s[64];\n  s[threadIdx.x] = x[threadIdx.x];\n  out[threadIdx.x] = s[63 - threadIdx.x];", "differ"),
    "a write before others have read": ("""  __shared__ float s[64];
  s[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  float v = s[(threadIdx.x + 1) % 64];
  s[threadIdx.x] = v;
  out[threadIdx.x] = v;""", "differ"),
    "a write behind an array": ("  __shared__ float s[64];\n  s[threadIdx.x + 1] = 1;\n  __syncthreads();\n  out[threadIdx.x] = s[threadIdx.x];", "beside an array"),
    "a read behind a register": ("  float s[4];\n  for (int i = 0; i < 4; i++) s[i] = x[threadIdx.x];\n  out[threadIdx.x] = s[1 + threadIdx.x % 4];", "beside an array"),
    "a write behind shared memory": ("  __shared__ float s[64];\n  float* p = s;\n  p[threadIdx.x + 1] = 1;\n  __syncthreads();\n  out[threadIdx.x] = s[threadIdx.x];", "beside shared array"),
    "a write behind the output": ("  out[threadIdx.x + 1] = x[threadIdx.x];", "overwritten"),
    "a write before the input": ("  out[threadIdx.x] = x[threadIdx.x];\n  if (threadIdx.x == 9) x[-1] = 3;", "overwritten"),
    "uninitialised shared memory": ("  __shared__ float s[64];\n  out[threadIdx.x] = s[threadIdx.x] + x[threadIdx.x];", "not written"),
    "a missing element": ("  if (threadIdx.x) out[threadIdx.x] = x[threadIdx.x];", "not written"),
    "different barriers": ("  if (threadIdx.x < 32) {\n    __syncthreads();\n  } else {\n    __syncthreads();\n  }\n  out[threadIdx.x] = x[threadIdx.x];", "wait in lines"),
    "a thread that leaves": ("  if (threadIdx.x == 5) return;\n  __syncthreads();\n  out[threadIdx.x] = x[threadIdx.x];", "ended while others wait"),
    "a lane that does not take part": ("  float v = x[threadIdx.x];\n  if (threadIdx.x % 32 < 16) v = __shfl_xor_sync(0xffffffffu, v, 1, 32);\n  __syncthreads();\n  out[threadIdx.x] = v;", "waits elsewhere"),
    "a misaligned vector": ("  *(float4*)(out + threadIdx.x) = make_float4(0, 0, 0, 0);", "not aligned"),
    "a wild pointer": ("  out[threadIdx.x] = x[1 << 28];", "SIGSEGV"),
    "an endless loop": ("  volatile int go = 1;\n  while (go) {}\n  out[threadIdx.x] = x[threadIdx.x];", "did not end"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_faults_are_noticed(tmp_path, fault, monkeypatch):
    """Each fault fails by a message of its own: as an exception, a damaged canary, an unwritten element or a result that depends on the order of threads."""
    if fault == "an endless loop":
        monkeypatch.setattr(cuda, "TIME", 3.0)
    body, message = WRONG[fault]
    x = random.standard_normal(64).astype(np.float32)
    try:
        found = one(tmp_path, body, x, x.shape, times=3)
    except (WorkerError, AssertionError) as error:
        seen = str(error).replace("before", "overwritten").replace("after", "overwritten")
    else:
        seen = "not written" if not all(np.isfinite(f).all() for f in found) else "differ" if not all((f == found[0]).all() for f in found) else "nothing"
        if message == "differ" and seen == "not written":
            seen = "differ"  # the first thread met memory that none had written
    assert message in seen


def test_order_of_blocks_shows(tmp_path):
    """Blocks that read what other blocks write give different results from call to call."""
    made = entry([("k", ["out", "x"], 8, 64, 0)], [tensor("x", "input", (1,)), tensor("out", "output", (8,))])
    body = "  if (threadIdx.x == 0) {\n    out[blockIdx.x] = x[0];\n    x[0] = x[0] + 1;\n  }"
    first, second = run(tmp_path, kernel(body), made, {"x": np.zeros(1, np.float32)}, times=2)
    assert sorted(first["out"]) == sorted(second["out"]) == list(range(8)) and (first["out"] != second["out"]).any()


def test_temporaries_are_guarded_and_stale(tmp_path):
    x = np.ones(64, np.float32)
    args = [tensor("x", "input", x), tensor("out", "output", x)]
    temporary = {"name": "t", "shape": [64], "dtype": "float32"}
    source = kernel("  t[threadIdx.x] = x[threadIdx.x] + 1;", "float* __restrict__ t, float* __restrict__ x", "a") + kernel("  out[threadIdx.x] = t[63 - threadIdx.x];", "float* __restrict__ out, float* __restrict__ t", "b").replace(HEADER, "")
    (found,) = run(tmp_path, source, entry([("a", ["t", "x"], 1, 64, 0), ("b", ["out", "t"], 1, 64, 0)], args, [temporary]), {"x": x})
    assert (found["out"] == 2).all()
    (found,) = run(tmp_path, source, entry([("b", ["out", "t"], 1, 64, 0)], args, [temporary]), {"x": x})
    assert np.isnan(found["out"]).all()
    with pytest.raises(WorkerError, match="the temporary t was overwritten"):
        run(tmp_path, source.replace("t[threadIdx.x]", "t[threadIdx.x + 1]"), entry([("a", ["t", "x"], 1, 64, 0), ("b", ["out", "t"], 1, 64, 0)], args, [temporary]), {"x": x})


def test_what_does_not_compile_is_one_sentence(tmp_path):
    with pytest.raises(WorkerError, match="g\\+\\+ refuses the emulated kernel: .*nonsense") as caught:
        one(tmp_path, "  out[0] = nonsense;", np.zeros(1, np.float32), (1,))
    assert caught.value.kind == "compile_error"


def test_a_missing_compiler_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(cuda.shutil, "which", lambda name: None)
    with pytest.raises(WorkerError, match="needs g\\+\\+"):
        one(tmp_path, "  out[0] = 0;", np.zeros(1, np.float32), (1,))


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer, body, message", [
    ("address", "  out[threadIdx.x] = x[threadIdx.x + 1];", "heap-buffer-overflow|use-after-poison"),
    ("address", "  __shared__ float s[64];\n  s[threadIdx.x] = x[threadIdx.x];\n  __syncthreads();\n  float* p = s;\n  out[threadIdx.x] = p[threadIdx.x + 1];", "use-after-poison"),
    ("thread", "  __shared__ float s[64];\n  s[threadIdx.x] = x[threadIdx.x];\n  if (threadIdx.x == 0) s[1] = x[1];\n  __syncthreads();\n  out[threadIdx.x] = s[threadIdx.x];", "data race"),
    ("thread", "  if (threadIdx.x < 2) out[0] = x[0];\n  out[threadIdx.x] = x[threadIdx.x];", "data race"),
])
def test_sanitizers_find_what_gives_the_right_result(tmp_path, sanitizer, body, message):
    """Faults without consequences: reads beside the data, races that write equal values."""
    x = np.ones(64, np.float32)
    with pytest.raises(WorkerError, match=message):
        one(tmp_path, body, x, x.shape, sanitizer=sanitizer)


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", ["address", "thread"])
def test_sanitizers_accept_what_is_right(tmp_path, sanitizer):
    x = random.integers(-50, 50, (5, 300)).astype(np.float32)
    made = entry([("sums", ["out", "x", {"size": "L"}], 5, 128, 16)], [tensor("x", "input", x), tensor("out", "output", (5,))])
    for found in run(tmp_path, REDUCE, made, {"x": x}, times=3, sanitizer=sanitizer, dims={"L": 300}):
        assert (found["out"] == x.sum(1)).all()
