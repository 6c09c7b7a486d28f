// gdn: one sequence fed in any pieces, short or long, with any fold times and any commits, gives the same bits and the
// oracle's numbers; nothing is read that was not written, and nothing of another slot is touched.
#include "runtime/kernels/gdn/gdn.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "runtime/kernels/reference/ops.h"
#include "test/conformance/harness.h"

namespace qwen::kernels::conformance {
namespace {

constexpr DType kF = DType::kF32, kB = DType::kBF16;

struct Case {
  const char* name;
  int key_heads, value_heads, key_dim, value_dim, width;
  DType type, ba;
  double gate_scale = 3;  // of a + dt_bias and of a_log
  bool repeat_keys = false;
  int max_rows = 1;
};

const Case kCases[] = {
    {"ratio 1", 3, 3, 8, 12, 4, kF, kF},
    {"ratio 2, rows to verify", 2, 4, 16, 16, 4, kF, kF, 3, false, 8},
    {"ratio 3, odd dims", 2, 6, 19, 7, 4, kF, kF, 3, false, 4},
    {"ratio 4, bf16", 1, 4, 32, 24, 4, kB, kF, 3, false, 16},
    {"bf16 gates", 2, 2, 24, 20, 4, kB, kB},
    {"short filter", 2, 2, 8, 8, 2, kF, kF},
    {"no filter", 1, 2, 8, 8, 1, kF, kF},
    {"gates near 0 and 1", 2, 4, 16, 8, 4, kF, kF, 40, false, 4},
    {"one key again and again", 1, 2, 16, 16, 4, kF, kF, 1, true, 4},
    {"many rows to verify", 1, 2, 16, 8, 4, kF, kF, 3, false, 40},
};

struct Model {
  Case c;
  GdnSpec spec;
  Array conv, a_log, dt_bias;
  int tokens;
  Array qkv, b, a;  // of the whole sequence

  Model(const Case& from, int count, uint64_t seed) : c(from), tokens(count) {
    Random random(seed);
    spec = {c.key_heads, c.value_heads, c.key_dim, c.value_dim, c.width, 1e-6f, 1 / std::sqrt(float(c.key_dim)),
            c.type,      c.ba};
    const int channels = spec.conv_channels();
    conv = Array(kF, random.Fill(1LL * channels * c.width));
    a_log = Array(kF, random.Fill(c.value_heads, std::min(c.gate_scale, 3.0)));
    dt_bias = Array(kF, random.Fill(c.value_heads, c.gate_scale));
    Values x = random.Fill(1LL * tokens * channels, 2);
    if (c.repeat_keys)
      for (int t = 1; t < tokens; ++t)
        for (int i = 0; i < 2 * c.key_heads * c.key_dim; ++i) x[1LL * t * channels + i] = x[i];
    qkv = Array(c.type, x);
    b = Array(c.ba, random.Fill(1LL * tokens * c.value_heads, 3));
    a = Array(c.ba, random.Fill(1LL * tokens * c.value_heads, c.gate_scale));
  }

  Array Rows(const Array& all, int first, int count) const {
    const int64_t width = tokens > 0 ? all.count() / tokens : 0;
    return Array(all.type(), all.Get(first * width, count * width));
  }
  int o_width() const { return c.value_heads * c.value_dim; }

  /// o of every row and the state at the end, [value_heads][value_dim][key_dim], in f64.
  std::pair<Values, Values> Want() const {
    const int channels = spec.conv_channels(), key = c.key_heads * c.key_dim, value = o_width();
    Values x = qkv.Get(), mixed(x.size()), history(1LL * (c.width - 1) * channels, 0.0);
    reference::CausalConv1d(x.data(), conv.Get().data(), history.data(), mixed.data(), tokens, channels, c.width);
    Values q(1LL * tokens * key), k(q.size()), v(1LL * tokens * value);
    reference::Split(mixed.data(), {key, key, value}, {q.data(), k.data(), v.data()}, tokens, 1);
    reference::L2Norm(Values(q).data(), q.data(), tokens * c.key_heads, c.key_dim, spec.l2_eps, spec.q_scale);
    reference::L2Norm(Values(k).data(), k.data(), tokens * c.key_heads, c.key_dim, spec.l2_eps, 1);
    Values beta(1LL * tokens * c.value_heads), g(beta.size()), o(v.size());
    reference::DeltaGates(b.Get().data(), a.Get().data(), a_log.Get().data(), dt_bias.Get().data(), beta.data(),
                          g.data(), tokens, c.value_heads);
    Values state(1LL * value * c.key_dim, 0.0), turned(state.size());
    reference::GatedDeltaRule(q.data(), k.data(), v.data(), beta.data(), g.data(), state.data(), o.data(), tokens,
                              {c.key_heads, c.value_heads, c.key_dim, c.value_dim});
    for (int h = 0; h < c.value_heads; ++h)
      for (int i = 0; i < c.key_dim; ++i)
        for (int j = 0; j < c.value_dim; ++j)
          turned[(1LL * h * c.value_dim + j) * c.key_dim + i] = state[(1LL * h * c.key_dim + i) * c.value_dim + j];
    return {o, turned};
  }
};

/// A pool of three slots, all bits set until written: what is read too early turns into NaN.
struct Pool {
  StateView view{};
  SlotLayout layout;
  int64_t layer_offset = 192, slot_bytes;
  struct alignas(64) Line {
    uint8_t bytes[64];
  };
  std::vector<Line, TrackedAllocator<Line>> lines;

