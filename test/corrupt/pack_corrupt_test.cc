// Damaged and hostile pack files: refused with a message that says where, never half used, never read past their end.
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <functional>

#include "runtime/exec/pack.h"
#include "runtime/plan/digest.h"
#include "test/runtime/exec/pack_plan.h"
#include "test/runtime/exec/test_checkpoint.h"

namespace qwen::exec {
namespace {

// Offsets in the file, by PACK.md.
constexpr size_t kVersion = 8, kFlags = 12, kFileBytes = 16, kWeightsDigest = 24, kBlobs = 40, kPacked = 44, kSum = 48,
                 kZero = 56, kTable = 64, kBlobEntry = 24;

class PackCorrupt : public testing::Test {
 protected:
  void SetUp() override {
    test::WriteTestCheckpoint(temp_ / "model");
    ASSERT_TRUE(WritePack(plan_, temp_ / "model", temp_ / "p.pack", true).ok());
    file_ = test::ReadBytes(temp_ / "p.pack");
    auto table = ParsePack(file_, file_.size(), plan_, "p");
    ASSERT_TRUE(table.ok()) << table.status().message();
    table_ = *table;
  }

  Status Parse(const std::vector<uint8_t>& file) const {
    // A copy, so that a sanitizer sees a read behind it.
    const std::vector<uint8_t> copy(file);
    return ParsePack(copy, static_cast<int64_t>(copy.size()), plan_, "p").status();
  }
  Status Map(const std::vector<uint8_t>& file) const {
    test::WriteBytes(temp_ / "p.pack", file);
    return MapPack(plan_, temp_ / "p.pack").status();
  }
  Status Verify(const std::vector<uint8_t>& file) const {
    test::WriteBytes(temp_ / "p.pack", file);
    return VerifyPack(plan_, temp_ / "p.pack");
  }

  /// As an attacker would: changed, and the checksum put right.
  std::string Message(const std::function<void(std::vector<uint8_t>&)>& change, int exit_code = 3) const {
    std::vector<uint8_t> file = file_;
    change(file);
    std::memset(&file[kSum], 0, 8);
    const uint64_t sum = plan::Xxh3({file.data(), static_cast<size_t>(table_.bytes)});
    std::memcpy(&file[kSum], &sum, 8);
    const Status status = Parse(file);
    EXPECT_EQ(status.ExitCode(), exit_code);
    return status.message();
  }
  template <class T>
  static std::function<void(std::vector<uint8_t>&)> Put(size_t at, T value) {
    return [at, value](std::vector<uint8_t>& file) { std::memcpy(&file[at], &value, sizeof(value)); };
  }

