//===- PtxCache.h - PTX that was made before ------------------------------===//

#ifndef QWEN_COMPILER_CODEGEN_PTXCACHE_H
#define QWEN_COMPILER_CODEGEN_PTXCACHE_H

#include <functional>
#include <optional>
#include <string>

namespace qwen::compiler {

/// Texts in a folder, one file a key. A file's name is a digest of the key (source, headers, flags, version of NVRTC),
/// its first line a digest of the text, so that a truncated or damaged file is made anew, not used. Writers write aside
/// and rename; two processes that miss at once both compile, and either file is right. Nothing here can fail a
/// compilation: a folder that cannot be read or written is no cache.
/// Threads: any.
class PtxCache {
public:
  /// "": no cache.
  explicit PtxCache(std::string folder) : folder(std::move(folder)) {}

  /// qwenc in XDG_CACHE_HOME or ~/.cache; "" where neither is known.
  static std::string defaultFolder();

  std::optional<std::string> find(const std::string &key) const;
  void store(const std::string &key, const std::string &text) const;

private:
  std::string pathOf(const std::string &key) const;
  std::string folder;
};

} // namespace qwen::compiler

#endif
