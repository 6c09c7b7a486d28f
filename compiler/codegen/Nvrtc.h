//===- Nvrtc.h - CUDA C++ to PTX, by a library opened at run time ---------===//

#ifndef QWEN_COMPILER_CODEGEN_NVRTC_H
#define QWEN_COMPILER_CODEGEN_NVRTC_H

#include "runtime/base/status.h"

#include <string>

namespace qwen::compiler {

/// NVRTC of the CUDA toolkit. `qwenc` starts without it; who asks for it and lacks it gets kUnimplemented that names
/// the places that were looked at. QWENC_NVRTC names another library.
/// Threads: compile may be called from several at once.
class Nvrtc {
public:
  /// Opened once a process.
  static StatusOr<const Nvrtc *> open();

  /// "13.0"
  const std::string &version() const { return versionText; }

  /// PTX for compute_89 of one source; `name` is what the log calls it. kInternal with the compiler's log.
  StatusOr<std::string> compile(const std::string &name, const std::string &source) const;

private:
  struct Api;
  Nvrtc() = default;
  const Api *api = nullptr;
  std::string versionText;
};

/// The options every source is compiled with; part of a cached text's key.
const char *const *nvrtcOptions(int *count);

} // namespace qwen::compiler

#endif
