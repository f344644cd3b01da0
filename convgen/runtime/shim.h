/* What the parts of the shim share. The structures mirror dlpack.h and tvm/ffi/c_api.h (ABI 0.1), so that building the
 * shim needs no header of either.
 */
#ifndef CONVGEN_SHIM_H
#define CONVGEN_SHIM_H
#include <stdatomic.h>
#include <stdint.h>

#define EXPORT __attribute__((visibility("default")))

typedef struct { int32_t type, id; } Device;
typedef struct { uint8_t code, bits; uint16_t lanes; } DataType;
typedef struct { void* data; Device device; int32_t ndim; DataType dtype; int64_t* shape; int64_t* strides; uint64_t offset; } Tensor;
typedef struct { int32_t type_index; uint32_t zero; union { int64_t i; void* p; }; } Any;
typedef int (*Kernel)(void*, const Any*, int32_t, Any*);
enum { ANY_NONE = 0, ANY_INT = 1, ANY_TENSOR_PTR = 7, ANY_FUNCTION = 68, ANY_TENSOR = 70, OBJECT_HEADER = 24, CPU = 1, ALIGN = 64 };

/* The signatures of TVM's hooks. */
void* workspace_alloc(int device_type, int device_id, uint64_t bytes, int code, int bits);
int workspace_free(int device_type, int device_id, void* data);

/* Whether this process was forked from one with threads, and has a warning to give about it. */
int serial_warning_pending(void);

/* The memory of a call: the tensors it takes and what they must be, the buffers it holds, and the scratch buffers of each run. */
enum { MAX_TENSORS = 32 };
enum { SOURCE_CALL, SOURCE_HELD, SOURCE_SCRATCH, SOURCE_VALUE };
/* status = reason << 8 | index of the tensor; native.py holds the same list */
enum { BAD_COUNT = 1, BAD_KIND, BAD_DEVICE, BAD_DTYPE, BAD_SHAPE, BAD_STRIDES, BAD_ALIGNMENT, OVERLAP };
typedef struct { DataType dtype; int32_t ndim; int32_t written; int64_t bytes; int64_t* shape; int64_t* strides; } Expect;
typedef struct {
  Device device;
  int32_t calls, helds, scratches;
  Expect* call;
  void** held;
  int64_t* scratch;      /* offset of each scratch buffer */
  int64_t scratch_bytes;
  atomic_ullong* runs;   /* counter that all plans of one kernel share */
} Memory;

/* The first words of a plan, among them the number of its steps; returns where the rest begins, NULL if they make no sense. */
const int64_t* read_memory(Memory* m, int32_t* steps, const int64_t* words);
void free_memory(Memory* m);
/* Check `n` tensors or addresses, and collect where their data lies. Returns a status, 0 if all is well. */
int gather(const Memory* m, const Any* args, int32_t n, char** data);

/* A plan as the result of a call: a Function that frees it at its end. `bad`: it could not be read, which raises. */
int plan_function(void* plan, int bad, Kernel run, void (*release)(void*), Any* result);

extern int TVMFFIFunctionCreate(void* self, Kernel call, void (*deleter)(void*), void** out);
extern void TVMFFIErrorSetRaisedFromCStr(const char* kind, const char* message);

#endif
