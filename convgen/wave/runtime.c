/* What kernels of a wave need besides shim.c and shim_memory.c, on a device without tvm_ffi: a place for the message of a refused call, and
 * a way to empty the caches.
 */
#include <stdint.h>
#include <stdio.h>

#include "../runtime/shim.h"

static __thread char message[1024];

/* As tvm/ffi/c_api.h declares them. */
EXPORT void TVMFFIErrorSetRaisedFromCStrParts(const char* kind, const char** parts, int32_t count) {
  size_t used = snprintf(message, sizeof message, "%s: ", kind);
  for (int32_t i = 0; i < count && used < sizeof message; i++)
    if (parts[i]) used += snprintf(message + used, sizeof message - used, "%s", parts[i]);
}

EXPORT void TVMFFIErrorSetRaisedFromCStr(const char* kind, const char* text) { snprintf(message, sizeof message, "%s: %s", kind, text); }

EXPORT const char* cw_message(void) { return message; }

/* Read and write `bytes` of memory; ordinary stores, which take the place of whatever the caches held. */
EXPORT void cw_flush(uint64_t* data, uint64_t bytes) {
  for (uint64_t i = 0; i < bytes / 8; i += 8) data[i]++;
}
