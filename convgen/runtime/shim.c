/* The only native code convgen brings to a serving process. It is compiled when a library is exported, and travels inside it.
 *
 * Three parts: threads and scratch memory for TVM kernels (which otherwise need libtvm_runtime), and plans. A plan is a call
 * with everything fixed but the data pointers: it checks the tensors it is given against the shapes, strides and dtypes it was
 * built for, and runs one or two kernels. A plan never changes after it is made, so any number of threads may run it.
 *
 * The structures mirror dlpack.h and tvm/ffi/c_api.h (ABI 0.1), so that building this file needs no header of either.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef struct { int32_t type, id; } Device;
typedef struct { uint8_t code, bits; uint16_t lanes; } DataType;
typedef struct { void* data; Device device; int32_t ndim; DataType dtype; int64_t* shape; int64_t* strides; uint64_t offset; } Tensor;
typedef struct { int32_t type_index; uint32_t zero; union { int64_t i; void* p; }; } Any;
typedef int (*Kernel)(void*, const Any*, int32_t, Any*);
enum { ANY_NONE = 0, ANY_INT = 1, ANY_TENSOR_PTR = 7, ANY_FUNCTION = 68, ANY_TENSOR = 70, OBJECT_HEADER = 24, CPU = 1, ALIGN = 64 };

extern int TVMFFIFunctionCreate(void* self, Kernel call, void (*deleter)(void*), void** out);
extern void TVMFFIErrorMoveFromRaised(void** out);
extern void TVMFFIErrorSetRaised(void* error);
extern void TVMFFIErrorSetRaisedFromCStr(const char* kind, const char* message);
extern int TVMFFIObjectDecRef(void* object);

#define EXPORT __attribute__((visibility("default")))

/* ---- threads ---------------------------------------------------------------------------------------------------------- */

typedef struct { void* sync; int32_t num_task; } TaskEnv;
typedef int (*Task)(int, TaskEnv*, void*);

/* One OpenMP library; replaced as a whole when torch turns up after the library was loaded. Old ones stay allocated. */
typedef struct {
  void (*parallel)(void (*)(void*), void*, unsigned, unsigned);
  int (*thread)(void);
  int (*team)(void);
  int (*available)(void);
} Pool;

static _Atomic(Pool*) pool;
static atomic_int thread_limit;   /* 0: none */
static atomic_int ran_parallel;   /* this process has used the pool */
static atomic_int serial_child;   /* forked from a process whose pool threads do not exist here */
static atomic_int warned_serial;  /* 0 nothing to say, 1 to be said, 2 said */

static int thread_count(Pool* p) {
  if (!p) return 1;
  int n = p->available(), limit = atomic_load_explicit(&thread_limit, memory_order_relaxed);
  if (limit > 0 && n > limit) n = limit;
  return n < 1 ? 1 : n;
}

typedef struct { Task task; void* closure; int count; Pool* pool; atomic_int failed; } Job;

static void run_share(void* arg) {
  Job* job = arg;
  TaskEnv env = {0, job->count};
  int step = job->pool->team();
  for (int i = job->pool->thread(); i < job->count; i += step) {
    int rc = job->task(i, &env, job->closure);
    if (rc) atomic_store(&job->failed, rc);
  }
}

/* TVM passes 0 for "as many tasks as threads"; a task reads num_task to find its share of the loop. */
static int parallel_launch(Task task, void* closure, int count) {
  Pool* p = atomic_load_explicit(&pool, memory_order_acquire);
  int threads = thread_count(p);
  if (threads > 1 && atomic_load_explicit(&serial_child, memory_order_relaxed)) {
    int expected = 0;
    atomic_compare_exchange_strong(&warned_serial, &expected, 1);
    threads = 1;
  }
  if (count <= 0) count = threads;
  if (threads == 1 || count == 1) {
    TaskEnv env = {0, count};
    for (int i = 0; i < count; i++) {
      int rc = task(i, &env, closure);
      if (rc) return rc;
    }
    return 0;
  }
  if (!atomic_load_explicit(&ran_parallel, memory_order_relaxed)) atomic_store(&ran_parallel, 1);
  Job job = {task, closure, count, p, 0};
  p->parallel(run_share, &job, count < threads ? count : threads, 0);
  return atomic_load(&job.failed);
}