  const plan::Plan plan_ = test::MakePackPlan();
  test::TempFolder temp_;
  std::vector<uint8_t> file_;
  PackTable table_;
};

TEST_F(PackCorrupt, EveryFlippedBitOfHeaderAndTableIsNoticed) {
  for (size_t at = 0; at < static_cast<size_t>(table_.bytes); ++at)
    for (int bit = 0; bit < 8; ++bit) {
      std::vector<uint8_t> file = file_;
      file[at] ^= 1 << bit;
      const Status status = Parse(file);
      ASSERT_FALSE(status.ok()) << "byte " << at << " bit " << bit;
      const bool version = at >= kVersion && at < kFlags;
      ASSERT_EQ(status.code(), version ? StatusCode::kUnimplemented : StatusCode::kDataLoss)
          << "byte " << at << ": " << status.message();
    }
}

// What a start does not read is found by verify, which names the weight.
TEST_F(PackCorrupt, EveryFlippedByteOfTheBlobsIsNoticedByVerify) {
  int64_t end = table_.bytes, gaps = 0;
  for (const BlobPlaces::Blob& blob : table_.places.blobs) {
    if (blob.bytes == 0) continue;  // a share of no rows
    const std::string name = plan_.weights[plan_.packed[blob.packed].weight].name;
    for (int64_t at : {blob.offset, blob.offset + blob.bytes / 2, blob.offset + blob.bytes - 1}) {
      std::vector<uint8_t> file = file_;
      file[at] ^= 0x40;
      EXPECT_TRUE(Map(file).ok());
      const Status status = Verify(file);
      EXPECT_EQ(status.ExitCode(), 3);
      EXPECT_NE(status.message().find("section blobs: weight " + name + ": its checksum is "), std::string::npos)
          << status.message();
    }
    for (int64_t at = end; at < blob.offset; ++at, ++gaps) {
      std::vector<uint8_t> file = file_;
      file[at] = 1;
      EXPECT_NE(Verify(file).message().find("section blobs: the bytes from "), std::string::npos) << at;
    }
    end = blob.offset + blob.bytes;
  }
  EXPECT_TRUE(Verify(file_).ok());
  EXPECT_GT(gaps, 0);
}

TEST_F(PackCorrupt, EveryTruncationIsNoticed) {
  std::vector<int64_t> sizes;
  for (int64_t size = 0; size <= table_.bytes + 1; ++size) sizes.push_back(size);
  for (const BlobPlaces::Blob& blob : table_.places.blobs)
    for (int64_t at : {blob.offset, blob.offset + blob.bytes})
      for (int64_t size : {at - 1, at, at + 1})
        if (size < static_cast<int64_t>(file_.size())) sizes.push_back(size);
  for (int64_t size : sizes) {
    const std::vector<uint8_t> file(file_.begin(), file_.begin() + size);
    EXPECT_EQ(Parse(file).code(), StatusCode::kDataLoss) << size;
    EXPECT_EQ(Map(file).ExitCode(), 3) << size;
  }
  std::vector<uint8_t> longer = file_;
  longer.push_back(0);
  EXPECT_EQ(Map(longer).ExitCode(), 3);
}

TEST_F(PackCorrupt, Headers) {
  const std::string size = std::to_string(file_.size()), blobs = std::to_string(table_.places.blobs.size()),
                    packed = std::to_string(plan_.packed.size());
  EXPECT_EQ(Parse({'Q', 'W', 'E', 'N', 'P', 'A', 'C', 'K'}).message(),
            "p: section header: the file has 8 bytes, a header 64");
  EXPECT_EQ(Parse({'Q', 'W', 'E', 'N', 'P', 'L', 'A', 'N'}).message(),
            "p: is not a pack file: it does not begin with QWENPACK");
  EXPECT_EQ(Message(Put(kVersion, uint32_t{2}), 4), "p: is a pack of version 2, this build reads version 1");
  EXPECT_EQ(Message(Put(kFlags, uint32_t{4})), "p: section header: flags are 0x4, version 1 has 0x3");
  EXPECT_EQ(Message(Put(kZero, uint64_t{1} << 63)), "p: section header: its last 8 bytes are not 0");
  for (uint64_t bytes : {uint64_t{0}, uint64_t{1} << 31, uint64_t{1} << 32, uint64_t{1} << 63, ~uint64_t{0}})
    EXPECT_EQ(Message(Put(kFileBytes, bytes)),
              "p: section header: the file has " + size + " bytes, want " + std::to_string(bytes));
  for (uint32_t count : {uint32_t{1} << 20, uint32_t{1} << 31, ~uint32_t{0}}) {
    const uint64_t blobs_end = (kTable + uint64_t{count} * kBlobEntry + plan_.packed.size() * 4 + 63) / 64 * 64;
    EXPECT_EQ(Message(Put(kBlobs, count)), "p: section header: a table of " + std::to_string(count) + " blobs and " +
                                               packed + " weights ends at byte " + std::to_string(blobs_end) +
                                               ", the file has " + size);
    EXPECT_NE(Message(Put(kPacked, count)).find(" and " + std::to_string(count) + " weights ends at byte "),
              std::string::npos);
  }
  EXPECT_EQ(Message(Put(kWeightsDigest, uint64_t{1}), 4)
                .rfind("p: was packed for a plan with weights 0000000000000001, this one has ", 0),
            0u);
  // Flags that are another file's: the table is then longer than they say.
  EXPECT_EQ(Message(Put(kFlags, uint32_t{1})).rfind("p: section table: has " + blobs + " blobs of ", 0), 0u);
}

TEST_F(PackCorrupt, Tables) {
  const BlobPlaces::Blob &first = table_.places.blobs[0], &second = table_.places.blobs[1];
  const std::string want = ", want " + std::to_string(second.bytes) + " at " + std::to_string(second.offset);
  const size_t at = kTable + kBlobEntry;
  // Over the first one, misaligned, over the table, behind the end, wrapping around.
  for (uint64_t offset : {uint64_t(first.offset), uint64_t(second.offset) + 1, uint64_t{0}, uint64_t{file_.size()},
                          uint64_t{1} << 31, uint64_t{1} << 63, ~uint64_t{0}})
    EXPECT_EQ(Message(Put(at, offset)), "p: section table: blob 1 has " + std::to_string(second.bytes) + " bytes at " +
                                            std::to_string(offset) + want);
  for (uint64_t bytes : {uint64_t{0}, uint64_t(second.bytes) + 64, uint64_t{1} << 32, uint64_t{1} << 63, ~uint64_t{0}})
    EXPECT_EQ(Message(Put(at + 8, bytes)), "p: section table: blob 1 has " + std::to_string(bytes) + " bytes at " +
                                               std::to_string(second.offset) + want);
  const size_t blob_of = kTable + table_.places.blobs.size() * kBlobEntry;
  for (int32_t blob : {-1, -2, 1, 1 << 30, INT32_MIN, INT32_MAX})
    EXPECT_EQ(Message(Put(blob_of, blob)), "p: section table: weight 0 is blob " + std::to_string(blob) + ", want 0");
  const size_t padding = blob_of + plan_.packed.size() * 4;
  ASSERT_LT(padding, static_cast<size_t>(table_.bytes));
  EXPECT_EQ(Message(Put(padding, uint8_t{1})), "p: section table: its padding is not 0");
  // A blob's checksum is anybody's word until verify asks.
  EXPECT_EQ(Message(Put(at + 16, uint64_t{0}), 0), "");
}

// Where the fuzzer starts: how much longer the file is than what follows, then header and table.
TEST_F(PackCorrupt, SeedsAreThisFormat) {
  for (const bool mtp : {true, false}) {
    test::WriteTestCheckpoint(temp_ / "model", mtp);
    ASSERT_TRUE(WritePack(plan_, temp_ / "model", temp_ / "p.pack", true).ok());
    const std::vector<uint8_t> file = test::ReadBytes(temp_ / "p.pack");
    const size_t table = ParsePack(file, file.size(), plan_, "p")->bytes;
    const uint32_t more = static_cast<uint32_t>(file.size() - table);
    std::vector<uint8_t> seed(4);
    std::memcpy(seed.data(), &more, 4);
    seed.insert(seed.end(), file.begin(), file.begin() + static_cast<std::ptrdiff_t>(table));
    const std::string path = std::string(QWEN_SOURCE_DIR) + "/test/fuzz/corpus/fuzz_pack/" + (mtp ? "whole" : "no_mtp");
    if (std::getenv("QWEN_UPDATE")) test::WriteBytes(path, seed);
    EXPECT_TRUE(test::ReadBytes(path) == seed) << path << ": QWEN_UPDATE=1 writes it anew";
  }
}

}  // namespace
}  // namespace qwen::exec
