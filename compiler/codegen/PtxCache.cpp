//===- PtxCache.cpp - PTX that was made before ----------------------------===//

#include "compiler/codegen/PtxCache.h"

#include "runtime/base/file.h"
#include "runtime/base/sha256.h"

#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>

namespace qwen::compiler {
namespace {

constexpr size_t kMaxBytes = 16 << 20; // ours are below 200 KB

std::string digestOf(const std::string &text) {
  std::string hex;
  for (uint8_t byte : Sha256(text))
    hex += fmt::format("{:02x}", byte);
  return hex;
}

} // namespace

std::string PtxCache::defaultFolder() {
  if (const char *xdg = std::getenv("XDG_CACHE_HOME"); xdg && *xdg == '/')
    return std::string(xdg) + "/qwenc";
  if (const char *home = std::getenv("HOME"); home && *home == '/')
    return std::string(home) + "/.cache/qwenc";
  return "";
}

std::string PtxCache::pathOf(const std::string &key) const { return folder + "/" + digestOf(key) + ".ptx"; }

std::optional<std::string> PtxCache::find(const std::string &key) const {
  if (folder.empty())
    return std::nullopt;
  StatusOr<std::string> file = ReadFile(pathOf(key), kMaxBytes);
  if (!file.ok())
    return std::nullopt;
  size_t line = file->find('\n');
  if (line == std::string::npos)
    return std::nullopt;
  std::string text = file->substr(line + 1);
  if (file->compare(0, line, digestOf(text)) != 0)
    return std::nullopt;
  return text;
}

void PtxCache::store(const std::string &key, const std::string &text) const {
  if (folder.empty())
    return;
  std::error_code ignored;
  std::filesystem::create_directories(folder, ignored);
  (void)WriteFileAtomic(pathOf(key), digestOf(text) + "\n" + text, true);
}

} // namespace qwen::compiler
