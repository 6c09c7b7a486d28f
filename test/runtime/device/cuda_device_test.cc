// A card's memory: what goes in comes out again, whatever the uploads have to share.
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "runtime/device/device.h"

namespace qwen::device {
namespace {

constexpr int64_t kHalf = 4 << 20;  // of the pinned memory that uploads go through

std::unique_ptr<Device> Card() {
  setenv("QWENRT_CUDA_DRIVER", QWEN_CUDA_EMULATOR, 0);
  auto device = MakeCudaDevice(
      {.capacity = {.max_num_seqs = 1, .max_num_batched_tokens = 1, .max_rows = 1, .max_logit_rows = 1}});
  EXPECT_TRUE(device.ok()) << device.status().message();
  return device.ok() ? *std::move(device) : nullptr;
}

std::vector<uint8_t> Noise(int64_t bytes, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<uint8_t> noise(bytes + 8);
  for (int64_t i = 0; i < bytes; i += 8) {
    const uint64_t word = random();
    std::memcpy(&noise[i], &word, 8);
  }
  noise.resize(bytes);
  return noise;
}

// Every length beside a half's, and one that fills both many times: no byte waits in a half that the next copy takes.
TEST(CudaDevice, UploadsOfManyHalvesArriveWhole) {
  const std::unique_ptr<Device> card = Card();
  ASSERT_TRUE(card);
  for (int64_t bytes :
       {int64_t{0}, int64_t{1}, kHalf - 1, kHalf, kHalf + 1, 2 * kHalf, 2 * kHalf + 1, 9 * kHalf + 77}) {
    auto memory = card->Allocate(bytes);
    ASSERT_TRUE(memory.ok());
    std::vector<uint8_t> in = Noise(bytes, bytes);
    const std::vector<uint8_t> want = in;
    ASSERT_TRUE(card->CopyIn(memory->get(), in.data(), bytes).ok());
    in.assign(in.size(), 0xee);  // the caller's again
    std::vector<uint8_t> out(bytes);
    ASSERT_TRUE(card->CopyOut(out.data(), memory->get(), bytes).ok());
    EXPECT_TRUE(out == want) << bytes << " bytes";
  }
}

// Uploads share the halves over calls, too: none waits for the one before it.
TEST(CudaDevice, ManyUploadsInARowArriveWhole) {
  const std::unique_ptr<Device> card = Card();
  ASSERT_TRUE(card);
  std::vector<std::vector<uint8_t>> want;
  std::vector<Memory> memory;
  for (int i = 0; i < 24; ++i) {
    want.push_back(Noise(i % 3 == 0 ? kHalf + i : 1 << (i % 23), i));
    const int64_t bytes = static_cast<int64_t>(want.back().size());
    auto allocated = card->Allocate(bytes);
    ASSERT_TRUE(allocated.ok());
    memory.push_back(*std::move(allocated));
    std::vector<uint8_t> in = want.back();
    ASSERT_TRUE(card->CopyIn(memory.back().get(), in.data(), bytes).ok());
  }
  for (size_t i = 0; i < want.size(); ++i) {
    std::vector<uint8_t> out(want[i].size());
    ASSERT_TRUE(card->CopyOut(out.data(), memory[i].get(), static_cast<int64_t>(out.size())).ok());
    EXPECT_TRUE(out == want[i]) << "upload " << i;
  }
}

// An upload that nobody waited for is done before the memory it reads goes away.
TEST(CudaDevice, ADeviceMayEndWithUploadsUnderWay) {
  std::unique_ptr<Device> card = Card();
  ASSERT_TRUE(card);
  auto allocated = card->Allocate(2 * kHalf);
  ASSERT_TRUE(allocated.ok());
  const std::vector<uint8_t> in = Noise(2 * kHalf, 1);
  ASSERT_TRUE(card->CopyIn(allocated->get(), in.data(), 2 * kHalf).ok());
  allocated->reset();
  card.reset();
}

}  // namespace
}  // namespace qwen::device
