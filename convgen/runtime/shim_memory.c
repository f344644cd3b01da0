/* Scratch memory: a stack of blocks per thread, in chunks that are kept, so that a kernel's temporaries cost no malloc and no
 * page faults after the first call. A block freed out of order, or by another thread, is only marked; its owner takes it off
 * when it is on top.
 */
#include <pthread.h>
#include <stdlib.h>

#include "shim.h"

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

void* workspace_alloc(int device_type, int device_id, uint64_t bytes, int code, int bits) {
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

int workspace_free(int device_type, int device_id, void* data) {
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

__attribute__((constructor)) static void start(void) { pthread_key_create(&arena_key, drop_all); }
