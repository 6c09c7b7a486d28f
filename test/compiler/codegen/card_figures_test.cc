// What `inspect --kernels` says of a card. Expected numbers: by hand from the limits in the CUDA programming guide.
#include "compiler/codegen/CardFigures.h"

#include <cstdlib>
#include <gtest/gtest.h>

namespace qwen::compiler {
namespace {

TEST(CardFigures, ReadsWhatPtxasSays) {
  const std::string text = R"(ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'linear__k64' for 'sm_89'
ptxas info    : Function properties for linear__k64
    16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 96 registers, used 1 barriers, 21504 bytes smem, 480 bytes cmem[0]
)";
  const StatusOr<Assembled> read = readPtxasText(text);
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(read->registers, 96);
  EXPECT_EQ(read->stackBytes, 16);
  EXPECT_EQ(read->spillBytes, 20);
  EXPECT_EQ(read->sharedBytes, 21504);
  EXPECT_FALSE(readPtxasText("").ok());
  EXPECT_FALSE(readPtxasText("Used registers").ok());
  EXPECT_FALSE(readPtxasText("ptxas fatal : 99999999999999999999 registers").ok());
}

TEST(CardFigures, BlocksOfAMultiprocessor) {
  const Card &ada = *findCard("rtx4090");
  const Card &hopper = *findCard("h100");
  // 128 registers: 4,096 a warp, four warps a partition, sixteen in all: two blocks of eight.
  EXPECT_EQ(residentBlocks(ada, 256, 128, 0), 2);
  // One more register rounds to 136: three warps a partition, twelve in all.
  EXPECT_EQ(residentBlocks(ada, 256, 129, 0), 1);
  // 32 registers: 64 warps by registers, 48 there are on sm_89, 64 on sm_90.
  EXPECT_EQ(residentBlocks(ada, 256, 32, 0), 6);
  EXPECT_EQ(residentBlocks(hopper, 256, 32, 0), 8);
  // One warp a block: 24 blocks on sm_89, 32 on sm_90.
  EXPECT_EQ(residentBlocks(ada, 32, 32, 0), 24);
  EXPECT_EQ(residentBlocks(hopper, 32, 32, 0), 32);
  // 48 KiB and the block's own 1 KiB: two of 100 KiB.
  EXPECT_EQ(residentBlocks(ada, 256, 32, 48 << 10), 2);
  // 99 KiB, the most a block may have: one. A KiB more: none.
  EXPECT_EQ(residentBlocks(ada, 256, 32, 99 << 10), 1);
  EXPECT_EQ(residentBlocks(ada, 256, 32, 100 << 10), 0);
  EXPECT_EQ(findCard("rtx5090"), nullptr);
}

} // namespace
} // namespace qwen::compiler
