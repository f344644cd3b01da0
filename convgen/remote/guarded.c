/* Linked to each candidate that is measured on another machine: calls it on memory inside larger blocks, so that the caller,
   who filled the blocks and reads them back, sees what was written outside.

   Arguments: bytes ahead of the memory in each block; a tensor of the right shape and dtype per argument of the kernel; the
   blocks, as many. Answers the kernel's code. RUN and PREPARE (where there is one) are the kernel's functions. */
#include <stdint.h>

typedef struct {
  char* data;
  int32_t device[2], ndim;
  uint8_t code, bits;
  uint16_t lanes;
  int64_t *shape, *strides;
  uint64_t offset;
} Tensor;

typedef struct {
  int32_t type;
  uint32_t zero;
  union {
    int64_t number;
    Tensor* tensor;
  } value;
} Any;

enum { INT = 1, TENSOR = 7, MOST = 64 }; /* type indices of TVM FFI; arguments of a kernel */

typedef int Function(void* self, const Any* args, int32_t count, Any* result);
extern Function RUN;

static int inside(Function* kernel, const Any* args, int32_t count, Any* result) {
  Tensor tensors[MOST];
  Any packed[MOST], ignored = {0, 0, {0}};
  int each = (count - 1) / 2;
  *result = (Any){INT, 0, {each <= MOST ? 0 : -2}};
  if (result->value.number) return 0;
  for (int i = 0; i < each; i++) {
    tensors[i] = *args[1 + i].value.tensor;
    tensors[i].data = args[1 + each + i].value.tensor->data + args[0].value.number;
    packed[i] = (Any){TENSOR, 0, {.tensor = &tensors[i]}};
  }
  result->value.number = kernel(0, packed, each, &ignored);
  return 0; /* a code without a message, as failed allocations answer, would end the server's process */
}

int __tvm_ffi_guarded_run(void* self, const Any* args, int32_t count, Any* result) { return inside(RUN, args, count, result); }

#ifdef PREPARE
extern Function PREPARE;
int __tvm_ffi_guarded_prepare(void* self, const Any* args, int32_t count, Any* result) { return inside(PREPARE, args, count, result); }
#endif