  explicit Pool(const Model& m) {
    view.max_rows = m.c.max_rows;
    view.fold_rows = std::max(m.c.max_rows, 8);
    view.ring_rows = view.fold_rows + m.c.max_rows;
    view.conv_rows = 3 + m.c.max_rows;
    layout = MakeSlotLayout(m.c.key_heads, m.c.value_heads, m.c.key_dim, m.c.value_dim, m.c.type, view.ring_rows,
                            view.conv_rows);
    slot_bytes = layout.bytes + 320;
    view.slot_bytes = slot_bytes;
    lines.resize(3 * slot_bytes / 64);
    std::memset(lines.data(), 0xff, 3 * slot_bytes);
  }
  uint8_t* layer(int slot = 0) { return lines.data()->bytes + slot * slot_bytes + layer_offset; }
};

/// One sequence in slot 1, fed piece by piece.
struct Sequence {
  const Model& m;
  Isa isa;
  int threads = 2;
  Pool pool;
  int position = 0, fill = 0;
  Values o;  // of committed rows

  Sequence(const Model& model, Isa use) : m(model), isa(use), pool(model) {}

  /// Runs `count` rows and commits the first `keep`. A short piece folds when it must, or when `fold` asks for it.
  void Feed(int count, bool is_long, bool fold, int keep) {
    fold |= is_long || fill + count > pool.view.fold_rows;
    Array qkv = m.Rows(m.qkv, position, count), b = m.Rows(m.b, position, count), a = m.Rows(m.a, position, count);
    // Rows that will be dropped are not the sequence's: any numbers do.
    Array out(m.c.type, 1LL * count * m.o_width());
    Batch batch;
    batch.Add(count, position, 1, 0, fill, fold);
    batch.num_short = is_long ? 0 : 1;
    BatchView view = batch.View();
    BodyCall run{.entry = is_long ? "gdn_scan" : "gdn_decode",
                 .args = {qkv.data(), b.data(), a.data(), Conv(), ALog(), DtBias(), pool.layer(), out.data()},
                 .batch = &view,
                 .state = pool.view};
    RunBody(isa, run, m.spec, threads);
    Values rows = out.Get(0, 1LL * keep * m.o_width());
    o.insert(o.end(), rows.begin(), rows.end());
    position += keep;
    fill = is_long ? 0 : (fold ? 0 : fill) + keep;
  }
  /// fold(S0, ring), as a snapshot takes it.
  Array Base() {
    Array base(kF, 1LL * m.o_width() * m.c.key_dim);
    Batch batch;
    batch.Add(1, position, 1, 0, fill, false);
    BatchView view = batch.View();
    BodyCall run{.entry = "gdn_fold", .args = {pool.layer(), base.data()}, .batch = &view, .state = pool.view};
    RunBody(isa, run, m.spec, threads);
    return base;
  }

