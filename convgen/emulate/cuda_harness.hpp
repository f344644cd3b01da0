// CUDA C on a processor: included in front of a kernel file whose own #include <cuda...> lines are left out. One thread of the system runs everything; a CUDA
// thread is a context of its own that runs until it meets a barrier. Threads of a block, and blocks, take turns in an order that a seed chooses, so code that
// relies on an order gives different results. Shared memory starts as NaN, with canaries around every array.
#pragma once
#include <ctype.h>
#include <fcntl.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>
#include <type_traits>
#include <utility>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __CUDACC_VER_MAJOR__ 13
#define __CUDACC_VER_MINOR__ 0

// -- the machine ----------------------------------------------------------------------------------------------------------------------------
namespace emulated {

[[noreturn]] inline void fail(const char* kind, const char* format, auto... values) {
  fprintf(stderr, "%s: ", kind);
  fprintf(stderr, format, values...);
  fprintf(stderr, "\n");
  _exit(3);
}

struct Place { unsigned x, y, z; };
struct Argument { void* pointer; long long number; };
using Body = void (*)(const Argument*);

enum State { running, at_block, at_warp, ended };
struct Thread {
  ucontext_t context;
  Place at;
  State state;
  int line;
  unsigned mask;
  char* stack;
  void* fiber;
};

constexpr size_t STACK = 256 << 10, GUARD = 64;
constexpr int MOST = 1024, SLOTS = 64;
inline Thread threads[MOST];
inline Thread* current;
inline ucontext_t scheduler;
inline unsigned lane_values[MOST][4];  // what lanes of a warp show each other
inline Place block_of_grid, extent_of_block, extent_of_grid;
inline int count;
inline Body body;
inline const Argument* arguments;
inline char* shared;  // arrays of shared memory with canaries between them
inline size_t shared_used, slot_at[SLOTS], slot_bytes[SLOTS], dynamic_bytes;
constexpr size_t SHARED = 512 << 10;
constexpr unsigned char CANARY = 0xA5;

// The sanitizers are told of every change of stack. ThreadSanitizer learns that switching orders nothing: only barriers do.
#if defined(__SANITIZE_ADDRESS__)
inline const void* home;
inline size_t home_bytes;
inline void leave(void** kept, const void* stack, size_t bytes) { __sanitizer_start_switch_fiber(kept, stack, bytes); }
inline void arrive(void* kept, const void** from, size_t* bytes) { __sanitizer_finish_switch_fiber(kept, from, bytes); }
inline void poison(void* p, size_t n) { __asan_poison_memory_region(p, n); }
inline void unpoison(void* p, size_t n) { __asan_unpoison_memory_region(p, n); }
#else
inline const void* home;
inline size_t home_bytes;
inline void leave(void**, const void*, size_t) {}
inline void arrive(void*, const void**, size_t*) {}
inline void poison(void*, size_t) {}
inline void unpoison(void*, size_t) {}
#endif
#if defined(__SANITIZE_THREAD__)
#define EMULATED_QUIET __attribute__((no_sanitize("thread"), noinline))  // the machine's own state is not the kernel's
inline void* new_fiber() { return __tsan_create_fiber(0); }
inline void enter_fiber(void* f) { __tsan_switch_to_fiber(f, 1); }
inline void* this_fiber() { return __tsan_get_current_fiber(); }
inline void release(void* p) { __tsan_release(p); }
inline void acquire(void* p) { __tsan_acquire(p); }
#else
#define EMULATED_QUIET inline
inline void* new_fiber() { return nullptr; }
inline void enter_fiber(void*) {}
inline void* this_fiber() { return nullptr; }
inline void release(void*) {}
inline void acquire(void*) {}
#endif
inline void* home_fiber;
inline char barrier_of_block, barrier_of_warp[MOST / 32], launch_begin, launch_end;

EMULATED_QUIET void wait(State state, int line, unsigned mask) {
  Thread* self = current;
  self->state = state;
  self->line = line;
  self->mask = mask;
  void* kept;
  leave(&kept, home, home_bytes);
  enter_fiber(home_fiber);
  swapcontext(&self->context, &scheduler);
  arrive(kept, &home, &home_bytes);
}

EMULATED_QUIET void resume(Thread* t) {
  t->state = running;
  current = t;
  void* kept;
  leave(&kept, t->stack, STACK);
  home_fiber = this_fiber();
  enter_fiber(t->fiber);
  swapcontext(&scheduler, &t->context);
  arrive(kept, nullptr, nullptr);
}

EMULATED_QUIET int index_here() { return int(current->at.x + extent_of_block.x * (current->at.y + extent_of_block.y * current->at.z)); }
EMULATED_QUIET Place thread_here() { return current->at; }
EMULATED_QUIET Place block_here() { return block_of_grid; }
EMULATED_QUIET Place block_extent() { return extent_of_block; }
EMULATED_QUIET Place grid_extent() { return extent_of_grid; }

inline void block_barrier(int line) {
  release(&barrier_of_block);
  wait(at_block, line, ~0u);
  acquire(&barrier_of_block);
}

inline void warp_barrier(int line, unsigned mask) {
  char* place = &barrier_of_warp[index_here() / 32];
  release(place);
  wait(at_warp, line, mask);
  acquire(place);
}

EMULATED_QUIET void run_body() { body(arguments); }

inline void entry() {
  arrive(nullptr, &home, &home_bytes);
  for (;;) {
    acquire(&launch_begin);
    run_body();
    release(&launch_end);
    wait(ended, 0, 0);
  }
}

// Not memset: that would be an access that the sanitizers see.
EMULATED_QUIET void fill(char* p, unsigned char byte, size_t n) {
  for (volatile char* at = p; n--;) *at++ = char(byte);
}

// Array number `slot` of shared memory; its place is known after the first call.
EMULATED_QUIET void* shared_array(int slot, size_t bytes) {
  if (!slot_bytes[slot]) {
    slot_at[slot] = shared_used + GUARD;
    slot_bytes[slot] = bytes;
    shared_used = (slot_at[slot] + bytes + GUARD + 63) / 64 * 64;
    if (shared_used > SHARED) fail("crash", "%zu bytes of shared memory", shared_used);
    unpoison(shared + slot_at[slot], bytes);
    fill(shared + slot_at[slot], 0xFF, bytes);
  }
  return shared + slot_at[slot];
}

EMULATED_QUIET void fresh_shared() {
#if defined(__SANITIZE_THREAD__)
  // Nothing orders blocks, so what one has read last the next may write: each has memory of its own, made without the sanitizer's knowledge.
  shared = (char*)syscall(SYS_mmap, nullptr, SHARED, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  shared_used = 0;  // all of it is new, however little the last block took
#endif
  unpoison(shared, SHARED);
  fill(shared, CANARY, shared_used ? shared_used : SHARED);
  shared_used = 0;
  memset(slot_bytes, 0, sizeof slot_bytes);
  poison(shared, SHARED);
}

EMULATED_QUIET void check_shared() {
  unpoison(shared, SHARED);
  for (int s = 0; s < SLOTS; s++)
    for (size_t i = 0; slot_bytes[s] && i < GUARD; i++)
      if ((unsigned char)shared[slot_at[s] - 1 - i] != CANARY || (unsigned char)shared[slot_at[s] + slot_bytes[s] + i] != CANARY)
        fail("wrong", "memory beside shared array %d was overwritten", s);
}

inline unsigned long long random_state;
inline unsigned random_below(unsigned n) {
  random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
  return unsigned((random_state >> 33) % n);
}

// An order of n: as they come for seed 0, backwards for 1, else shuffled.
inline void order(int* out, int n, unsigned seed) {
  for (int i = 0; i < n; i++) out[i] = seed == 1 ? n - 1 - i : i;
  if (seed > 1)
    for (int i = n - 1; i > 0; i--) std::swap(out[i], out[random_below(i + 1)]);
}

inline void start(Thread& t) {
  if (!t.stack) t.stack = (char*)mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (!t.fiber) t.fiber = new_fiber();
  getcontext(&t.context);
  t.context.uc_stack.ss_sp = t.stack;
  t.context.uc_stack.ss_size = STACK;
  t.context.uc_link = nullptr;
  makecontext(&t.context, entry, 0);
}

// Threads of one block until all have ended, one barrier to the next. All of a block must meet at the same barrier, all of a warp's mask at the same exchange.
inline void run_block(const int* turn, unsigned shift) {
  for (int i = 0; i < count; i++) {
    Thread& t = threads[(i + shift) % count];
    t.at = {unsigned(i) % extent_of_block.x, unsigned(i) / extent_of_block.x % extent_of_block.y, unsigned(i) / extent_of_block.x / extent_of_block.y};
    t.state = running;
  }
  for (int left = count; left;) {
    for (int i = 0; i < count; i++) {
      Thread& t = threads[(turn[i] + shift) % count];
      if (t.state != running) continue;
      resume(&t);
      left -= t.state == ended;
    }
    bool moved = false;
    for (int warp = 0; warp * 32 < count; warp++) {
      int first = -1;
      for (int i = warp * 32; i < count && i < warp * 32 + 32; i++) {
        Thread& t = threads[(i + shift) % count];
        if (t.state != at_warp) continue;
        if (first < 0) first = (i + shift) % count;
        else if (t.line != threads[first].line || t.mask != threads[first].mask) fail("wrong", "lanes of a warp wait in lines %d and %d", threads[first].line, t.line);
      }
      if (first < 0) continue;
      for (int i = warp * 32; i < count && i < warp * 32 + 32; i++) {
        Thread& t = threads[(i + shift) % count];
        if (t.state != at_warp && t.state != ended && threads[first].mask >> (i % 32) & 1) fail("wrong", "line %d waits for lane %d of warp %d, which waits elsewhere", threads[first].line, i % 32, warp);
        if (t.state == at_warp) t.state = running, moved = true;
      }
    }
    if (moved || !left) continue;
    int line = -1;
    for (int i = 0; i < count; i++) {
      Thread& t = threads[(i + shift) % count];
      if (t.state == ended) fail("wrong", "thread %d ended while others wait at a barrier", i);
      if (line >= 0 && t.line != line) fail("wrong", "threads of a block wait in lines %d and %d", line, t.line);
      line = t.line;
      t.state = running;
    }
  }
}

// Threads of one block, one after another: for kernels in which no thread waits.
inline void run_alone(const int* turn) {
  static Thread lone;
  current = &lone;
  for (int i = 0; i < count; i++) {
    unsigned n = unsigned(turn[i]);
    lone.at = {n % extent_of_block.x, n / extent_of_block.x % extent_of_block.y, n / extent_of_block.x / extent_of_block.y};
    body(arguments);
  }
}

inline void launch(Body f, bool waits, Place grid, Place block, size_t dynamic, const Argument* a, unsigned seed) {
  body = f, arguments = a, extent_of_grid = grid, extent_of_block = block, dynamic_bytes = dynamic;
  count = int(block.x * block.y * block.z);
  if (count > MOST) fail("invalid", "%d threads in a block", count);
  if (!shared) shared = (char*)aligned_alloc(128, SHARED);
#if defined(__SANITIZE_THREAD__)
  waits = true;  // every thread needs a history of its own
#endif
  random_state = seed;
  for (int i = 0; waits && i < count; i++) start(threads[i]);
  release(&launch_begin);
  unsigned blocks = grid.x * grid.y * grid.z;
  int* turn = (int*)malloc(sizeof(int) * count);
  int* places = (int*)malloc(sizeof(int) * blocks);
  order(places, int(blocks), seed);
  for (unsigned b = 0; b < blocks; b++) {
    unsigned n = unsigned(places[b]);
    block_of_grid = {n % grid.x, n / grid.x % grid.y, n / grid.x / grid.y};
    order(turn, count, seed);
    fresh_shared();
    waits ? run_block(turn, b * 37 % count) : run_alone(turn);
    check_shared();
  }
  acquire(&launch_end);
  free(turn);
  free(places);
}

template <class T> T argument(const Argument& a) {
  if constexpr (std::is_pointer_v<T>) return (T)a.pointer;
  else return (T)a.number;
}
template <class... A, size_t... I> void apply(void (*f)(A...), const Argument* a, std::index_sequence<I...>) { f(argument<A>(a[I])...); }
template <class... A> void apply(void (*f)(A...), const Argument* a) { apply(f, a, std::index_sequence_for<A...>()); }
template <auto F> void call(const Argument* a) { apply(F, a); }

struct Kernel { const char* name; Body body; bool waits; };

// Reads from the standard input: a seed; buffers as "path offset bytes"; launches as "kernel grid block shared arguments", an argument being "b number" or "n value".
inline int serve(const Kernel* kernels, int known) {
  unsigned seed;
  int buffers, launches;
  if (scanf("%u %d", &seed, &buffers) != 2) fail("invalid", "no plan");
  char** base = (char**)calloc(buffers, sizeof(char*));
  char** own = (char**)calloc(buffers, sizeof(char*));
  size_t* sizes = (size_t*)calloc(buffers, sizeof(size_t));
  for (int i = 0; i < buffers; i++) {
    char path[4096];
    size_t at, whole;
    if (scanf(" %4095s %zu %zu %zu", path, &at, &sizes[i], &whole) != 4) fail("invalid", "buffer %d", i);
    int file = open(path, O_RDWR);
    char* memory = file < 0 ? (char*)MAP_FAILED : (char*)mmap(nullptr, whole, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (memory == MAP_FAILED) fail("invalid", "cannot map %s", path);
    close(file);
    base[i] = own[i] = memory + at;
#if defined(__SANITIZE_ADDRESS__)
    own[i] = (char*)aligned_alloc(64, (sizes[i] + 63) / 64 * 64);  // the redzone of a block of memory
    memcpy(own[i], base[i], sizes[i]);
    poison(own[i] + sizes[i], (64 - sizes[i] % 64) % 64);
#endif
  }
  if (scanf("%d", &launches) != 1) fail("invalid", "no launches");
  for (int l = 0; l < launches; l++) {
    char name[512];
    Place grid, block;
    size_t dynamic;
    int n;
    if (scanf(" %511s %u %u %u %u %u %u %zu %d", name, &grid.x, &grid.y, &grid.z, &block.x, &block.y, &block.z, &dynamic, &n) != 9 || n > 64) fail("invalid", "launch %d", l);
    Argument a[64] = {};
    for (int i = 0; i < n; i++) {
      char kind;
      long long value;
      if (scanf(" %c %lld", &kind, &value) != 2) fail("invalid", "argument %d of %s", i, name);
      if (kind == 'b') a[i].pointer = own[value];
      else a[i].number = value;
    }
    const Kernel* found = nullptr;
    for (int k = 0; k < known; k++)
      if (!strcmp(kernels[k].name, name)) found = kernels + k;
    if (!found) fail("invalid", "no kernel %s", name);
    launch(found->body, found->waits, grid, block, dynamic, a, seed);
  }
#if defined(__SANITIZE_ADDRESS__)
  for (int i = 0; i < buffers; i++) memcpy(base[i], own[i], sizes[i]);
#endif
  fflush(stderr);
  _exit(0);
}

}  // namespace emulated

#define threadIdx emulated::thread_here()
#define blockIdx emulated::block_here()
#define blockDim emulated::block_extent()
#define gridDim emulated::grid_extent()
#define warpSize 32
#define __syncthreads() emulated::block_barrier(__LINE__)
#define __syncwarp(...) emulated::warp_barrier(__LINE__, ~0u)
#define __threadfence() ((void)0)
#define __threadfence_block() ((void)0)
#define __activemask() (~0u)

// -- exchange within a warp -----------------------------------------------------------------------------------------------------------------
namespace emulated {
template <class T> T exchange(int line, unsigned mask, T value, auto source) {
  static_assert(sizeof(T) <= 16);
  int self = index_here();
  memcpy(lane_values[self], &value, sizeof(T));
  warp_barrier(line, mask);
  int lane = source(self % 32), other = self / 32 * 32 + lane;
  T found = value;
  if (lane >= 0 && lane < 32 && other < count) memcpy(&found, lane_values[other], sizeof(T));
  warp_barrier(line, mask);
  return found;
}
}  // namespace emulated
#define __shfl_sync(mask, v, lane, ...) emulated::exchange(__LINE__, mask, v, [&](int) { return int(lane) % 32; })
#define __shfl_xor_sync(mask, v, bits, ...) emulated::exchange(__LINE__, mask, v, [&](int self) { return self ^ int(bits); })
#define __shfl_down_sync(mask, v, by, ...) emulated::exchange(__LINE__, mask, v, [&](int self) { return self + int(by); })
#define __shfl_up_sync(mask, v, by, ...) emulated::exchange(__LINE__, mask, v, [&](int self) { return self - int(by); })

template <class T> T atomicAdd(T* p, T v) { T old = *p; *p = old + v; return old; }
template <class T> T atomicMax(T* p, T v) { T old = *p; *p = old > v ? old : v; return old; }
template <class T> T atomicMin(T* p, T v) { T old = *p; *p = old < v ? old : v; return old; }
template <class T> T atomicExch(T* p, T v) { T old = *p; *p = v; return old; }
template <class T> T atomicCAS(T* p, T expected, T v) { T old = *p; if (old == expected) *p = v; return old; }
template <class T> T __ldg(const T* p) { return *p; }

// -- arithmetic: what is rounded at once stays apart from the compiler's contractions ---------------------------------------------------------
namespace emulated {
inline float rounded(float v) { asm volatile("" : "+m"(v)); return v; }
}
inline float __fadd_rn(float a, float b) { return emulated::rounded(a + b); }
inline float __fsub_rn(float a, float b) { return emulated::rounded(a - b); }
inline float __fmul_rn(float a, float b) { return emulated::rounded(a * b); }
inline float __fdiv_rn(float a, float b) { return emulated::rounded(a / b); }
inline float __fsqrt_rn(float a) { return emulated::rounded(sqrtf(a)); }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float rsqrtf(float a) { return 1.0f / sqrtf(a); }
inline int __float_as_int(float v) { int i; memcpy(&i, &v, 4); return i; }
inline float __int_as_float(int v) { float f; memcpy(&f, &v, 4); return f; }
inline unsigned __float_as_uint(float v) { unsigned i; memcpy(&i, &v, 4); return i; }
inline float __uint_as_float(unsigned v) { float f; memcpy(&f, &v, 4); return f; }
inline int __dp4a(int a, int b, int c) {
  for (int i = 0; i < 4; i++) c += int(int8_t(unsigned(a) >> 8 * i)) * int(int8_t(unsigned(b) >> 8 * i));
  return c;
}
inline float max(float a, float b) { return fmaxf(a, b); }
inline float min(float a, float b) { return fminf(a, b); }
inline int max(int a, int b) { return a > b ? a : b; }
inline int min(int a, int b) { return a < b ? a : b; }

// -- narrow floating point --------------------------------------------------------------------------------------------------------------------
namespace emulated {
inline uint32_t bits_of(float v) { uint32_t b; memcpy(&b, &v, 4); return b; }
inline float of_bits(uint32_t b) { float v; memcpy(&v, &b, 4); return v; }

// IEEE binary16, round to nearest even.
inline uint16_t to_half(float v) {
  uint32_t b = bits_of(v), sign = b >> 16 & 0x8000, size = b & 0x7FFFFFFF;
  if (size > 0x7F800000) return uint16_t(0x7FFF);
  if (size >= 0x47800000) return uint16_t(sign | 0x7C00);
  if (size < 0x38800000) return uint16_t(sign | uint32_t(bits_of(of_bits(size) + 0.5f) - 0x3F000000));  // 0.5 has the last place of a subnormal half
  return uint16_t(sign | (size - 0x38000000 + 0xFFF + (size >> 13 & 1)) >> 13);
}
inline float from_half(uint16_t h) {
  uint32_t sign = uint32_t(h & 0x8000) << 16, rest = h & 0x7FFF;
  if (rest >= 0x7C00) return of_bits(sign | 0x7F800000 | rest << 13);
  if (rest < 0x400) return of_bits(sign | bits_of(float(rest) * 0x1p-24f));
  return of_bits(sign | ((rest << 13) + 0x38000000));
}
inline uint16_t to_bfloat(float v) {
  uint32_t b = bits_of(v);
  if ((b & 0x7FFFFFFF) > 0x7F800000) return 0x7FFF;
  return uint16_t((b + 0x7FFF + (b >> 16 & 1)) >> 16);
}
inline float from_bfloat(uint16_t h) { return of_bits(uint32_t(h) << 16); }

template <uint16_t (*TO)(float), float (*FROM)(uint16_t)> struct Narrow {
  uint16_t bits;
  Narrow() = default;
  Narrow(float v) : bits(TO(v)) {}
  Narrow(double v) : bits(TO(float(v))) {}
  Narrow(int v) : bits(TO(float(v))) {}
  Narrow(unsigned v) : bits(TO(float(v))) {}
  operator float() const { return FROM(bits); }
  Narrow& operator+=(Narrow o) { return *this = Narrow(float(*this) + float(o)); }
  Narrow& operator-=(Narrow o) { return *this = Narrow(float(*this) - float(o)); }
  Narrow& operator*=(Narrow o) { return *this = Narrow(float(*this) * float(o)); }
  friend Narrow operator+(Narrow a, Narrow b) { return Narrow(float(a) + float(b)); }
  friend Narrow operator-(Narrow a, Narrow b) { return Narrow(float(a) - float(b)); }
  friend Narrow operator*(Narrow a, Narrow b) { return Narrow(float(a) * float(b)); }
  friend Narrow operator/(Narrow a, Narrow b) { return Narrow(float(a) / float(b)); }
  friend Narrow operator-(Narrow a) { return Narrow(-float(a)); }
  friend bool operator>(Narrow a, Narrow b) { return float(a) > float(b); }
  friend bool operator<(Narrow a, Narrow b) { return float(a) < float(b); }
  friend bool operator>=(Narrow a, Narrow b) { return float(a) >= float(b); }
  friend bool operator<=(Narrow a, Narrow b) { return float(a) <= float(b); }
  friend bool operator==(Narrow a, Narrow b) { return float(a) == float(b); }
};
}  // namespace emulated
using __half = emulated::Narrow<emulated::to_half, emulated::from_half>;
using __nv_bfloat16 = emulated::Narrow<emulated::to_bfloat, emulated::from_bfloat>;
using half = __half;
using nv_bfloat16 = __nv_bfloat16;
struct alignas(4) __half2 { __half x, y; };
struct alignas(4) __nv_bfloat162 { __nv_bfloat16 x, y; };
using half2 = __half2;
using nv_bfloat162 = __nv_bfloat162;
inline float __half2float(__half v) { return v; }
inline __half __float2half(float v) { return v; }
inline __half __float2half_rn(float v) { return v; }
inline float __bfloat162float(__nv_bfloat16 v) { return v; }
inline __nv_bfloat16 __float2bfloat16(float v) { return v; }
inline __nv_bfloat16 __float2bfloat16_rn(float v) { return v; }
inline __half2 __floats2half2_rn(float x, float y) { return {x, y}; }
inline __half2 make_half2(__half x, __half y) { return {x, y}; }
inline __half2 __halves2half2(__half x, __half y) { return {x, y}; }
inline unsigned short __half_as_ushort(__half v) { return v.bits; }
inline __half __ushort_as_half(unsigned short b) { __half v; v.bits = b; return v; }
#define EMULATED_NARROW(T)                                        \
  inline T __hadd(T a, T b) { return a + b; }                     \
  inline T __hsub(T a, T b) { return a - b; }                     \
  inline T __hmul(T a, T b) { return a * b; }                     \
  inline T __hfma(T a, T b, T c) { return T(fmaf(a, b, c)); }     \
  inline T __hmax(T a, T b) { return T(fmaxf(a, b)); }            \
  inline T __hmin(T a, T b) { return T(fminf(a, b)); }            \
  inline T __habs(T a) { return T(fabsf(a)); }                    \
  inline bool __hgt(T a, T b) { return a > b; }                   \
  inline bool __hlt(T a, T b) { return a < b; }                   \
  inline bool __hge(T a, T b) { return a >= b; }                  \
  inline bool __hle(T a, T b) { return a <= b; }                  \
  inline T hexp(T a) { return T(expf(a)); }                       \
  inline T hsqrt(T a) { return T(sqrtf(a)); }                     \
  inline T hfloor(T a) { return T(floorf(a)); }                   \
  inline T htanh(T a) { return T(tanhf(a)); }
EMULATED_NARROW(__half)
EMULATED_NARROW(__nv_bfloat16)
#undef EMULATED_NARROW
inline __half2 __hfma2(__half2 a, __half2 b, __half2 c) { return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)}; }
inline __half2 __hadd2(__half2 a, __half2 b) { return {a.x + b.x, a.y + b.y}; }
inline __half2 __hmul2(__half2 a, __half2 b) { return {a.x * b.x, a.y * b.y}; }

