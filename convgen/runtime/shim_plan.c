/* Plans: a call with everything fixed but the data pointers. A plan checks the tensors it is given against the shapes, strides
 * and dtypes it was built for, and runs one or two kernels. It never changes after it is made, so any number of threads may run it.
 */
#include <stdlib.h>
#include <string.h>

#include "shim.h"

extern void TVMFFIErrorMoveFromRaised(void** out);
extern void TVMFFIErrorSetRaised(void* error);
extern int TVMFFIObjectDecRef(void* object);

enum { MAX_STEPS = 4 };
enum { SERIAL_AFTER_FORK = 1 << 24 };

typedef struct { int32_t source, index; Tensor tensor; } Argument;
typedef struct { Kernel kernel; int32_t count; Argument* arguments; } Step;
typedef struct { Memory memory; int32_t steps; Step step[MAX_STEPS]; } Plan;

static int check(const Expect* e, Device device, const Tensor* t) {
  if (t->device.type != device.type || (device.type != CPU && t->device.id != device.id)) return BAD_DEVICE;
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

int gather(const Memory* p, const Any* args, int32_t n, char** data) {
  if (n != p->calls) return BAD_COUNT << 8;
  for (int i = 0; i < n; i++) {
    const Tensor* t = NULL;
    if (args[i].type_index == ANY_TENSOR_PTR) t = args[i].p;
    else if (args[i].type_index == ANY_TENSOR) t = (const Tensor*)((char*)args[i].p + OBJECT_HEADER);
    else if (args[i].type_index == ANY_INT) data[i] = (char*)(intptr_t)args[i].i;  /* the caller has checked this one */
    else return BAD_KIND << 8 | i;
    if (t) {
      int reason = check(&p->call[i], p->device, t);
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

static int run_step(const Memory* p, const Step* s, char** data, char* scratch) {
  Tensor tensors[MAX_TENSORS];
  Any args[MAX_TENSORS];
  for (int i = 0; i < s->count; i++) {
    const Argument* a = &s->arguments[i];
    tensors[i] = a->tensor;
    if (a->source == SOURCE_CALL) tensors[i].data = data[a->index];
    else tensors[i].data = a->source == SOURCE_HELD ? p->held[a->index] : scratch + p->scratch[a->index];
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
  const Memory* m = &p->memory;
  int status = gather(m, args, n, data);
  if (!status) {
    char* scratch = m->scratch_bytes ? workspace_alloc(CPU, 0, m->scratch_bytes, 0, 8) : NULL;
    int rc = m->scratch_bytes && !scratch ? -1 : 0;
    for (int i = 0; i < p->steps && !rc; i++) rc = run_step(m, &p->step[i], data, scratch);
    workspace_free(CPU, 0, scratch);
    if (rc) {
      result->type_index = ANY_NONE;
      return fail(rc);
    }
    atomic_fetch_add_explicit(m->runs, 1, memory_order_relaxed);
    if (serial_warning_pending()) status = SERIAL_AFTER_FORK;
  }
  result->i = status;
  return 0;
}

void free_memory(Memory* p) {
  for (int i = 0; p->call && i < p->calls; i++) free(p->call[i].shape);
  free(p->call);
  free(p->held);
  free(p->scratch);
}

static void free_plan(void* self) {
  Plan* p = self;
  for (int i = 0; i < p->steps; i++) {
    for (int j = 0; p->step[i].arguments && j < p->step[i].count; j++) free(p->step[i].arguments[j].tensor.shape);
    free(p->step[i].arguments);
  }
  free_memory(&p->memory);
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

const int64_t* read_memory(Memory* p, int32_t* steps, const int64_t* s) {
  p->calls = s[0], p->helds = s[1], p->scratches = s[2];
  *steps = s[3];
  p->runs = (atomic_ullong*)(intptr_t)s[4];
  s += 5;
  if (p->calls > MAX_TENSORS) return NULL;
  p->call = calloc(p->calls + 1, sizeof *p->call);
  p->held = calloc(p->helds + 1, sizeof *p->held);
  p->scratch = calloc(p->scratches + 1, sizeof *p->scratch);
  if (!p->call || !p->held || !p->scratch) return NULL;
  for (int i = 0; i < p->calls; i++)
    if (!(s = read_call(&p->call[i], s))) return NULL;
  for (int i = 0; i < p->helds; i++) p->held[i] = (void*)(intptr_t)*s++;
  for (int i = 0; i < p->scratches; i++) {
    p->scratch[i] = p->scratch_bytes;
    p->scratch_bytes += (*s++ + ALIGN - 1) / ALIGN * ALIGN;
  }
  return s;
}

static int read_plan(Plan* p, const int64_t* s) {
  int32_t steps;
  p->memory.device = (Device){CPU, 0};
  if (!(s = read_memory(&p->memory, &steps, s)) || steps > MAX_STEPS) return -1;
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

int plan_function(void* plan, int bad, Kernel run, void (*release)(void*), Any* result) {
  void* function = NULL;
  if (bad) TVMFFIErrorSetRaisedFromCStr("ValueError", "malformed or oversized call plan");
  if (bad || TVMFFIFunctionCreate(plan, run, release, &function)) {
    if (plan) release(plan);
    return -1;
  }
  *result = (Any){.type_index = ANY_FUNCTION, .p = function};
  return 0;
}

/* (address of the int64 words that native.py writes) -> Function(tensors...) -> status */
EXPORT int __tvm_ffi_convgen_plan(void* self, const Any* args, int32_t n, Any* result) {
  (void)self;
  Plan* p = n == 1 && args[0].type_index == ANY_INT ? calloc(1, sizeof *p) : NULL;
  return plan_function(p, !p || read_plan(p, (const int64_t*)(intptr_t)args[0].i), run_plan, free_plan, result);
}