  Array conv = m.conv, a_log = m.a_log, dt_bias = m.dt_bias;
  void* Conv() { return conv.data(); }
  void* ALog() { return a_log.data(); }
  void* DtBias() { return dt_bias.data(); }
};

class GdnTest : public IsaTest {};

TEST_P(GdnTest, OneChunkAgreesWithTheOracle) {
  for (const Case& c : kCases)
    for (int tokens : {1, 2, 3, 4, 31, 32, 33, 65, 130}) {
      SCOPED_TRACE(fmt::format("{}, {} tokens", c.name, tokens));
      Model m(c, tokens, tokens);
      Sequence s(m, GetParam());
      s.Feed(tokens, /*is_long=*/true, true, tokens);
      auto [o, state] = m.Want();
      // The recurrence is stable, so rounding adds up at most as in a sum over its rows and the key's channels.
      const double terms = 16.0 * (tokens + c.key_dim);
      ExpectNear(s.o, o, Tolerance(c.type, terms), "o");
      ExpectNear(s.Base().Get(), state, Tolerance(kF, terms), "state");
    }
}

TEST_P(GdnTest, AnyPiecesGiveTheSameBits) {
  for (const Case& c : kCases)
    for (int seed = 0; seed < 6; ++seed) {
      SCOPED_TRACE(fmt::format("{}, seed {}", c.name, seed));
      const int tokens = 90;
      Model m(c, tokens, 17);
      Sequence whole(m, GetParam()), pieces(m, GetParam());
      whole.threads = 1;
      whole.Feed(tokens, true, true, tokens);
      Random random(seed);
      const int style = seed % 3;  // token by token; short pieces; anything
      while (pieces.position < tokens) {
        const int left = tokens - pieces.position;
        const bool is_long = style == 2 && random.Int(0, 2) == 0;
        const int most = is_long ? 40 : style == 0 ? 1 : c.max_rows;
        const int count = random.Int(1, std::min(most, left));
        pieces.threads = random.Int(1, 4);
        pieces.Feed(count, is_long, random.Int(0, 3) == 0, is_long ? count : random.Int(0, count));
        if (random.Int(0, 9) == 0) pieces.Base();  // a snapshot disturbs nothing
      }
      EXPECT_EQ(pieces.o, whole.o);
      EXPECT_TRUE(pieces.Base() == whole.Base());
    }
}

TEST_P(GdnTest, NearFullRingBeforeAndAfterItsFold) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.name);
    const int fold_rows = std::max(c.max_rows, 8);
    Model m(c, 2 * fold_rows + 1, 5);
    Sequence late(m, GetParam()), early(m, GetParam());
    // As full as it gets, with and without a base state under it.
    for (Sequence* s : {&late, &early}) {
      if (s == &early) s->Feed(1, true, true, 1);
      for (int i = s->position; i < fold_rows + (s == &early ? 1 : 0); ++i) s->Feed(1, false, false, 1);
    }
    EXPECT_EQ(late.fill, fold_rows);
    EXPECT_EQ(early.fill, fold_rows);
    Array before = late.Base();
    const Array same = late.Base();
    EXPECT_TRUE(before == same);
    // The next row has to fold. What it writes as S0 is what the snapshot saw.
    late.Feed(1, false, true, 1);
    EXPECT_EQ(std::memcmp(late.pool.layer(1) + late.pool.layout.base, before.data(), 4 * before.count()), 0);
    while (late.position < m.tokens) late.Feed(1, false, false, 1);
    while (early.position < m.tokens) early.Feed(1, false, false, 1);
    EXPECT_EQ(late.o, early.o);
    EXPECT_TRUE(late.Base() == early.Base());
  }
}

TEST_P(GdnTest, ABatchOfBothPartsTouchesItsOwnSlotsOnly) {
  const Case& c = kCases[1];
  Model m(c, 30, 9);
  Sequence alone(m, GetParam());
  alone.Feed(20, true, true, 20);
  Values chunk_o = alone.o;
  alone.Feed(3, false, false, 3);

  // Slot 1 in the short part at position 20, a padding row, slot 0 in the long part from its start.
  Sequence s(m, GetParam());
  s.Feed(20, true, true, 20);
  for (int threads : ThreadsOf(GetParam())) {
    Pool pool = s.pool;
    Batch batch;
    batch.Add(3, 20, 1, 0, 0, false);
    batch.Add(1, 0, -1, -1, 0, false);
    batch.Add(20, 0, 0, 1, 0, true);
    batch.num_short = 2;
    BatchView view = batch.View();
    auto rows = [&](const Array& all) {
      Values v = m.Rows(all, 20, 3).Get(), pad(all.count() / m.tokens, NAN), chunk = m.Rows(all, 0, 20).Get();
      v.insert(v.end(), pad.begin(), pad.end());
      v.insert(v.end(), chunk.begin(), chunk.end());
      return Array(all.type(), v);
    };
    Array qkv = rows(m.qkv), b = rows(m.b), a = rows(m.a), out(c.type, 24LL * m.o_width());
    const std::vector<uint8_t> before(pool.layer(2) - pool.layer_offset,
                                      pool.layer(2) - pool.layer_offset + pool.slot_bytes);
    for (const char* entry : {"gdn_decode", "gdn_scan"})
      RunBody(GetParam(),
              {.entry = entry,
               .args = {qkv.data(), b.data(), a.data(), s.Conv(), s.ALog(), s.DtBias(), pool.layer(), out.data()},
               .batch = &view,
               .state = pool.view},
              m.spec, threads, threads == 3);
    EXPECT_EQ(out.Get(0, 3LL * m.o_width()), Values(alone.o.end() - 3LL * m.o_width(), alone.o.end())) << threads;
    for (double value : out.Get(3LL * m.o_width(), m.o_width()))
      EXPECT_TRUE(std::isnan(value)) << "padding was written";
    EXPECT_EQ(out.Get(4LL * m.o_width(), 20LL * m.o_width()), chunk_o) << threads;
    EXPECT_EQ(std::memcmp(before.data(), pool.layer(2) - pool.layer_offset, before.size()), 0)
        << "another slot changed";
    for (int slot : {0, 1})
      for (int64_t i = -192; i < pool.slot_bytes - pool.layer_offset; ++i)
        if (i < 0 || i >= pool.layout.bytes) {
          ASSERT_EQ(pool.layer(slot)[i], 0xff) << "another layer's byte " << i;
        }
  }
}