// -- vector types, aligned as CUDA aligns them: a misaligned access stops here, too -------------------------------------------------------------
#define EMULATED_VECTOR(name, T)                                                                                              \
  struct name##1 { T x; };                                                                                                    \
  struct alignas(2 * sizeof(T)) name##2 { T x, y; };                                                                          \
  struct name##3 { T x, y, z; };                                                                                              \
  struct alignas(sizeof(T) < 8 ? 4 * sizeof(T) : 16) name##4 { T x, y, z, w; };                                               \
  inline name##1 make_##name##1(T x) { return {x}; }                                                                          \
  inline name##2 make_##name##2(T x, T y) { return {x, y}; }                                                                  \
  inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }                                                          \
  inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
EMULATED_VECTOR(char, signed char)
EMULATED_VECTOR(uchar, unsigned char)
EMULATED_VECTOR(short, short)
EMULATED_VECTOR(ushort, unsigned short)
EMULATED_VECTOR(int, int)
EMULATED_VECTOR(uint, unsigned)
EMULATED_VECTOR(float, float)
EMULATED_VECTOR(double, double)
EMULATED_VECTOR(longlong, long long)
EMULATED_VECTOR(ulonglong, unsigned long long)
#undef EMULATED_VECTOR

// -- matrices of a warp: its first lane holds, and computes, the whole one -------------------------------------------------------------------------
namespace nvcuda::wmma {
struct row_major {};
struct col_major {};
struct matrix_a {};
struct matrix_b {};
struct accumulator {};
enum layout_t { mem_row_major, mem_col_major };
inline bool elsewhere() { return emulated::index_here() % 32; }
template <class Use, int M, int N, int K, class T, class Layout = void> struct fragment {
  static constexpr int rows = std::is_same_v<Use, matrix_b> ? K : M, columns = std::is_same_v<Use, matrix_a> ? K : N;
  T at[rows][columns];
};
template <class F, class T> void fill_fragment(F& f, T v) {
  if (elsewhere()) return;
  for (auto& row : f.at)
    for (auto& e : row) e = v;
}
template <class U, int M, int N, int K, class T, class L, class S> void load_matrix_sync(fragment<U, M, N, K, T, L>& f, const S* p, unsigned stride) {
  if (elsewhere()) return;
  for (int i = 0; i < f.rows; i++)
    for (int j = 0; j < f.columns; j++) f.at[i][j] = std::is_same_v<L, col_major> ? p[j * stride + i] : p[i * stride + j];
}
template <int M, int N, int K, class T, class S> void load_matrix_sync(fragment<accumulator, M, N, K, T>& f, const S* p, unsigned stride, layout_t l) {
  if (elsewhere()) return;
  for (int i = 0; i < M; i++)
    for (int j = 0; j < N; j++) f.at[i][j] = l == mem_col_major ? p[j * stride + i] : p[i * stride + j];
}
template <int M, int N, int K, class T, class S> void store_matrix_sync(S* p, const fragment<accumulator, M, N, K, T>& f, unsigned stride, layout_t l) {
  if (elsewhere()) return;
  for (int i = 0; i < M; i++)
    for (int j = 0; j < N; j++) p[l == mem_col_major ? j * stride + i : i * stride + j] = f.at[i][j];
}
template <int M, int N, int K, class A, class B, class C, class LA, class LB>
void mma_sync(fragment<accumulator, M, N, K, C>& d, const fragment<matrix_a, M, N, K, A, LA>& a, const fragment<matrix_b, M, N, K, B, LB>& b, const fragment<accumulator, M, N, K, C>& c) {
  if (elsewhere()) return;
  for (int i = 0; i < M; i++)
    for (int j = 0; j < N; j++) {
      float sum = float(c.at[i][j]);
      for (int k = 0; k < K; k++) sum += float(a.at[i][k]) * float(b.at[k][j]);
      d.at[i][j] = C(sum);
    }
}
}  // namespace nvcuda::wmma

#define EMULATED_DYNAMIC(type, name) type* const name = (type*)emulated::shared_array(emulated::SLOTS - 1, emulated::dynamic_bytes)