static int os_threads(void) {
  struct stat info;
  return stat("/proc/self/task", &info) ? 1 : (int)info.st_nlink - 2;
}

static atomic_int threads_before_fork;
static void before_fork(void) { atomic_store(&threads_before_fork, os_threads()); }

/* The pool's threads do not survive a fork, and the OpenMP library would wait for them for ever. Whoever started them (this
 * file, torch) cannot be told apart, so a child of a process with more than one thread works alone. */
static void after_fork_in_child(void) {
  if (atomic_load(&ran_parallel) || atomic_load(&threads_before_fork) > 1) atomic_store(&serial_child, 1);
}

/* Use the OpenMP library at `openmp` (NULL: none). `torch`, when given, is libtorch_cpu: its own count of threads is asked,
 * because torch.set_num_threads reaches a new thread's OpenMP settings only after that thread's first torch call. */
EXPORT int cg_use_pool(const char* openmp, const char* torch) {
  if (!openmp) {
    atomic_store(&pool, NULL);
    return 0;
  }
  void* handle = dlopen(openmp, RTLD_NOW | RTLD_LOCAL);
  Pool* p = handle ? calloc(1, sizeof *p) : NULL;
  if (!p) return -1;
  p->parallel = (void (*)(void (*)(void*), void*, unsigned, unsigned))dlsym(handle, "GOMP_parallel");
  p->thread = (int (*)(void))dlsym(handle, "omp_get_thread_num");
  p->team = (int (*)(void))dlsym(handle, "omp_get_num_threads");
  p->available = (int (*)(void))dlsym(handle, "omp_get_max_threads");
  if (!p->parallel || !p->thread || !p->team || !p->available) {
    free(p);
    return -1;
  }
  void* torch_handle = torch ? dlopen(torch, RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD) : NULL;
  int (*count)(void) = torch_handle ? (int (*)(void))dlsym(torch_handle, "_ZN2at15get_num_threadsEv") : NULL;
  if (count) p->available = count;
  atomic_store_explicit(&pool, p, memory_order_release);
  return 0;
}

/* True for the one caller that is to say that this process works alone. */
EXPORT int cg_take_warning(void) {
  int pending = 1;
  return atomic_compare_exchange_strong(&warned_serial, &pending, 2);
}

EXPORT void cg_limit_threads(int limit) { atomic_store(&thread_limit, limit); }
EXPORT int cg_threads(void) {
  return atomic_load(&serial_child) ? 1 : thread_count(atomic_load_explicit(&pool, memory_order_acquire));
}

/* ---- scratch memory --------------------------------------------------------------------------------------------------- */

/* A stack of blocks per thread, in chunks that are kept: a kernel's temporaries cost no malloc and no page faults after the
 * first call. A block freed out of order, or by another thread, is only marked; its owner takes it off when it is on top. */
typedef struct Chunk { struct Chunk* below; size_t size, used, top; } Chunk;   /* top: offset of the last block, 0 if none */
typedef struct { size_t previous; atomic_int freed; } Block;
enum { CHUNK_HEAD = ALIGN, BLOCK_HEAD = ALIGN, FIRST_CHUNK = 1 << 16 };

static __thread Chunk* arena;
static pthread_key_t arena_key;
static atomic_size_t arena_bytes;

static int trim(Chunk* c) {
  while (c->top) {
    Block* b = (Block*)((char*)c + c->top);
    if (!atomic_load_explicit(&b->freed, memory_order_acquire)) return 0;
    c->used = c->top;
    c->top = b->previous;
  }
  c->used = CHUNK_HEAD;
  return 1;
}

static void drop(Chunk* c) {
  atomic_fetch_sub(&arena_bytes, c->size);
  free(c);
}

/* At thread exit. A chunk with a live block is leaked rather than pulled from under its user. */
static void drop_all(void* unused) {
  (void)unused;
  for (Chunk* c = arena; c;) {
    Chunk* below = c->below;
    if (trim(c)) drop(c);
    c = below;
  }
  arena = NULL;
}

