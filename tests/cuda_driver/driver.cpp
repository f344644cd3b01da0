// A CUDA driver for machines without a GPU: it writes down every call, refuses what a real one would refuse, and runs kernels on
// the processor, at once, where their emulation is given. Device memory is host memory.
//
// Read from the environment at cuInit: FAKE_CUDA_DEVICES, capabilities and names ("8.0 A100,9.0 H100"); FAKE_CUDA_VERSION (13000).
// While a kernel is launched: FAKE_CUDA_CODE, shared objects with emulated kernels, divided by ':'; FAKE_CUDA_FAIL, the code with
// which every launch fails. Tests use the functions called fake_*.
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <map>
#include <mutex>
#include <sstream>
#include <string>
#include <vector>

namespace {
enum { SUCCESS = 0, INVALID_VALUE = 1, NO_DEVICE = 100, INVALID_DEVICE = 101, INVALID_IMAGE = 200, INVALID_CONTEXT = 201,
       NO_BINARY = 209, INVALID_PTX = 218, NOT_FOUND = 500, CAPTURE = 900 };
struct Device { int major, minor; std::string name; };
struct Context { int device; };
struct Module { int device; };
struct Function { Module* module; std::string name; int dynamic = 0; };

std::mutex lock;
std::vector<Device> devices;
Context contexts[] = {{0}, {1}, {2}, {3}};
std::vector<std::string> lines;
std::map<std::string, int> limits = {{"threads", 1024}, {"shared", 99 << 10}};
bool capturing;
thread_local std::vector<Context*> stack;

Context* current() { return stack.empty() ? nullptr : stack.back(); }

template <class... T> void note(T... words) {
  std::ostringstream text;
  const char* gap = "";
  ((text << gap << words, gap = " "), ...);
  std::lock_guard<std::mutex> hold(lock);
  lines.push_back(text.str());
}

// What a call that works on a context answers before it does anything; `loud` calls are those that a stream under capture forbids.
int refuse(bool loud) { return capturing && loud ? CAPTURE : current() ? SUCCESS : INVALID_CONTEXT; }

std::string setting(const char* name, const char* otherwise) { return getenv(name) ? getenv(name) : otherwise; }

std::vector<std::string> parts(const std::string& text, char between) {
  std::vector<std::string> found;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, between);)
    if (!part.empty()) found.push_back(part);
  return found;
}

// The architecture of an image: of an ELF file by its flags (bits 8 to 15 in cubins of CUDA 13), else by the words that tests write.
bool architecture(const char* image, int* number, bool* ptx) {
  if (!memcmp(image, "\x7f" "ELF", 4)) {
    uint32_t flags;
    memcpy(&flags, image + 48, 4);
    *number = flags >> 8 & 0xFF;
    return *ptx = false, true;
  }
  *ptx = strstr(image, ".version") != nullptr;
  const char* at = strstr(image, *ptx ? ".target sm_" : "sm_");
  return at && sscanf(strstr(at, "sm_"), "sm_%d", number) == 1;
}
}  // namespace

