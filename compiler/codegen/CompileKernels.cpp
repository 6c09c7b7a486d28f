//===- CompileKernels.cpp - PTX for a plan's kernels ----------------------===//

#include "compiler/codegen/CompileKernels.h"

#include "compiler/codegen/SpecEmitter.h"
#include "runtime/base/file.h"

#include <atomic>
#include <filesystem>
#include <fmt/format.h>
#include <thread>

namespace qwen::compiler {
namespace {

// What every key has: who compiles, how, and all that a source may include.
std::string keyPrefix(const Nvrtc &nvrtc) {
  std::string key = "nvrtc " + nvrtc.version();
  int count = 0;
  for (const char *const *options = nvrtcOptions(&count); count > 0; ++options, --count)
    key += std::string(" ") + *options;
  for (const DeviceHeader &header : deviceHeaders())
    key += std::string("\n") + header.name + "\n" + header.text;
  return key + "\n";
}

} // namespace

StatusOr<KernelFigures> compileKernels(plan::Plan &plan, const Nvrtc &nvrtc, const KernelOptions &options,
                                       size_t *failed) {
  std::vector<size_t> wanted; // indices into plan.kernels
  for (size_t i = 0; i < plan.kernels.size(); ++i)
    if (plan.kernels[i].launch.threads > 0)
      wanted.push_back(i);
  std::vector<Status> statuses(wanted.size());
  std::vector<std::string> sources(wanted.size()), texts(wanted.size());
  for (size_t w = 0; w < wanted.size(); ++w) {
    const plan::Kernel &kernel = plan.kernels[wanted[w]];
    const kernels::KernelInfo *info = kernels::FindKernel(kernel.entry);
    const kernels::CudaKernelInfo *cuda = kernels::FindCudaKernel(kernel.entry);
    if (!info || !cuda)
      return InternalError(fmt::format("kernel {}: the catalogue has no body of {}", kernel.name, kernel.entry));
    QWEN_ASSIGN_OR_RETURN(kernels::SpecPtr spec, info->decode(kernel.spec));
    sources[w] = emitCudaSource(kernel, *cuda, kernel.launch, info->num_args(spec.get()));
  }

  const PtxCache cache(options.cacheDir);
  const std::string prefix = keyPrefix(nvrtc);
  std::atomic<size_t> next = 0;
  std::atomic<int> cached = 0;
  auto work = [&] {
    for (size_t w; (w = next++) < wanted.size();) {
      if (std::optional<std::string> found = cache.find(prefix + sources[w])) {
        texts[w] = *std::move(found);
        ++cached;
        continue;
      }
      StatusOr<std::string> ptx = nvrtc.compile(plan.kernels[wanted[w]].name, sources[w]);
      if (!ptx.ok()) {
        statuses[w] = ptx.status();
        continue;
      }
      texts[w] = *std::move(ptx);
      cache.store(prefix + sources[w], texts[w]);
    }
  };
  std::vector<std::thread> threads;
  for (int job = 1; job < options.jobs; ++job)
    threads.emplace_back(work);
  work();
  for (std::thread &thread : threads)
    thread.join();

  if (!options.dumpDir.empty()) {
    std::error_code ignored; // what cannot be written says so below
    std::filesystem::create_directories(options.dumpDir, ignored);
    for (size_t w = 0; w < wanted.size(); ++w) {
      const std::string path = options.dumpDir + "/" + plan.kernels[wanted[w]].name;
      QWEN_RETURN_IF_ERROR(WriteFileAtomic(path + ".cu", sources[w], true));
      if (statuses[w].ok())
        QWEN_RETURN_IF_ERROR(WriteFileAtomic(path + ".ptx", texts[w], true));
    }
  }
  for (size_t w = 0; w < wanted.size(); ++w) {
    if (!statuses[w].ok()) {
      *failed = wanted[w];
      return statuses[w];
    }
    plan.kernels[wanted[w]].ptx = static_cast<int32_t>(plan.blobs.size());
    plan.blobs.push_back({plan::BlobKind::kPtx, {texts[w].begin(), texts[w].end()}});
  }
  return KernelFigures{static_cast<int>(wanted.size()) - cached, cached};
}

} // namespace qwen::compiler
