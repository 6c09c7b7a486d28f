#include "runtime/base/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace qwen {
namespace {

Status SystemError(const std::string& path, const char* what, int error) {
  return ResourceExhaustedError(path + ": " + what + ": " + std::strerror(error));
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }
  /// close() can be where a full disk shows, so its answer counts.
  int Close() {
    const int fd = fd_;
    fd_ = -1;
    return close(fd);
  }

 private:
  int fd_;
};

Status WriteAll(int fd, std::string_view bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t n = write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return SystemError(path, "cannot write", errno);
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return Status();
}

}  // namespace

StatusOr<std::string> ReadFile(const std::string& path, size_t max_bytes) {
  // O_NONBLOCK: opening a fifo must fail below, not wait for a writer.
  Descriptor fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (fd.get() < 0) return SystemError(path, "cannot open", errno);
  struct stat info;
  if (fstat(fd.get(), &info) != 0) return SystemError(path, "cannot stat", errno);
  if (S_ISDIR(info.st_mode)) return ResourceExhaustedError(path + ": is a folder, not a file");
  if (!S_ISREG(info.st_mode)) return ResourceExhaustedError(path + ": is not a regular file");
  if (static_cast<unsigned long long>(info.st_size) > max_bytes)
    return DataLossError(path + ": is " + std::to_string(info.st_size) + " bytes, the limit is " +
                         std::to_string(max_bytes));
  std::string bytes;
  bytes.resize(static_cast<size_t>(info.st_size));
  size_t have = 0;
  while (true) {
    // One byte more than the size, so that a file that grows meanwhile is noticed.
    char extra;
    char* to = have < bytes.size() ? bytes.data() + have : &extra;
    const size_t room = have < bytes.size() ? bytes.size() - have : 1;
    const ssize_t n = read(fd.get(), to, room);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return SystemError(path, "cannot read", errno);
    if (n == 0) break;
    if (to == &extra) return DataLossError(path + ": grew while it was read");
    have += static_cast<size_t>(n);
  }
  bytes.resize(have);
  return bytes;
}

Status WriteFileAtomic(const std::string& path, std::string_view bytes, bool overwrite) {
  return WriteFileAtomic(path, std::span(&bytes, 1), overwrite);
}

Status WriteFileAtomic(const std::string& path, std::span<const std::string_view> parts, bool overwrite) {
  std::string target = path;
  struct stat info;
  bool exists = lstat(path.c_str(), &info) == 0;
  if (exists && S_ISLNK(info.st_mode)) {
    char resolved[PATH_MAX];
    if (!realpath(path.c_str(), resolved)) return SystemError(path, "cannot follow the link", errno);
    target = resolved;
    exists = stat(target.c_str(), &info) == 0;
  }
  if (exists && !S_ISREG(info.st_mode)) return InvalidArgumentError(path + ": is not a regular file");
  if (exists && !overwrite)
    return InvalidArgumentError(path + ": exists already", "choose another name, or pass --force to replace it");

  const size_t slash = target.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : slash == 0 ? "/" : target.substr(0, slash);
  static std::atomic<unsigned> counter{0};
  std::string temp;
  int raw = -1;
  do {
    temp = folder + "/.qwen-" + std::to_string(getpid()) + "-" + std::to_string(counter++) + ".tmp";
    raw = open(temp.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  } while (raw < 0 && errno == EEXIST);
  if (raw < 0) return SystemError(path, "cannot create a file in its folder", errno);
  Descriptor fd(raw);

  Status status;
  for (std::string_view part : parts)
    if (status.ok()) status = WriteAll(fd.get(), part, path);
  if (status.ok() && exists && fchmod(fd.get(), info.st_mode & 07777) != 0)
    status = SystemError(path, "cannot set its mode", errno);
  if (status.ok() && fsync(fd.get()) != 0) status = SystemError(path, "cannot sync", errno);
  if (status.ok() && fd.Close() != 0) status = SystemError(path, "cannot write", errno);
  if (status.ok()) {
    int rc = 0;
    if (overwrite) {
      rc = rename(temp.c_str(), target.c_str());
    } else {
      // Another process may have made the file meanwhile: let the kernel decide, where the file system can.
      rc = renameat2(AT_FDCWD, temp.c_str(), AT_FDCWD, target.c_str(), RENAME_NOREPLACE);
      if (rc != 0 && (errno == EINVAL || errno == ENOSYS)) rc = rename(temp.c_str(), target.c_str());
    }
    if (rc != 0 && errno == EEXIST) {
      status = InvalidArgumentError(path + ": exists already", "choose another name, or pass --force to replace it");
    } else if (rc != 0) {
      status = SystemError(path, "cannot rename to it", errno);
    }
  }
  if (!status.ok()) {
    unlink(temp.c_str());
    return status;
  }
  // The name is durable once its folder is; a file system that cannot sync a folder has done what it can.
  Descriptor dir(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (dir.get() >= 0) (void)fsync(dir.get());
  return Status();
}

}  // namespace qwen