extern "C" {
int cuInit(unsigned) {
  note("cuInit");
  devices.clear();
  for (const std::string& text : parts(setting("FAKE_CUDA_DEVICES", "8.0 Fake"), ',')) {
    Device d{};
    int at = 0;
    sscanf(text.c_str(), "%d.%d %n", &d.major, &d.minor, &at);
    d.name = at ? text.substr(at) : "Fake";
    devices.push_back(d);
  }
  return devices.empty() ? NO_DEVICE : SUCCESS;
}
int cuDriverGetVersion(int* version) { return *version = atoi(setting("FAKE_CUDA_VERSION", "13000").c_str()), SUCCESS; }
int cuDeviceGetCount(int* count) { return *count = int(devices.size()), SUCCESS; }
int cuDeviceGet(int* handle, int ordinal) { return *handle = ordinal, ordinal < int(devices.size()) ? SUCCESS : INVALID_DEVICE; }
int cuDeviceGetName(char* name, int room, int d) { return snprintf(name, room, "%s", devices[d].name.c_str()), SUCCESS; }
int cuDeviceGetAttribute(int* value, int which, int d) {
  *value = which == 75 ? devices[d].major : which == 76 ? devices[d].minor : which == 97 ? limits["shared"] : -1;
  return *value < 0 ? INVALID_VALUE : SUCCESS;
}
int cuDevicePrimaryCtxRetain(void** context, int d) {
  note("cuDevicePrimaryCtxRetain", d);
  *context = &contexts[d];
  return capturing ? CAPTURE : SUCCESS;
}
int cuCtxGetCurrent(void** context) { return *context = current(), SUCCESS; }
int cuCtxPushCurrent_v2(void* context) { return stack.push_back((Context*)context), SUCCESS; }
int cuCtxPopCurrent_v2(void** context) {
  if (stack.empty()) return INVALID_CONTEXT;
  *context = stack.back();
  stack.pop_back();
  return SUCCESS;
}
int cuModuleLoadDataEx(void** module, const void* image, unsigned count, const int* options, void** values) {
  if (int code = refuse(true)) return code;
  const Device& d = devices[current()->device];
  int number, here = 10 * d.major + d.minor;
  bool ptx;
  if (!architecture((const char*)image, &number, &ptx)) {
    for (unsigned i = 0; i < count; i++)
      if (options[i] == 5) strcpy((char*)values[i], "ptxas fatal:\n  no architecture");
    return INVALID_IMAGE;
  }
  note("cuModuleLoadDataEx", current()->device, ptx ? "ptx" : "cubin", number);
  if (ptx ? number > here : number / 10 != d.major || number > here) return ptx ? INVALID_PTX : NO_BINARY;
  *module = new Module{current()->device};
  return SUCCESS;
}
int cuModuleGetFunction(void** function, void* module, const char* name) {
  if (int code = refuse(true)) return code;
  note("cuModuleGetFunction", name);
  if (strstr(name, "absent")) return NOT_FOUND;
  *function = new Function{(Module*)module, name};
  return SUCCESS;
}
int cuFuncGetAttribute(int* value, int which, void*) { return *value = which == 0 ? limits["threads"] : 0, refuse(false); }
int cuFuncSetAttribute(void* function, int which, int value) {
  note("cuFuncSetAttribute", ((Function*)function)->name, which, value);
  ((Function*)function)->dynamic = value;
  return refuse(false);
}
int cuMemAlloc_v2(uint64_t* pointer, size_t bytes) {
  if (int code = refuse(true)) return code;
  note("cuMemAlloc", bytes);
  *pointer = (uint64_t)aligned_alloc(512, (bytes + 511) / 512 * 512);
  return SUCCESS;
}
int cuMemFree_v2(uint64_t pointer) {
  if (int code = refuse(true)) return code;
  note("cuMemFree");
  free((void*)pointer);
  return SUCCESS;
}
int cuMemcpyHtoD_v2(uint64_t to, const void* from, size_t bytes) {
  note("cuMemcpyHtoD", bytes);
  return memcpy((void*)to, from, bytes), refuse(true);
}
int cuMemcpyDtoH_v2(void* to, uint64_t from, size_t bytes) {
  note("cuMemcpyDtoH", bytes);
  return memcpy(to, (void*)from, bytes), refuse(true);
}
int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void* stream) {
  note("cuMemcpyDtoDAsync", bytes, "stream", stream);
  return memcpy((void*)to, (void*)from, bytes), refuse(false);
}
int cuStreamSynchronize(void* stream) {
  note("cuStreamSynchronize", stream);
  return refuse(true);
}
int cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void* stream,
                   void** parameters, void**) {
  Function* f = (Function*)function;
  if (!current() || current()->device != f->module->device) return INVALID_CONTEXT;
  note("cuLaunchKernel", f->name, "device", current()->device, "grid", gx, gy, gz, "block", bx, by, bz, "shared", shared, "stream", stream);
  if (getenv("FAKE_CUDA_FAIL")) return atoi(getenv("FAKE_CUDA_FAIL"));
  if (!gx || !gy || !gz || gy > 65535 || gz > 65535 || (shared > 48 << 10 && f->dynamic < int(shared))) return INVALID_VALUE;
  static std::mutex one_at_a_time;
  std::lock_guard<std::mutex> hold(one_at_a_time);
  const unsigned grid[] = {gx, gy, gz}, block[] = {bx, by, bz};
  for (const std::string& path : parts(setting("FAKE_CUDA_CODE", ""), ':')) {
    void* code = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    auto emulate = code ? (int (*)(const char*, const unsigned*, const unsigned*, unsigned, void**))dlsym(code, "emulate") : nullptr;
    if (emulate && emulate(f->name.c_str(), grid, block, shared, parameters)) return SUCCESS;
  }
  return SUCCESS;
}
int cuGetErrorName(int code, const char** name) {
  static const std::map<int, const char*> names = {
      {1, "CUDA_ERROR_INVALID_VALUE"}, {100, "CUDA_ERROR_NO_DEVICE"}, {200, "CUDA_ERROR_INVALID_IMAGE"},
      {201, "CUDA_ERROR_INVALID_CONTEXT"}, {209, "CUDA_ERROR_NO_BINARY_FOR_GPU"}, {218, "CUDA_ERROR_INVALID_PTX"}, {500, "CUDA_ERROR_NOT_FOUND"},
      {719, "CUDA_ERROR_LAUNCH_FAILED"}, {900, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"}};
  auto found = names.find(code);
  *name = found == names.end() ? nullptr : found->second;
  return *name ? SUCCESS : INVALID_VALUE;
}
int cuGetErrorString(int code, const char** text) { return *text = code == 719 ? "unspecified launch failure" : nullptr, *text ? SUCCESS : INVALID_VALUE; }

// -- for tests --
const char* fake_log() {
  static std::string text;
  std::lock_guard<std::mutex> hold(lock);
  text.clear();
  for (const std::string& line : lines) text += line + "\n";
  return text.c_str();
}
void fake_clear() {
  std::lock_guard<std::mutex> hold(lock);
  lines.clear();
}
void fake_capture(int on) { capturing = on; }
void fake_limit(const char* what, int value) { limits[what] = value; }
void fake_context(int device) {
  stack.clear();
  if (device >= 0) stack.push_back(&contexts[device]);
}
int fake_current() { return current() ? current()->device : -1; }
}
