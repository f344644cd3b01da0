/* Plans for CUDA devices: a list of kernel launches with everything fixed but the data pointers and the stream.
 *
 * A run checks its tensors, launches, and returns: it never waits for the device, allocates nothing and loads nothing, so it may
 * be captured into a graph. The driver is opened at run time, because a library may hold CUDA kernels and serve on a machine
 * without CUDA. Types and signatures follow cuda.h.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include "shim.h"

enum { MAX_PARAMETERS = 64, CUDA_SUCCESS = 0 };

static struct {
  int (*launch)(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*, void**, void**);
  int (*current)(void**);
  int (*push)(void*);
  int (*pop)(void**);
  int (*name)(int, const char**);
  int (*describe)(int, const char**);
} driver;

typedef struct { int64_t source, value; } Parameter;  /* value: index of a buffer, or the number itself */
typedef struct { void* function; unsigned grid[3], block[3], shared; int32_t count; Parameter* parameters; } Launch;
typedef struct { Memory memory; void* context; int32_t launches; Launch* launch; } CudaPlan;

/* Before the first plan. Doing it again with the same library changes nothing. */
EXPORT int cg_use_driver(const char* path) {
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library) return -1;
  struct { void* slot; const char* name; } functions[] = {
      {&driver.launch, "cuLaunchKernel"}, {&driver.current, "cuCtxGetCurrent"}, {&driver.push, "cuCtxPushCurrent_v2"},
      {&driver.pop, "cuCtxPopCurrent_v2"}, {&driver.name, "cuGetErrorName"}, {&driver.describe, "cuGetErrorString"},
  };
  for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
    if (!(*(void**)functions[i].slot = dlsym(library, functions[i].name))) return -1;
  return 0;
}

static int launch(const CudaPlan* p, const Launch* l, char** data, char* scratch, void* stream) {
  void* values[MAX_PARAMETERS];
  void* parameters[MAX_PARAMETERS];
  for (int i = 0; i < l->count; i++) {
    const Parameter* from = &l->parameters[i];
    parameters[i] = &values[i];
    if (from->source == SOURCE_CALL) values[i] = data[from->value];
    else if (from->source == SOURCE_HELD) values[i] = p->memory.held[from->value];
    else if (from->source == SOURCE_SCRATCH) values[i] = scratch + p->memory.scratch[from->value];
    else parameters[i] = (void*)&from->value;  /* the driver reads as many low bytes as the kernel's parameter has */
  }
  return driver.launch(l->function, l->grid[0], l->grid[1], l->grid[2], l->block[0], l->block[1], l->block[2], l->shared, stream,
                       parameters, NULL);
}

/* The caller's thread may have another device's context, or none: a thread that has only ever seen tensors. */
static int launch_all(const CudaPlan* p, char** data, char* scratch, void* stream) {
  void* current = NULL;
  int rc = driver.current(&current), pushed = 0;
  if (!rc && current != p->context) {
    rc = driver.push(p->context);
    pushed = !rc;
  }
  for (int i = 0; i < p->launches && !rc; i++) rc = launch(p, &p->launch[i], data, scratch, stream);
  if (pushed) {
    int popped = driver.pop(&current);
    if (!rc) rc = popped;
  }
  return rc;
}

static int fail(int rc) {
  const char *name = NULL, *text = NULL;
  char message[256];
  driver.name(rc, &name);
  driver.describe(rc, &text);
  snprintf(message, sizeof message, "CUDA error %d %s: %s", rc, name ? name : "", text ? text : "unknown to this driver");
  TVMFFIErrorSetRaisedFromCStr("RuntimeError", message);
  return -1;
}

/* tensors..., address of scratch memory if the plan needs any, stream -> status (0: launched) */
static int run_plan(void* self, const Any* args, int32_t n, Any* result) {
  CudaPlan* p = self;
  const Memory* m = &p->memory;
  *result = (Any){.type_index = ANY_INT};
  int extra = m->scratch_bytes ? 2 : 1;
  char* data[MAX_TENSORS];
  int status = n < extra ? BAD_COUNT << 8 : gather(m, args, n - extra, data);
  for (int i = n - extra; !status && i < n; i++)
    if (args[i].type_index != ANY_INT) status = BAD_COUNT << 8;
  if (!status) {
    char* scratch = m->scratch_bytes ? (char*)(intptr_t)args[n - 2].i : NULL;
    int rc = launch_all(p, data, scratch, (void*)(intptr_t)args[n - 1].i);
    if (rc != CUDA_SUCCESS) {
      result->type_index = ANY_NONE;
      return fail(rc);
    }
    atomic_fetch_add_explicit(m->runs, 1, memory_order_relaxed);
  }
  result->i = status;
  return 0;
}

static void free_plan(void* self) {
  CudaPlan* p = self;
  for (int i = 0; p->launch && i < p->launches; i++) free(p->launch[i].parameters);
  free(p->launch);
  free_memory(&p->memory);
  free(p);
}

static int valid(const CudaPlan* p, const Parameter* a) {
  const Memory* m = &p->memory;
  int64_t limit = a->source == SOURCE_CALL ? m->calls : a->source == SOURCE_HELD ? m->helds : m->scratches;
  return a->source == SOURCE_VALUE || (a->source >= 0 && a->source < SOURCE_VALUE && a->value >= 0 && a->value < limit);
}

static int read_plan(CudaPlan* p, const int64_t* s) {
  if (!(s = read_memory(&p->memory, &p->launches, s))) return -1;
  p->memory.device = (Device){s[0], s[1]};
  p->context = (void*)(intptr_t)s[2];
  s += 3;
  if (!(p->launch = calloc(p->launches + 1, sizeof *p->launch))) return -1;
  for (int i = 0; i < p->launches; i++) {
    Launch* l = &p->launch[i];
    l->function = (void*)(intptr_t)s[0];
    for (int d = 0; d < 3; d++) l->grid[d] = s[1 + d], l->block[d] = s[4 + d];
    l->shared = s[7];
    l->count = s[8];
    s += 9;
    if (l->count > MAX_PARAMETERS || !(l->parameters = calloc(l->count + 1, sizeof *l->parameters))) return -1;
    for (int j = 0; j < l->count; j++, s += 2) {
      l->parameters[j] = (Parameter){s[0], s[1]};
      if (!valid(p, &l->parameters[j])) return -1;
    }
  }
  return 0;
}

/* (address of the int64 words that native.py writes) -> Function(tensors..., [scratch], stream) -> status */
EXPORT int __tvm_ffi_convgen_cuda_plan(void* self, const Any* args, int32_t n, Any* result) {
  (void)self;
  CudaPlan* p = driver.launch && n == 1 && args[0].type_index == ANY_INT ? calloc(1, sizeof *p) : NULL;
  return plan_function(p, !p || read_plan(p, (const int64_t*)(intptr_t)args[0].i), run_plan, free_plan, result);
}
