// The draw's generator against Random123's published answers, its logarithms against libm.
#include "runtime/kernels/lm_head/philox.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>

#include "runtime/kernels/reference/philox.h"

namespace qwen::kernels {
namespace {

TEST(Philox, KnownAnswers) {
  struct Answer {
    unsigned counter[4], key[2], want[4];
  };
  // kat_vectors of Random123, philox4x32 10.
  const Answer answers[] = {{{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
                            {{~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
                            {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
                             {0xa4093822, 0x299f31d0},
                             {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}}};
  for (const Answer& a : answers) {
    PhiloxWords words = Philox4x32({{a.counter[0], a.counter[1], a.counter[2], a.counter[3]}}, a.key[0], a.key[1]);
    for (int i = 0; i < 4; ++i) EXPECT_EQ(words.w[i], a.want[i]);
  }
}

TEST(Philox, KeysAndCountersAreWhereTheContractPutsThem) {
  const unsigned long long seed = 0x0123456789abcdefull;
  auto want = reference::Philox({25, 777, 3, 0}, {0x89abcdef, 0x01234567});
  PhiloxWords words = DrawWords(seed, 25, 777, 3);
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(words.w[i], want[i]);
    EXPECT_EQ(Gumbel(seed, 100 + i, 777, 3), GumbelOfWord(want[i]));
  }
}

TEST(Draw, LogarithmsAreWithinSixRoundings) {
  for (double x = 1e-10; x < 40; x *= 1.0009) {
    const float f = static_cast<float>(x), want = static_cast<float>(std::log(static_cast<double>(f)));
    EXPECT_NEAR(DrawLog(f), want, 2 * 0x1p-24 * std::fmax(std::fabs(want), 0.7)) << f;
  }
  for (double u = 0x1p-33; u < 1; u *= 1.0007) {
    const float f = static_cast<float>(u), want = static_cast<float>(-std::log1p(-static_cast<double>(f)));
    EXPECT_NEAR(DrawExponential(f), want, 6 * 0x1p-24 * want) << f;
  }
}

TEST(Draw, ReachesTheWholeTail) {
  EXPECT_GT(DrawUniform(0), 0);
  EXPECT_LT(DrawUniform(~0u), 1);
  EXPECT_NEAR(GumbelOfWord(0), 33 * std::log(2), 1e-5);  // the largest: a token of probability 1e-10 can be drawn
  EXPECT_LT(GumbelOfWord(0), kMaxGumbel);
  EXPECT_NEAR(GumbelOfWord(~0u), -std::log(24 * std::log(2)), 1e-5);
  for (unsigned word = 1; word != 0 && word < 0xf0000000u; word = word * 2 + 1)
    EXPECT_LE(GumbelOfWord(word), GumbelOfWord(word / 2)) << word;
}

TEST(Draw, TheBoundIsOne) {
  for (unsigned word : {0u, 1u, 2u, ~0u, ~0u - 1, 0x7fffffffu, 0x80000000u})
    EXPECT_LE(GumbelOfWord(word), GumbelBound(word)) << word;
  for (uint64_t word = 1; word < 1ull << 32; word += word / 300 + 1)
    ASSERT_LE(GumbelOfWord(static_cast<unsigned>(word)), GumbelBound(static_cast<unsigned>(word))) << word;
}

}  // namespace
}  // namespace qwen::kernels
