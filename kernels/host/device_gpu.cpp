// A GPU behind the interface of the checks, through the driver's own library; nothing is linked.
#include <dirent.h>
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <algorithm>
#include <map>

#include "device.h"

namespace {

typedef int Result;
typedef void* Handle;

// The entry points used, with the driver's signatures.
struct Driver {
  Result (*init)(unsigned);
  Result (*device_get)(int*, int);
  Result (*device_name)(char*, int, int);
  Result (*device_attribute)(int*, int, int);
  Result (*context_retain)(Handle*, int);
  Result (*context_set)(Handle);
  Result (*module_load)(Handle*, const void*);
  Result (*module_function)(Handle*, Handle, const char*);
  Result (*function_attribute)(Handle, int, int);
  Result (*alloc)(uint64_t*, size_t);
  Result (*free)(uint64_t);
  Result (*to_device)(uint64_t, const void*, size_t);
  Result (*to_host)(void*, uint64_t, size_t);
  Result (*launch)(Handle, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, Handle, void**, void**);
  Result (*synchronize)();
  Result (*event_create)(Handle*, unsigned);
  Result (*event_record)(Handle, Handle);
  Result (*event_synchronize)(Handle);
  Result (*event_elapsed)(float*, Handle, Handle);
  Result (*event_destroy)(Handle);
  Result (*error_name)(Result, const char**);
  Result (*encode_tiled)(void*, int, unsigned, void*, const uint64_t*, const uint64_t*, const uint32_t*, const uint32_t*,
                         int, int, int, int);
};

class Gpu : public Device {
 public:
  explicit Gpu(const char* dir) {
    void* lib = dlopen("libcuda.so.1", RTLD_NOW);
    if (!lib) {
      fprintf(stderr, "libcuda.so.1 is not here: %s\n", dlerror());
      exit(2);
    }
    auto get = [&](const char* name) {
      void* p = dlsym(lib, name);
      if (!p) fprintf(stderr, "the driver has no %s\n", name), exit(2);
      return p;
    };
    *(void**)&d.init = get("cuInit");
    *(void**)&d.device_get = get("cuDeviceGet");
    *(void**)&d.device_name = get("cuDeviceGetName");
    *(void**)&d.device_attribute = get("cuDeviceGetAttribute");
    *(void**)&d.context_retain = get("cuDevicePrimaryCtxRetain");
    *(void**)&d.context_set = get("cuCtxSetCurrent");
    *(void**)&d.module_load = get("cuModuleLoadData");
    *(void**)&d.module_function = get("cuModuleGetFunction");
    *(void**)&d.function_attribute = get("cuFuncSetAttribute");
    *(void**)&d.alloc = get("cuMemAlloc_v2");
    *(void**)&d.free = get("cuMemFree_v2");
    *(void**)&d.to_device = get("cuMemcpyHtoD_v2");
    *(void**)&d.to_host = get("cuMemcpyDtoH_v2");
    *(void**)&d.launch = get("cuLaunchKernel");
    *(void**)&d.synchronize = get("cuCtxSynchronize");
    *(void**)&d.event_create = get("cuEventCreate");
    *(void**)&d.event_record = get("cuEventRecord");
    *(void**)&d.event_synchronize = get("cuEventSynchronize");
    *(void**)&d.event_elapsed = get("cuEventElapsedTime");
    *(void**)&d.event_destroy = get("cuEventDestroy_v2");
    *(void**)&d.error_name = get("cuGetErrorName");
    *(void**)&d.encode_tiled = get("cuTensorMapEncodeTiled");
    must(d.init(0), "cuInit");
    int device = 0;
    must(d.device_get(&device, 0), "cuDeviceGet");
    must(d.device_name(name, sizeof name, device), "cuDeviceGetName");
    must(d.device_attribute(&major, 75, device), "compute capability");
    must(d.device_attribute(&minor, 76, device), "compute capability");
    must(d.device_attribute(&processors, 16, device), "number of multiprocessors");
    Handle context;
    must(d.context_retain(&context, device), "cuDevicePrimaryCtxRetain");
    must(d.context_set(context), "cuCtxSetCurrent");
    DIR* files = opendir(dir);
    if (!files) fprintf(stderr, "%s: cannot be read\n", dir), exit(2);
    while (dirent* e = readdir(files)) {
      std::string file = e->d_name;
      if (file.size() < 6 || file.substr(file.size() - 6) != ".cubin") continue;
      load(std::string(dir) + "/" + file);
    }
    closedir(files);
    if (modules.empty()) fprintf(stderr, "%s holds no .cubin this GPU can load\n", dir), exit(2);
  }
  std::string describe() override {
    return std::string(name) + ", compute capability " + std::to_string(major) + "." + std::to_string(minor) + ", " +
           std::to_string(processors) + " multiprocessors";
  }
  bool is_gpu() override { return true; }
  bool has_hopper() override { return major == 9; }
  int multiprocessors() override { return processors; }
  void* allocate(size_t bytes) override {
    uint64_t p = 0;
    must(d.alloc(&p, bytes ? bytes : 1), "cuMemAlloc");
    return (void*)p;
  }
  void release(void* at) override { must(d.free((uint64_t)at), "cuMemFree"); }
  void upload(void* to, const void* from, size_t n) override {
    if (n) must(d.to_device((uint64_t)to, from, n), "copy to the device");
  }
  void download(void* to, const void* from, size_t n) override {
    if (n) must(d.to_host(to, (uint64_t)from, n), "copy from the device");
  }
  void launch(const LaunchSpec& s, void** arguments, int) override {
    start(s, arguments);
    must(d.synchronize(), s.kernel);
  }
  MapBytes map_2d(const void* base, uint64_t width, uint64_t height, uint64_t pitch, uint32_t box_width,
                  uint32_t box_height) override {
    MapBytes map = {};
    uint64_t size[2] = {width, height}, stride[1] = {pitch};
    uint32_t box[2] = {box_width, box_height}, step[2] = {1, 1};
    // bf16 = 9, no interleave, 128-byte swizzle = 3, 256-byte L2 promotion = 3, zeros outside.
    must(d.encode_tiled(&map, 9, 2, (void*)base, size, stride, box, step, 0, 3, 3, 0), "cuTensorMapEncodeTiled");
    return map;
  }
  double time(const LaunchSpec& s, void** arguments, int, int repeats) override {
    Handle begin, end;
    must(d.event_create(&begin, 0), "cuEventCreate");
    must(d.event_create(&end, 0), "cuEventCreate");
    start(s, arguments);
    // Before any clock runs: what the first launch did wrong is its own.
    must(d.synchronize(), s.kernel);
    if (repeats < 1) return 0;
    must(d.event_record(begin, nullptr), "cuEventRecord");
    for (int i = 0; i < repeats; i++) start(s, arguments);
    must(d.event_record(end, nullptr), "cuEventRecord");
    must(d.event_synchronize(end), s.kernel);
    float ms = 0;
    must(d.event_elapsed(&ms, begin, end), "cuEventElapsedTime");
    must(d.event_destroy(begin), "cuEventDestroy");
    must(d.event_destroy(end), "cuEventDestroy");
    return ms * 1e-3 / repeats;
  }

