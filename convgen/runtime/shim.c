/* The only native code convgen brings to a serving process. It is compiled when a library is exported, and travels inside it.
 *
 * Four parts: threads (this file) and scratch memory (shim_memory.c) for TVM kernels, which otherwise need libtvm_runtime; and
 * plans, calls with everything fixed but the data pointers, for the CPU (shim_plan.c) and for CUDA devices (shim_cuda.c).
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "shim.h"

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

int serial_warning_pending(void) { return atomic_load_explicit(&warned_serial, memory_order_relaxed) == 1; }

EXPORT void cg_limit_threads(int limit) { atomic_store(&thread_limit, limit); }
EXPORT int cg_threads(void) {
  return atomic_load(&serial_child) ? 1 : thread_count(atomic_load_explicit(&pool, memory_order_acquire));
}

__attribute__((constructor)) static void start(void) {
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
