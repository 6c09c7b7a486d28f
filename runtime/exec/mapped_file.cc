#include "runtime/exec/mapped_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace qwen::exec {

MappedFile::~MappedFile() {
  if (bytes_) munmap(bytes_, size_);
}

Status MappedFile::Open(const std::string& path) {
  // O_NONBLOCK: opening a fifo must fail below, not wait for a writer.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return ResourceExhaustedError(fmt::format("{}: cannot open: {}", path, std::strerror(errno)));
  struct stat info{};
  const bool regular = fstat(fd, &info) == 0 && S_ISREG(info.st_mode);
  void* at = nullptr;
  if (regular && info.st_size > 0) at = mmap(nullptr, info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
  const int error = errno;
  close(fd);
  if (!regular) return ResourceExhaustedError(path + ": is not a regular file");
  if (at == MAP_FAILED)
    return ResourceExhaustedError(fmt::format("{}: cannot be mapped: {}", path, std::strerror(error)));
  bytes_ = static_cast<uint8_t*>(at), size_ = info.st_size;
  return {};
}

void MappedFile::Want(int64_t begin, int64_t end) const { Advise(begin, end, MADV_WILLNEED); }
void MappedFile::Drop(int64_t begin, int64_t end) const { Advise(begin, end, MADV_DONTNEED); }

void MappedFile::Advise(int64_t begin, int64_t end, int advice) const {
  const int64_t page = sysconf(_SC_PAGE_SIZE);
  begin = begin / page * page;
  if (end > begin) madvise(bytes_ + begin, end - begin, advice);
}

void MappedFile::Populate() const {
  Want(0, size_);
  const int64_t page = sysconf(_SC_PAGE_SIZE);
  for (int64_t at = 0; at < size_; at += page) (void)*const_cast<const volatile uint8_t*>(bytes_ + at);
}

}  // namespace qwen::exec