 private:
  Driver d = {};
  char name[256] = {};
  int major = 0, minor = 0, processors = 0;
  // A module and the file it was loaded from: whoever asks a module for a kernel it has not makes an error of the driver.
  struct Module {
    Handle handle;
    std::vector<char> image;
    bool names(const std::string& kernel) const {
      const std::string entry = std::string(1, '\0') + kernel + std::string(1, '\0');
      return std::search(image.begin(), image.end(), entry.begin(), entry.end()) != image.end();
    }
  };
  std::vector<Module> modules;
  std::map<std::string, Handle> functions;

  void must(Result r, const char* what) {
    if (r == 0) return;
    const char* text = nullptr;
    if (d.error_name) d.error_name(r, &text);
    fprintf(stderr, "%s: %s\n", what, text ? text : "unknown error");
    exit(4);
  }
  void load(const std::string& path) {
    FILE* f = fopen(path.c_str(), "rb");
    if (!f) return;
    std::vector<char> image;
    char block[65536];
    for (size_t n; (n = fread(block, 1, sizeof block, f)) > 0;) image.insert(image.end(), block, block + n);
    fclose(f);
    Handle module;
    // Said, since every kernel of that file is missing then.
    if (Result r = d.module_load(&module, image.data()))
      fprintf(stderr, "%s: error %d: the driver does not load it\n", path.c_str(), r);
    else
      modules.push_back({module, std::move(image)});
  }
  void start(const LaunchSpec& s, void** arguments) {
    Handle& f = functions[s.kernel];
    for (size_t i = 0; !f && i < modules.size(); i++)
      if (!modules[i].names(s.kernel) || d.module_function(&f, modules[i].handle, s.kernel) != 0) f = nullptr;
    if (!f) fprintf(stderr, "no cubin has the kernel %s\n", s.kernel), exit(2);
    if (s.shared > 49152) must(d.function_attribute(f, 8, (int)s.shared), s.kernel);
    must(d.launch(f, s.grid.x, s.grid.y, s.grid.z, s.block.x, s.block.y, s.block.z, (unsigned)s.shared, nullptr,
                  arguments, nullptr),
         s.kernel);
  }
};

}  // namespace

Device* open_gpu(const char* cubin_dir) { return new Gpu(cubin_dir); }
