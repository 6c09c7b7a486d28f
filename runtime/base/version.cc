// The only file that is compiled again when the commit changes.
#include "runtime/base/version.h"

#include "fmt/format.h"

namespace qwen {

BuildInfo ThisBuild() {
#if defined(__clang__)
  std::string compiler = fmt::format("clang {}.{}.{}", __clang_major__, __clang_minor__, __clang_patchlevel__);
#else
  std::string compiler = fmt::format("g++ {}.{}.{}", __GNUC__, __GNUC_MINOR__, __GNUC_PATCHLEVEL__);
#endif
  return {QWEN_VERSION, QWEN_COMMIT, QWEN_BUILD_TYPE, compiler};
}

}  // namespace qwen
