// A CUDA driver for machines without a GPU, as far as run.py calls it. A module's image is a shared object with emulated kernels instead of a cubin; device
// memory is host memory far from what the caller may touch; graphs hold copies of launches. FAKE_CUDA: compute capability and name, "9.0 NVIDIA H200".
#include <dlfcn.h>
#include <elf.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <set>
#include <string>
#include <vector>

namespace {
enum { SUCCESS = 0, INVALID = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, BAD_IMAGE = 200, NOT_FOUND = 500, LAUNCH_FAILED = 719, CAPTURE = 900 };
using Emulate = int (*)(const char*, const unsigned*, const unsigned*, unsigned, void**);
using Count = int (*)(const char*);
struct Module { Emulate emulate; Count count; };
struct Function { Module* module; std::string name; int shared = 48 << 10; };  // dynamic memory that a launch may have
struct Work { Function* function; unsigned grid[3], block[3], shared; std::vector<uint64_t> values; };
std::vector<Work>* captured;
std::set<uint64_t> memory;
char* device;

int run(const Work& w) {
  std::vector<void*> parameters;
  for (const uint64_t& v : w.values) parameters.push_back((void*)&v);
  return w.function->module->emulate(w.function->name.c_str(), w.grid, w.block, w.shared, parameters.data()) ? SUCCESS : LAUNCH_FAILED;
}
}  // namespace

extern "C" {
int cuInit(unsigned) { return device = getenv("FAKE_CUDA"), device ? SUCCESS : NO_DEVICE; }
int cuGetErrorString(int code, const char** text) { return *text = code == OUT_OF_MEMORY ? "out of memory" : code == NO_DEVICE ? "no CUDA-capable device" : "fake error", SUCCESS; }
int cuDriverGetVersion(int* v) { return *v = 13000, SUCCESS; }
int cuDeviceGet(int* d, int ordinal) { return *d = ordinal, ordinal ? NO_DEVICE : SUCCESS; }
int cuDeviceGetName(char* name, int size, int) { return snprintf(name, size, "%s", strchr(device, ' ') + 1), SUCCESS; }
int cuDeviceTotalMem_v2(size_t* bytes, int) { return *bytes = 1 << 30, SUCCESS; }
int cuDeviceGetAttribute(int* v, int what, int) {
  *v = what == 75 ? device[0] - '0' : what == 76 ? device[2] - '0' : what == 38 ? 1 << 16 : what == 13 ? 1980000 : 4;
  return SUCCESS;
}
int cuDevicePrimaryCtxRetain(void** c, int) { return *c = &memory, SUCCESS; }
int cuCtxSetCurrent(void* c) { return c == &memory ? SUCCESS : INVALID; }
int cuCtxSynchronize() { return captured ? CAPTURE : SUCCESS; }
int cuDeviceGetPCIBusId(char* text, int size, int) { return snprintf(text, size, "0000:00:00.0"), SUCCESS; }
int cuStreamCreate(void** s, unsigned flags) { return *s = malloc(1), flags ? INVALID : SUCCESS; }  // one that does not wait for copies would be a race
int cuEventCreate(void** e, unsigned) { return *e = calloc(1, sizeof(double)), SUCCESS; }
int cuEventRecord(void* e, void*) {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return *(double*)e = now.tv_sec * 1e3 + now.tv_nsec * 1e-6, SUCCESS;
}
int cuEventSynchronize(void*) { return captured ? CAPTURE : SUCCESS; }
int cuEventElapsedTime(float* ms, void* a, void* b) { return *ms = float(*(double*)b - *(double*)a), SUCCESS; }
int cuMemAlloc_v2(uint64_t* p, size_t bytes) {
  if (bytes > 1 << 30 || captured) return OUT_OF_MEMORY;
  *p = (uint64_t)aligned_alloc(256, (bytes + 255) / 256 * 256);
  memory.insert(*p);
  return SUCCESS;
}
int cuMemFree_v2(uint64_t p) {
  if (!memory.erase(p)) return INVALID;
  return free((void*)p), SUCCESS;
}
int cuMemcpyHtoD_v2(uint64_t to, const void* from, size_t n) { return captured ? CAPTURE : (memcpy((void*)to, from, n), SUCCESS); }
int cuMemcpyDtoH_v2(void* to, uint64_t from, size_t n) { return captured ? CAPTURE : (memcpy(to, (void*)from, n), SUCCESS); }
int cuMemsetD8_v2(uint64_t p, unsigned char byte, size_t n) { return memset((void*)p, byte, n), SUCCESS; }
int cuMemsetD8Async(uint64_t p, unsigned char byte, size_t n, void*) { return memset((void*)p, byte, n), SUCCESS; }
int cuModuleLoadData(void** made, const void* image) {
  const Elf64_Ehdr* head = (const Elf64_Ehdr*)image;
  if (memcmp(head->e_ident, ELFMAG, 4)) return BAD_IMAGE;
  int file = memfd_create("kernels", 0);  // stays open: the loader takes a path that it has seen for the same library
  size_t size = head->e_shoff + head->e_shnum * head->e_shentsize;
  if (write(file, image, size) != (ssize_t)size) return BAD_IMAGE;
  void* library = dlopen(("/proc/self/fd/" + std::to_string(file)).c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) return BAD_IMAGE;
  *made = new Module{(Emulate)dlsym(library, "emulate"), (Count)dlsym(library, "emulate_count")};
  return SUCCESS;
}
int cuModuleUnload(void*) { return SUCCESS; }
int cuModuleGetFunction(void** made, void* module, const char* name) {
  if (((Module*)module)->count(name) < 0) return NOT_FOUND;
  return *made = new Function{(Module*)module, name}, SUCCESS;
}
int cuFuncSetAttribute(void* f, int what, int bytes) {
  if (what != 8 || bytes > 227 << 10) return INVALID;
  return ((Function*)f)->shared = bytes, SUCCESS;
}
int cuLaunchKernel(void* f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void*, void** parameters, void**) {
  Function* function = (Function*)f;
  if (!gx || bx * by * bz > 1024 || int(shared) > function->shared) return INVALID;
  Work w{function, {gx, gy, gz}, {bx, by, bz}, shared, {}};
  for (int i = 0; i < function->module->count(function->name.c_str()); i++) {
    w.values.push_back(0);
    memcpy(&w.values.back(), parameters[i], 8);
  }
  if (captured) return captured->push_back(w), SUCCESS;
  return run(w);
}
int cuStreamBeginCapture_v2(void*, int) { return captured = new std::vector<Work>, SUCCESS; }
int cuStreamEndCapture(void*, void** graph) { return *graph = captured, captured = nullptr, SUCCESS; }
int cuGraphInstantiateWithFlags(void** ready, void* graph, uint64_t) { return *ready = new std::vector<Work>(*(std::vector<Work>*)graph), SUCCESS; }
int cuGraphDestroy(void* graph) { return delete (std::vector<Work>*)graph, SUCCESS; }
int cuGraphExecDestroy(void* ready) { return delete (std::vector<Work>*)ready, SUCCESS; }
int cuGraphLaunch(void* ready, void*) {
  for (const Work& w : *(std::vector<Work>*)ready)
    if (int code = run(w)) return code;
  return SUCCESS;
}
}
