// Whole files, read with a limit and written all or nothing.
#ifndef QWEN_RUNTIME_BASE_FILE_H_
#define QWEN_RUNTIME_BASE_FILE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "runtime/base/signals.h"
#include "runtime/base/status.h"

namespace qwen {

/// The bytes of a regular file. kResourceExhausted when it cannot be opened or read, kDataLoss when it holds more than
/// `max_bytes`, in which case nothing of it is read.
StatusOr<std::string> ReadFile(const std::string& path, size_t max_bytes);

/// A file that is written all or nothing: under a name of its own beside `path` until Commit syncs and renames it, so
/// that readers see the old file or all of the new one, also after a crash. Gone with the object when that comes first,
/// and when a signal ends the process (signals.h).
class AtomicFile {
 public:
  /// A file that exists is refused (kInvalidArgument) unless `overwrite`; a link is followed; what is not a regular
  /// file is never replaced.
  static StatusOr<std::unique_ptr<AtomicFile>> Create(const std::string& path, bool overwrite);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  /// Makes the file `bytes` long and takes the room for it, where the file system can: a full disk shows now, not hours
  /// later. What is never written is zero.
  Status Reserve(int64_t bytes);
  /// Behind what was written last.
  Status Write(std::string_view bytes);
  /// Moves to byte `offset` of the file.
  Status Seek(int64_t offset);
  Status Commit();

 private:
  AtomicFile(std::string path, std::string target, std::string temp, int fd, bool overwrite);

  const std::string path_, target_, temp_;  // as given, links followed, for now
  const RemoveOnStop remove_on_stop_;       // of temp_
  int fd_;                                  // -1 once it is closed
  const bool overwrite_;
  bool named_ = true;  // the temporary name is there
};

/// Writes `bytes` as an AtomicFile.
Status WriteFileAtomic(const std::string& path, std::string_view bytes, bool overwrite);
/// The same, of parts that lie one behind the other in the file.
Status WriteFileAtomic(const std::string& path, std::span<const std::string_view> parts, bool overwrite);

}  // namespace qwen

#endif  // QWEN_RUNTIME_BASE_FILE_H_
