// embed and rms_norm.
#include <fmt/format.h>

#include "runtime/kernels/embed/embed.h"
#include "runtime/kernels/reference/ops.h"
#include "runtime/kernels/rms_norm/rms_norm.h"
#include "test/conformance/harness.h"

namespace qwen::kernels::conformance {
namespace {

constexpr DType kF = DType::kF32, kB = DType::kBF16;

class EmbedTest : public IsaTest {};

TEST_P(EmbedTest, GathersRowsPlainAndTiled) {
  for (int hidden : {1, 15, 16, 40, 65})
    for (DType w_type : {kF, kB})
      for (DType y_type : {kF, kB})
        for (int tiled : {0, 1}) {
          SCOPED_TRACE(fmt::format("hidden {} {} to {} tiled {}", hidden, DTypeName(w_type), DTypeName(y_type), tiled));
          const EmbedSpec s{.hidden = hidden, .vocab = 37, .w_type = w_type, .y_type = y_type, .tiled = tiled};
          Random random(hidden);
          Array rows(w_type, random.Fill(37LL * hidden));
          Array table = tiled ? Tile16(w_type, 37, hidden, rows.Get()) : rows;
          for (int tokens : {0, 1, 6}) {
            Batch batch = Batch::OfRows(tokens);
            for (int& id : batch.token_ids) id = random.Int(0, 36);
            if (tokens > 0) batch.token_ids[0] = 36;  // the last row
            BatchView view = batch.View();
            Values want(1LL * tokens * hidden);
            reference::Weight weight{rows.data(), w_type == kB ? reference::Type::kBf16 : reference::Type::kF32, 37,
                                     hidden};
            reference::Embed(batch.token_ids.data(), weight, want.data(), tokens);
            for (int threads : ThreadsOf(GetParam())) {
              Array y(y_type, 1LL * tokens * hidden);
              RunBody(GetParam(), {.entry = "embed_rows", .args = {table.data(), y.data()}, .batch = &view}, s,
                      threads);
              EXPECT_EQ(y.Get(), Array(y_type, want).Get()) << tokens << " tokens, " << threads << " threads";
            }
          }
        }
}

class RmsNormTest : public IsaTest {};

TEST_P(RmsNormTest, AgreesWithTheOracle) {
  for (int channels : {1, 8, 31, 64, 1000})
    for (DType type : {kF, kB})
      for (int add : {0, 1})
        for (int round_first : {0, 1}) {
          SCOPED_TRACE(
              fmt::format("{} channels {} add {} round first {}", channels, DTypeName(type), add, round_first));
          const RmsNormSpec s{.channels = channels, .eps = 1e-6f, .round_first = round_first, .add = add, .type = type};
          for (int tokens : {0, 1, 9}) {
            Random random(channels + tokens);
            Array x(type, random.Fill(1LL * tokens * channels, 5));
            Array residual(type, random.Fill(1LL * tokens * channels, 5));
            Array w(kF, random.Fill(channels, 2));
            Values sum = x.Get(), want(sum.size());
            if (add) {
              reference::Add(x.Get().data(), residual.Get().data(), sum.data(), static_cast<int64_t>(sum.size()));
              sum = Array(type, sum).Get();  // the norm reads the sum as it was rounded
            }
            reference::RmsNorm(sum.data(), w.Get().data(), want.data(), tokens, channels, s.eps, reference::Type::kF32);
            Array first_sum, first_y;
            for (int threads : ThreadsOf(GetParam())) {
              Batch batch = Batch::OfRows(tokens);
              BatchView view = batch.View();
              Array y(type, 1LL * tokens * channels), out_sum(type, add ? 1LL * tokens * channels : 0);
              RunBody(GetParam(),
                      {.entry = "add_rms_norm",
                       .args = {x.data(), add ? residual.data() : nullptr, w.data(), add ? out_sum.data() : nullptr,
                                y.data()},
                       .batch = &view},
                      s, threads);
              if (threads == 1) {
                ExpectNear(y.Get(), want, Tolerance(type, channels), "y");
                if (add) ExpectNear(out_sum.Get(), sum, 0, "sum");
                first_y = y, first_sum = out_sum;
              }
              EXPECT_TRUE(y == first_y && out_sum == first_sum) << threads << " threads";
            }
            // In place, as the arena may lay it out.
            if (!add && tokens > 0) {
              Batch batch = Batch::OfRows(tokens);
              BatchView view = batch.View();
              RunBody(
                  GetParam(),
                  {.entry = "add_rms_norm", .args = {x.data(), nullptr, w.data(), nullptr, x.data()}, .batch = &view},
                  s, 2);
              EXPECT_TRUE(x == first_y);
            }
          }
        }
}

TEST_P(RmsNormTest, SmallAndLargeRows) {
  // All zero, denormal, and squares that nearly overflow: eps and f32 decide, nothing else may.
  const RmsNormSpec s{.channels = 20, .eps = 1e-6f, .type = kF};
  Values x(60, 0.0);
  for (int i = 20; i < 40; ++i) x[i] = 1e-40 * i;
  for (int i = 40; i < 60; ++i) x[i] = 1e17 * (i - 50);
  Array in(kF, x), w(kF, Values(20, 1.0)), y(kF, 60);
  Batch batch = Batch::OfRows(3);
  BatchView view = batch.View();
  RunBody(GetParam(),
          {.entry = "add_rms_norm", .args = {in.data(), nullptr, w.data(), nullptr, y.data()}, .batch = &view}, s, 1);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(y.At(i), 0);
  Values want(60);
  reference::RmsNorm(in.Get().data(), w.Get().data(), want.data(), 3, 20, s.eps, reference::Type::kF32);
  ExpectNear(y.Get(40, 20), Values(want.begin() + 40, want.end()), Tolerance(kF, 20), "large");
}

QWEN_FOR_EVERY_ISA_AND_CUDA(EmbedTest);
QWEN_FOR_EVERY_ISA_AND_CUDA(RmsNormTest);

}  // namespace
}  // namespace qwen::kernels::conformance
