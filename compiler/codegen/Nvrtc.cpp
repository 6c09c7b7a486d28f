//===- Nvrtc.cpp - CUDA C++ to PTX, by a library opened at run time -------===//

#include "compiler/codegen/Nvrtc.h"

#include "compiler/codegen/SpecEmitter.h"

#include <cstdlib>
#include <dlfcn.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <iterator>
#include <vector>

namespace qwen::compiler {
namespace {

using Program = void *; // nvrtcProgram

// Sums and products stay apart unless a body says fma: equal formulas in two kernels give equal bits. Subnormals are
// kept and divisions are exact, as on the CPU. Line numbers reach the emulator's and the profiler's reports.
constexpr const char *kOptions[] = {"--gpu-architecture=compute_89", "--std=c++20", "-default-device", "--fmad=false",
                                    "--generate-line-info"};

} // namespace

struct Nvrtc::Api {
  int (*version)(int *, int *);
  int (*create)(Program *, const char *, const char *, int, const char *const *, const char *const *);
  int (*destroy)(Program *);
  int (*compile)(Program, int, const char *const *);
  int (*ptxSize)(Program, size_t *);
  int (*ptx)(Program, char *);
  int (*logSize)(Program, size_t *);
  int (*log)(Program, char *);
  const char *(*error)(int);
};

const char *const *nvrtcOptions(int *count) {
  *count = std::size(kOptions);
  return kOptions;
}

StatusOr<const Nvrtc *> Nvrtc::open() {
  static const StatusOr<const Nvrtc *> opened = []() -> StatusOr<const Nvrtc *> {
    const char *asked = std::getenv("QWENC_NVRTC");
    std::vector<std::string> names =
        asked ? std::vector<std::string>{asked}
              : std::vector<std::string>{"libnvrtc.so.13", "/usr/local/cuda/lib64/libnvrtc.so.13",
                                         "/usr/local/cuda/lib/libnvrtc.so.13", "libnvrtc.so"};
    void *library = nullptr;
    for (const std::string &name : names)
      if (!library)
        library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library)
      return UnimplementedError(fmt::format("NVRTC was not found: tried {}", fmt::join(names, ", ")),
                                "install the CUDA toolkit 13, or use --target=cpu");
    static Api api;
    std::string missing;
    auto load = [&](const char *name, auto *to) {
      *to = reinterpret_cast<std::remove_pointer_t<decltype(to)>>(dlsym(library, name));
      if (!*to)
        missing = name;
    };
    load("nvrtcVersion", &api.version);
    load("nvrtcCreateProgram", &api.create);
    load("nvrtcDestroyProgram", &api.destroy);
    load("nvrtcCompileProgram", &api.compile);
    load("nvrtcGetPTXSize", &api.ptxSize);
    load("nvrtcGetPTX", &api.ptx);
    load("nvrtcGetProgramLogSize", &api.logSize);
    load("nvrtcGetProgramLog", &api.log);
    load("nvrtcGetErrorString", &api.error);
    int major = 0, minor = 0;
    if (!missing.empty() || api.version(&major, &minor) != 0)
      return UnimplementedError(fmt::format("NVRTC has no {}", missing.empty() ? "version" : missing),
                                "install the CUDA toolkit 13, or use --target=cpu");
    auto *nvrtc = new Nvrtc; // for the life of the process
    nvrtc->api = &api;
    nvrtc->versionText = fmt::format("{}.{}", major, minor);
    return static_cast<const Nvrtc *>(nvrtc);
  }();
  return opened;
}

StatusOr<std::string> Nvrtc::compile(const std::string &name, const std::string &source) const {
  std::vector<const char *> names, texts;
  for (const DeviceHeader &header : deviceHeaders()) {
    names.push_back(header.name);
    texts.push_back(header.text);
  }
  auto failed = [&](const char *what, int result) {
    return InternalError(fmt::format("kernel {}: {}: {}", name, what, api->error(result)));
  };
  Program program = nullptr;
  const std::string file = name + ".cu";
  if (int result = api->create(&program, source.c_str(), file.c_str(), static_cast<int>(names.size()), texts.data(), names.data()))
    return failed("NVRTC could not start", result);
  struct Destroy {
    const Api *api;
    Program *program;
    ~Destroy() { api->destroy(program); }
  } destroy{api, &program};
  size_t size = 0;
  if (int result = api->compile(program, std::size(kOptions), kOptions)) {
    std::string log;
    if (api->logSize(program, &size) == 0 && size > 1) {
      log.resize(size);
      api->log(program, log.data());
      log.resize(size - 1);
    }
    return InternalError(fmt::format("kernel {}: {}\n{}", name, api->error(result), log));
  }
  std::string ptx;
  if (int result = api->ptxSize(program, &size))
    return failed("no PTX", result);
  ptx.resize(size);
  if (int result = api->ptx(program, ptx.data()))
    return failed("no PTX", result);
  ptx.resize(ptx.find_last_not_of('\0') + 1); // the size counts a NUL
  return ptx;
}

} // namespace qwen::compiler
