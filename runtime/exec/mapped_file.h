// A file's bytes, mapped to be read.
#ifndef QWEN_RUNTIME_EXEC_MAPPED_FILE_H_
#define QWEN_RUNTIME_EXEC_MAPPED_FILE_H_

#include <cstdint>
#include <span>
#include <string>

#include "runtime/base/status.h"

namespace qwen::exec {

/// A file that others cut off while it is mapped ends the process when the missing part is read (SIGBUS).
class MappedFile {
 public:
  MappedFile() = default;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  /// kResourceExhausted when it cannot be opened or mapped, or is no regular file. An empty file has no bytes.
  Status Open(const std::string& path);

  std::span<const uint8_t> bytes() const { return {bytes_, static_cast<size_t>(size_)}; }
  int64_t size() const { return size_; }

  // What happens soon to bytes [begin, end), in whole pages around them.
  void Want(int64_t begin, int64_t end) const;  // read soon
  void Drop(int64_t begin, int64_t end) const;  // not read again: a neighbour that is comes back from the page cache
  /// Reads all of it now.
  void Populate() const;

 private:
  void Advise(int64_t begin, int64_t end, int advice) const;

  uint8_t* bytes_ = nullptr;
  int64_t size_ = 0;
};

}  // namespace qwen::exec

#endif  // QWEN_RUNTIME_EXEC_MAPPED_FILE_H_
