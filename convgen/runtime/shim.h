/* What the three parts of the shim share. The structures mirror dlpack.h and tvm/ffi/c_api.h (ABI 0.1), so that building the
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

#endif