static void* workspace_alloc(int device_type, int device_id, uint64_t bytes, int code, int bits) {
  (void)device_type, (void)device_id, (void)code, (void)bits;
  if (bytes > SIZE_MAX / 4) return NULL;
  size_t need = BLOCK_HEAD + ((size_t)bytes + ALIGN - 1) / ALIGN * ALIGN;
  Chunk* c = arena;
  size_t total = FIRST_CHUNK;
  if (c && trim(c) && c->size - c->used < need) {  /* empty and too small: replace it and whatever lies empty below */
    while (c && trim(c)) {
      Chunk* below = c->below;
      total += c->size;
      drop(c);
      c = below;
    }
    arena = c;
  }
  if (!c || c->size - c->used < need) {
    if (c) total += c->size;
    if (total < CHUNK_HEAD + need) total = CHUNK_HEAD + need;
    total = (total + ALIGN - 1) / ALIGN * ALIGN;
    Chunk* fresh = aligned_alloc(ALIGN, total);
    if (!fresh) return NULL;
    atomic_fetch_add(&arena_bytes, total);
    *fresh = (Chunk){c, total, CHUNK_HEAD, 0};
    arena = c = fresh;
    pthread_setspecific(arena_key, c);  /* any value but NULL makes drop_all run */
  }
  Block* b = (Block*)((char*)c + c->used);
  b->previous = c->top;
  atomic_store_explicit(&b->freed, 0, memory_order_relaxed);
  c->top = c->used;
  c->used += need;
  return (char*)b + BLOCK_HEAD;
}

static int workspace_free(int device_type, int device_id, void* data) {
  (void)device_type, (void)device_id;
  if (data) {
    Block* b = (Block*)((char*)data - BLOCK_HEAD);
    atomic_store_explicit(&b->freed, 1, memory_order_release);
  }
  return 0;
}

EXPORT void* cg_workspace_alloc(uint64_t bytes) { return workspace_alloc(CPU, 0, bytes, 0, 8); }
EXPORT int cg_workspace_free(void* data) { return workspace_free(CPU, 0, data); }
EXPORT uint64_t cg_workspace_bytes(void) { return atomic_load(&arena_bytes); }

__attribute__((constructor)) static void start(void) {
  pthread_key_create(&arena_key, drop_all);
  pthread_atfork(before_fork, NULL, after_fork_in_child);
}

/* Fill the hooks that one kernel library declares. Written into that library alone, so that modules which somebody else loads
 * through tvm_ffi keep the hooks they had. */
EXPORT void cg_attach(void* library) {
  struct { const char* name; void* function; } hooks[] = {
      {"__TVMBackendParallelLaunch", (void*)parallel_launch},
      {"__TVMBackendAllocWorkspace", (void*)workspace_alloc},
      {"__TVMBackendFreeWorkspace", (void*)workspace_free},
  };
  for (size_t i = 0; i < sizeof hooks / sizeof *hooks; i++) {
    void** slot = dlsym(library, hooks[i].name);
    if (slot) *slot = hooks[i].function;
  }
}

/* ---- plans ------------------------------------------------------------------------------------------------------------ */

enum { MAX_TENSORS = 32, MAX_STEPS = 4 };
enum { SOURCE_CALL, SOURCE_HELD, SOURCE_SCRATCH };
/* status = reason << 8 | index of the tensor; convgen/runtime/native.py holds the same list */
enum { BAD_COUNT = 1, BAD_KIND, BAD_DEVICE, BAD_DTYPE, BAD_SHAPE, BAD_STRIDES, BAD_ALIGNMENT, OVERLAP };
enum { SERIAL_AFTER_FORK = 1 << 24 };

typedef struct { DataType dtype; int32_t ndim; int32_t written; int64_t bytes; int64_t* shape; int64_t* strides; } Expect;
typedef struct { int32_t source, index; Tensor tensor; } Argument;
typedef struct { Kernel kernel; int32_t count; Argument* arguments; } Step;
typedef struct {
  int32_t calls, helds, scratches, steps;
  Expect* call;
  void** held;
  int64_t* scratch;      /* offset of each scratch buffer */
  int64_t scratch_bytes;
  Step step[MAX_STEPS];
  atomic_ullong* runs;   /* counter that all plans of one kernel share */
} Plan;

