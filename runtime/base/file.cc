#include "runtime/base/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

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

 private:
  int fd_;
};

Status ExistsError(const std::string& path) {
  return InvalidArgumentError(path + ": exists already", "choose another name, or pass --force to replace it");
}

std::string FolderOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
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
  QWEN_ASSIGN_OR_RETURN(std::unique_ptr<AtomicFile> file, AtomicFile::Create(path, overwrite));
  for (std::string_view part : parts) QWEN_RETURN_IF_ERROR(file->Write(part));
  return file->Commit();
}

StatusOr<std::unique_ptr<AtomicFile>> AtomicFile::Create(const std::string& path, bool overwrite) {
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
  if (exists && !overwrite) return ExistsError(path);

  static std::atomic<unsigned> counter{0};
  std::string temp;
  int fd = -1;
  do {
    temp = FolderOf(target) + "/.qwen-" + std::to_string(getpid()) + "-" + std::to_string(counter++) + ".tmp";
    fd = open(temp.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  } while (fd < 0 && errno == EEXIST);
  if (fd < 0) return SystemError(path, "cannot create a file in its folder", errno);
  std::unique_ptr<AtomicFile> file(new AtomicFile(path, target, temp, fd, overwrite));
  if (exists && fchmod(fd, info.st_mode & 07777) != 0) return SystemError(path, "cannot set its mode", errno);
  return file;
}

AtomicFile::AtomicFile(std::string path, std::string target, std::string temp, int fd, bool overwrite)
    : path_(std::move(path)),
      target_(std::move(target)),
      temp_(std::move(temp)),
      remove_on_stop_(temp_),
      fd_(fd),
      overwrite_(overwrite) {}

AtomicFile::~AtomicFile() {
  if (fd_ >= 0) close(fd_);
  if (named_) unlink(temp_.c_str());
}

Status AtomicFile::Reserve(int64_t bytes) {
  if (ftruncate(fd_, bytes) != 0) return SystemError(path_, "cannot write", errno);
  int error = 0;
  while (fallocate(fd_, 0, 0, bytes) != 0 && (error = errno) == EINTR) error = 0;
  if (error != 0 && error != EOPNOTSUPP && error != ENOSYS) {
    struct statvfs disk;
    const std::string free =
        fstatvfs(fd_, &disk) == 0 ? ", " + std::to_string(uint64_t{disk.f_bavail} * disk.f_frsize) + " are free" : "";
    return SystemError(path_ + ": " + std::to_string(bytes) + " bytes are wanted" + free, "cannot write", error);
  }
  return Status();
}

Status AtomicFile::Write(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = write(fd_, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return SystemError(path_, "cannot write", errno);
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return Status();
}

Status AtomicFile::Seek(int64_t offset) {
  return lseek(fd_, offset, SEEK_SET) == offset ? Status() : SystemError(path_, "cannot write", errno);
}

Status AtomicFile::Commit() {
  if (fsync(fd_) != 0) return SystemError(path_, "cannot sync", errno);
  // close() can be where a full disk shows, so its answer counts.
  if (close(std::exchange(fd_, -1)) != 0) return SystemError(path_, "cannot write", errno);
  int rc = 0;
  if (overwrite_) {
    rc = rename(temp_.c_str(), target_.c_str());
  } else {
    // Another process may have made the file meanwhile: let the kernel decide, where the file system can.
    rc = renameat2(AT_FDCWD, temp_.c_str(), AT_FDCWD, target_.c_str(), RENAME_NOREPLACE);
    if (rc != 0 && (errno == EINVAL || errno == ENOSYS)) rc = rename(temp_.c_str(), target_.c_str());
  }
  if (rc != 0) return errno == EEXIST ? ExistsError(path_) : SystemError(path_, "cannot rename to it", errno);
  named_ = false;
  // The name is durable once its folder is; a file system that cannot sync a folder has done what it can.
  Descriptor dir(open(FolderOf(target_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (dir.get() >= 0) (void)fsync(dir.get());
  return Status();
}

}  // namespace qwen
