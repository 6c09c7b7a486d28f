// Which build this is.
#ifndef QWEN_RUNTIME_BASE_VERSION_H_
#define QWEN_RUNTIME_BASE_VERSION_H_

#include <string>

namespace qwen {

struct BuildInfo {
  std::string version;     // "0.1.0"
  std::string commit;      // twelve hex digits, as of the last run of CMake; "unknown" outside a git checkout
  std::string build_type;  // "Release"
  std::string compiler;    // "g++ 12.2.0"
};
BuildInfo ThisBuild();

}  // namespace qwen

#endif  // QWEN_RUNTIME_BASE_VERSION_H_
