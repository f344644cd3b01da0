/* Scratch memory: a stack of blocks per thread, in a chunk that is kept, so that a kernel's temporaries cost no malloc and no
 * page faults after the first calls. What does not fit gets a chunk of its own; as soon as nothing is in use, one chunk takes
 * the place of several, as large as what was in use at most. A block freed out of order, or by another thread, is only marked;
 * its owner takes it off when it is on top.
 */
#include <pthread.h>
#include <stdlib.h>

#include "shim.h"

typedef struct Chunk { struct Chunk* below; size_t size, used, top; } Chunk;   /* top: offset of the last block, 0 if none */
typedef struct { size_t previous; atomic_int freed; } Block;
enum { CHUNK_HEAD = ALIGN, BLOCK_HEAD = ALIGN, LEAST_CHUNK = 1 << 12 };

static __thread Chunk* arena;
static __thread size_t most;   /* bytes of blocks in use at one time */
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

/* A chunk with room for `need` bytes on top of those in use; empty ones go, but for the last if others are in use: what comes
 * and goes beside them finds its place again. NULL if there is no memory. */
static Chunk* make_room(size_t need) {
  int empty = 1;
  for (Chunk* c = arena; c; c = c->below) empty &= trim(c);
  if (!empty && !arena->top && arena->size - CHUNK_HEAD >= need) return arena;
  for (Chunk** link = &arena; *link;) {
    Chunk* c = *link;
    if (c->top) {
      link = &c->below;
    } else {
      *link = c->below;
      drop(c);
    }
  }
  size_t size = CHUNK_HEAD + (!arena && most > need ? most : need);
  if (size < LEAST_CHUNK) size = LEAST_CHUNK;
  Chunk* fresh = aligned_alloc(ALIGN, size);
  if (!fresh) return NULL;
  atomic_fetch_add(&arena_bytes, size);
  *fresh = (Chunk){arena, size, CHUNK_HEAD, 0};
  arena = fresh;
  pthread_setspecific(arena_key, fresh);  /* any value but NULL makes drop_all run */
  return fresh;
}

void* workspace_alloc(int device_type, int device_id, uint64_t bytes, int code, int bits) {
  (void)device_type, (void)device_id, (void)code, (void)bits;
  if (bytes > SIZE_MAX / 4) return NULL;
  size_t need = BLOCK_HEAD + ((size_t)bytes + ALIGN - 1) / ALIGN * ALIGN, used = 0;
  Chunk* c = arena;
  if (!c || (trim(c) && c->below) || c->size - c->used < need) c = make_room(need);
  if (!c) return NULL;
  Block* b = (Block*)((char*)c + c->used);
  b->previous = c->top;
  atomic_store_explicit(&b->freed, 0, memory_order_relaxed);
  c->top = c->used;
  c->used += need;
  for (Chunk* each = c; each; each = each->below) used += each->used - CHUNK_HEAD;
  if (used > most) most = used;
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