static int check(const Expect* e, const Tensor* t) {
  if (t->device.type != CPU) return BAD_DEVICE;
  if (t->dtype.code != e->dtype.code || t->dtype.bits != e->dtype.bits || t->dtype.lanes != 1) return BAD_DTYPE;
  if (t->ndim != e->ndim) return BAD_SHAPE;
  for (int i = 0; i < e->ndim; i++)
    if (t->shape[i] != e->shape[i]) return BAD_SHAPE;
  if (!t->strides) {  /* row-major by definition */
    int64_t compact = 1;
    for (int i = e->ndim - 1; i >= 0; compact *= e->shape[i], i--)
      if (e->shape[i] != 1 && compact != e->strides[i]) return BAD_STRIDES;
    return 0;
  }
  for (int i = 0; i < e->ndim; i++)
    if (e->shape[i] != 1 && t->strides[i] != e->strides[i]) return BAD_STRIDES;
  return 0;
}

static int gather(const Plan* p, const Any* args, int32_t n, char** data) {
  if (n != p->calls) return BAD_COUNT << 8;
  for (int i = 0; i < n; i++) {
    const Tensor* t = NULL;
    if (args[i].type_index == ANY_TENSOR_PTR) t = args[i].p;
    else if (args[i].type_index == ANY_TENSOR) t = (const Tensor*)((char*)args[i].p + OBJECT_HEADER);
    else if (args[i].type_index == ANY_INT) data[i] = (char*)(intptr_t)args[i].i;  /* the caller has checked this one */
    else return BAD_KIND << 8 | i;
    if (t) {
      int reason = check(&p->call[i], t);
      if (reason) return reason << 8 | i;
      data[i] = (char*)t->data + t->offset;
    }
    if (!data[i]) return BAD_KIND << 8 | i;  /* a fake tensor has a shape and no memory */
    if ((uintptr_t)data[i] % ALIGN) return BAD_ALIGNMENT << 8 | i;
  }
  for (int i = 0; i < n; i++)
    for (int j = 0; p->call[i].written && j < n; j++)
      if (i != j && data[i] < data[j] + p->call[j].bytes && data[j] < data[i] + p->call[i].bytes) return OVERLAP << 8 | i;
  return 0;
}

/* A kernel that fails without setting an error (TVM's answer to a failed allocation) would leave the caller with none. */
static int fail(int rc) {
  void* error = NULL;
  TVMFFIErrorMoveFromRaised(&error);
  if (error) {
    TVMFFIErrorSetRaised(error);
    TVMFFIObjectDecRef(error);
  } else {
    TVMFFIErrorSetRaisedFromCStr("RuntimeError", "the kernel stopped without a message; it may have run out of memory");
  }
  return rc;
}

static int run_step(const Plan* p, const Step* s, char** data, char* scratch) {
  Tensor tensors[MAX_TENSORS];
  Any args[MAX_TENSORS];
  for (int i = 0; i < s->count; i++) {
    const Argument* a = &s->arguments[i];
    tensors[i] = a->tensor;
    tensors[i].data = a->source == SOURCE_CALL ? data[a->index] : a->source == SOURCE_HELD ? p->held[a->index] : scratch + p->scratch[a->index];
    args[i] = (Any){.type_index = ANY_TENSOR_PTR, .p = &tensors[i]};
  }
  Any result = {.type_index = ANY_NONE};
  return s->kernel(NULL, args, s->count, &result);
}

/* tensors... -> status (0: done) */
static int run_plan(void* self, const Any* args, int32_t n, Any* result) {
  Plan* p = self;
  *result = (Any){.type_index = ANY_INT};
  char* data[MAX_TENSORS];
  int status = gather(p, args, n, data);
  if (!status) {
    char* scratch = p->scratch_bytes ? workspace_alloc(CPU, 0, p->scratch_bytes, 0, 8) : NULL;
    int rc = p->scratch_bytes && !scratch ? -1 : 0;
    for (int i = 0; i < p->steps && !rc; i++) rc = run_step(p, &p->step[i], data, scratch);
    workspace_free(CPU, 0, scratch);
    if (rc) {
      result->type_index = ANY_NONE;
      return fail(rc);
    }
    atomic_fetch_add_explicit(p->runs, 1, memory_order_relaxed);
    if (atomic_load_explicit(&warned_serial, memory_order_relaxed) == 1) status = SERIAL_AFTER_FORK;
  }
  result->i = status;
  return 0;
}

