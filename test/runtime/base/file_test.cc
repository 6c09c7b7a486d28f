#include "runtime/base/file.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>

namespace qwen {
namespace {

namespace fs = std::filesystem;

class FileTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "qwen_file_test_XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::string Path(const std::string& name) const { return (folder_ / name).string(); }
  size_t Files() const { return std::distance(fs::directory_iterator(folder_), fs::directory_iterator()); }

  fs::path folder_;
};

TEST_F(FileTest, WritesAndReadsBack) {
  const std::string bytes("a\0b\xff", 4);
  ASSERT_TRUE(WriteFileAtomic(Path("f"), bytes, false).ok());
  EXPECT_EQ(*ReadFile(Path("f"), 4), bytes);
  EXPECT_EQ(Files(), 1u);
}

TEST_F(FileTest, RefusesToReadMoreThanTheLimit) {
  ASSERT_TRUE(WriteFileAtomic(Path("f"), "12345", false).ok());
  StatusOr<std::string> bytes = ReadFile(Path("f"), 4);
  EXPECT_EQ(bytes.status().code(), StatusCode::kDataLoss);
  EXPECT_EQ(bytes.status().message(), Path("f") + ": is 5 bytes, the limit is 4");
}

TEST_F(FileTest, SaysWhyAFileCannotBeOpened) {
  EXPECT_EQ(ReadFile(Path("none"), 1).status().message(), Path("none") + ": cannot open: No such file or directory");
  EXPECT_EQ(ReadFile(Path("none"), 1).status().ExitCode(), 5);
  EXPECT_EQ(ReadFile(folder_.string(), 1).status().message(), folder_.string() + ": is a folder, not a file");
  ASSERT_EQ(mkfifo(Path("fifo").c_str(), 0600), 0);
  EXPECT_EQ(ReadFile(Path("fifo"), 1).status().message(), Path("fifo") + ": is not a regular file");
}

TEST_F(FileTest, ReplacesOnlyWhenAsked) {
  ASSERT_TRUE(WriteFileAtomic(Path("f"), "old", false).ok());
  chmod(Path("f").c_str(), 0640);
  Status status = WriteFileAtomic(Path("f"), "new", false);
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), Path("f") + ": exists already");
  EXPECT_EQ(*ReadFile(Path("f"), 9), "old");
  ASSERT_TRUE(WriteFileAtomic(Path("f"), "new", true).ok());
  EXPECT_EQ(*ReadFile(Path("f"), 9), "new");
  struct stat info;
  ASSERT_EQ(stat(Path("f").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0640u);
  EXPECT_EQ(Files(), 1u);
}

TEST_F(FileTest, FollowsALinkAndNeverReplacesADevice) {
  ASSERT_TRUE(WriteFileAtomic(Path("target"), "old", false).ok());
  fs::create_symlink(Path("target"), Path("link"));
  ASSERT_TRUE(WriteFileAtomic(Path("link"), "new", true).ok());
  EXPECT_TRUE(fs::is_symlink(Path("link")));
  EXPECT_EQ(*ReadFile(Path("target"), 9), "new");
  EXPECT_EQ(WriteFileAtomic("/dev/null", "x", true).message(), "/dev/null: is not a regular file");
  EXPECT_EQ(WriteFileAtomic(folder_.string(), "x", true).code(), StatusCode::kInvalidArgument);
}

TEST_F(FileTest, LeavesNothingBehindWhenTheDiskIsFull) {
  // A file size limit fails a write as a full disk does, once its signal is ignored.
  ASSERT_TRUE(WriteFileAtomic(Path("f"), "old", false).ok());
  struct rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  struct rlimit small = {64, before.rlim_max};
  auto handler = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  Status status = WriteFileAtomic(Path("f"), std::string(4096, 'x'), true);
  Status fresh = WriteFileAtomic(Path("g"), std::string(4096, 'x'), false);
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(status.ExitCode(), 5);
  EXPECT_EQ(status.message(), Path("f") + ": cannot write: File too large");
  EXPECT_FALSE(fresh.ok());
  EXPECT_EQ(*ReadFile(Path("f"), 9), "old");
  EXPECT_EQ(Files(), 1u);
}

TEST_F(FileTest, SaysThatTheFolderIsNotThere) {
  EXPECT_EQ(WriteFileAtomic(Path("no/f"), "x", false).message(),
            Path("no/f") + ": cannot create a file in its folder: No such file or directory");
}

}  // namespace
}  // namespace qwen