TEST_P(GdnTest, AnEmptyShareDoesNothing) {
  const GdnSpec spec{.key_heads = 0,
                     .value_heads = 0,
                     .key_dim = 8,
                     .value_dim = 8,
                     .width = 4,
                     .l2_eps = 1e-6f,
                     .q_scale = 1,
                     .x_type = kF,
                     .ba_type = kF};
  Batch batch;
  batch.Add(1), batch.Add(5);
  batch.num_short = 1;
  BatchView view = batch.View();
  for (const char* entry : {"gdn_decode", "gdn_scan"})
    RunBody(GetParam(), {.entry = entry, .args = std::vector<void*>(kGdnArgs), .batch = &view}, spec, 2);
  RunBody(GetParam(), {.entry = "gdn_fold", .args = std::vector<void*>(kGdnFoldArgs), .batch = &view}, spec, 2);
}

// The published values of the model specification, 6.6: independent of the oracle.
TEST_P(GdnTest, TestVector) {
  auto f = [](int i) { return ((37 * i + 11) % 19 - 9) / 7.0; };
  const GdnSpec spec{.key_heads = 1,
                     .value_heads = 1,
                     .key_dim = 3,
                     .value_dim = 2,
                     .width = 1,
                     .l2_eps = 1e-12f,
                     .q_scale = 1 / std::sqrt(3.0f),
                     .x_type = kF,
                     .ba_type = kF};
  // The vector starts behind the convolution: a filter of one tap, fed the inverse of SiLU.
  auto before_silu = [](double y) -> double {
    double low = -1.2784645, high = 50;  // SiLU grows from its minimum on
    if (y < -0.2784) return NAN;
    for (int i = 0; i < 200; ++i) {
      const double x = (low + high) / 2;
      (x / (1 + std::exp(-x)) < y ? low : high) = x;
    }
    return low;
  };
  // q and k are normalised, so any multiple will do; v is scaled down, which scales o and S.
  const double shrink = 0.2;
  Values qkv, b, a;
  for (int t = 0; t < 5; ++t) {
    for (int i = 0; i < 3; ++i) qkv.push_back(before_silu(shrink * f(3 * t + i)));
    for (int i = 0; i < 3; ++i) qkv.push_back(before_silu(shrink * f(50 + 3 * t + i)));
    for (int i = 0; i < 2; ++i) qkv.push_back(before_silu(shrink * f(90 + 2 * t + i)));
    a.push_back(f(130 + t)), b.push_back(f(150 + t));
  }
  const double want_o[] = {.308027,  .264023,  -.263570, -.213748, -.181143,
                           -.129538, -.022355, -.041892, .053243,  .092743};
  const double want_s[] = {.081333, .050991, .020649, .091029, .093424, .095819};
  Array x(kF, qkv), ba(kF, b), aa(kF, a), conv(kF, Values(8, 1.0)), a_log(kF, Values{0.3}), dt(kF, Values{-0.5}),
      o(kF, 10);
  StateView state{.page_tokens = 32,
                  .page_bytes = 0,
                  .slot_bytes = 4096,
                  .max_rows = 1,
                  .fold_rows = 8,
                  .ring_rows = 9,
                  .conv_rows = 4};
  std::vector<float, TrackedAllocator<float>> slot(1024, NAN);
  Batch batch;
  batch.Add(5);
  BatchView view = batch.View();
  RunBody(GetParam(),
          {.entry = "gdn_scan",
           .args = {x.data(), ba.data(), aa.data(), conv.data(), a_log.data(), dt.data(), slot.data(), o.data()},
           .batch = &view,
           .state = state},
          spec, 1);
  for (int i = 0; i < 10; ++i) EXPECT_NEAR(o.At(i) / shrink, want_o[i], 1e-5) << i;
  for (int i = 0; i < 6; ++i) EXPECT_NEAR(slot[i] / shrink, want_s[i], 1e-5) << i;
}

QWEN_FOR_EVERY_ISA_AND_CUDA(GdnTest);

}  // namespace
}  // namespace qwen::kernels::conformance
