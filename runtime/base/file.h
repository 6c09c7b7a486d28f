// Whole files, read with a limit and written all or nothing.
#ifndef QWEN_RUNTIME_BASE_FILE_H_
#define QWEN_RUNTIME_BASE_FILE_H_

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "runtime/base/status.h"

namespace qwen {

/// The bytes of a regular file. kResourceExhausted when it cannot be opened or read, kDataLoss when it holds more than
/// `max_bytes`, in which case nothing of it is read.
StatusOr<std::string> ReadFile(const std::string& path, size_t max_bytes);

/// Writes `bytes` to a new file beside `path`, syncs it and renames it: readers see the old file or all of the new one,
/// also after a crash. On failure nothing is left behind. A file that exists is refused (kInvalidArgument) unless
/// `overwrite`; a link is followed; what is not a regular file is never replaced.
Status WriteFileAtomic(const std::string& path, std::string_view bytes, bool overwrite);
/// The same, of parts that lie one behind the other in the file.
Status WriteFileAtomic(const std::string& path, std::span<const std::string_view> parts, bool overwrite);

}  // namespace qwen

#endif  // QWEN_RUNTIME_BASE_FILE_H_