static void free_plan(void* self) {
  Plan* p = self;
  for (int i = 0; p->call && i < p->calls; i++) free(p->call[i].shape);
  for (int i = 0; i < p->steps; i++) {
    for (int j = 0; p->step[i].arguments && j < p->step[i].count; j++) free(p->step[i].arguments[j].tensor.shape);
    free(p->step[i].arguments);
  }
  free(p->call);
  free(p->held);
  free(p->scratch);
  free(p);
}

/* `2 * ndim` numbers: the shape, copied, and room for the strides. */
static int64_t* dims_of(const int64_t* from, int32_t ndim) {
  int64_t* to = calloc(2 * ndim + 1, sizeof *to);
  if (to) memcpy(to, from, ndim * sizeof *to);
  return to;
}

static const int64_t* read_call(Expect* e, const int64_t* s) {
  e->dtype = (DataType){s[0], s[1], 1};
  e->written = s[2];
  e->bytes = s[3];
  e->ndim = s[4];
  s += 5;
  if (!(e->shape = dims_of(s, e->ndim))) return NULL;
  e->strides = e->shape + e->ndim;
  memcpy(e->strides, s + e->ndim, e->ndim * sizeof *s);
  return s + 2 * e->ndim;
}

static const int64_t* read_argument(Argument* a, const int64_t* s) {
  int32_t ndim = s[4];
  a->source = s[0];
  a->index = s[1];
  a->tensor = (Tensor){.device = {CPU, 0}, .ndim = ndim, .dtype = {s[2], s[3], 1}};
  s += 5;
  if (!(a->tensor.shape = dims_of(s, ndim))) return NULL;
  a->tensor.strides = a->tensor.shape + ndim;
  int64_t compact = 1;
  for (int i = ndim - 1; i >= 0; compact *= a->tensor.shape[i], i--) a->tensor.strides[i] = compact;
  return s + ndim;
}

static int read_plan(Plan* p, const int64_t* s) {
  p->calls = s[0], p->helds = s[1], p->scratches = s[2];
  int32_t steps = s[3];
  p->runs = (atomic_ullong*)(intptr_t)s[4];
  s += 5;
  if (p->calls > MAX_TENSORS || steps > MAX_STEPS) return -1;
  p->call = calloc(p->calls + 1, sizeof *p->call);
  p->held = calloc(p->helds + 1, sizeof *p->held);
  p->scratch = calloc(p->scratches + 1, sizeof *p->scratch);
  if (!p->call || !p->held || !p->scratch) return -1;
  for (int i = 0; i < p->calls; i++)
    if (!(s = read_call(&p->call[i], s))) return -1;
  for (int i = 0; i < p->helds; i++) p->held[i] = (void*)(intptr_t)*s++;
  for (int i = 0; i < p->scratches; i++) {
    p->scratch[i] = p->scratch_bytes;
    p->scratch_bytes += (*s++ + ALIGN - 1) / ALIGN * ALIGN;
  }
  for (int i = 0; i < steps; i++) {
    Step* step = &p->step[i];
    step->kernel = (Kernel)(intptr_t)s[0];
    step->count = s[1];
    s += 2;
    if (step->count > MAX_TENSORS || !(step->arguments = calloc(step->count + 1, sizeof *step->arguments))) return -1;
    p->steps = i + 1;
    for (int j = 0; j < step->count; j++)
      if (!(s = read_argument(&step->arguments[j], s))) return -1;
  }
  return 0;
}

/* (address of the int64 words that native.py writes) -> Function(tensors...) -> status */
EXPORT int __tvm_ffi_convgen_plan(void* self, const Any* args, int32_t n, Any* result) {
  (void)self;
  Plan* p = n == 1 && args[0].type_index == ANY_INT ? calloc(1, sizeof *p) : NULL;
  if (!p || read_plan(p, (const int64_t*)(intptr_t)args[0].i)) {
    if (p) free_plan(p);
    TVMFFIErrorSetRaisedFromCStr("ValueError", "malformed or oversized call plan");
    return -1;
  }
  void* function = NULL;
  if (TVMFFIFunctionCreate(p, run_plan, free_plan, &function)) {
    free_plan(p);
    return -1;
  }
  *result = (Any){.type_index = ANY_FUNCTION, .p = function};
  return 0;
}
