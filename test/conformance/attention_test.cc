// attention: a paged sequence in any pieces gives the same bits and the oracle's numbers; heads in any arrangement.
#include "runtime/kernels/attention/attention.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <string_view>

#include "runtime/kernels/attention/attention_shape.h"
#include "runtime/kernels/reference/ops.h"
#include "test/conformance/harness.h"

namespace qwen::kernels::conformance {
namespace {

constexpr DType kF = DType::kF32, kB = DType::kBF16;

struct Case {
  const char* name;
  std::vector<int> kv_map;
  int kv_heads, head_dim, freqs;
  DType type;
  bool gate = false, norm = true, round_first = false;
  int window = 0;
  bool block = false;
  double factor = 1;
  std::optional<DType> cache = {};  // the rows' type when absent
  DType cache_type() const { return cache.value_or(type); }
};

/// `ratio` query heads of every KV head.
std::vector<int> Shared(int kv_heads, int ratio) {
  std::vector<int> map(kv_heads * ratio);
  for (size_t h = 0; h < map.size(); ++h) map[h] = static_cast<int>(h) / ratio;
  return map;
}

const Case kCases[] = {
    {"one head", {0}, 1, 8, 4, kF},
    {"ratio 4, gate, partial rotary", {0, 0, 0, 0, 1, 1, 1, 1}, 2, 16, 2, kF, true},
    {"ratio 6, odd head", {0, 0, 0, 0, 0, 0}, 1, 20, 10, kF},
    {"ratio 8, gate", Shared(2, 8), 2, 16, 4, kF, true},
    {"bf16, ratio 16", Shared(2, 16), 2, 20, 10, kB, false, true, true},
    {"ragged: part of two groups", {0, 0, 1, 1, 1}, 2, 12, 6, kF, true},
    {"a KV head without queries", {2, 0, 0}, 3, 8, 4, kF},
    {"heads out of order", {1, 0, 1, 0}, 2, 8, 4, kF},
    {"bf16, round first", {0, 0, 1, 1}, 2, 32, 16, kB, false, true, true},
    {"bf16, gate", {0, 0, 0, 1, 1, 1}, 2, 24, 4, kB, true},
    {"no norm, no rotation", {0, 1}, 2, 16, 0, kF, false, false},
    {"window inside a page", {0, 0}, 1, 16, 8, kF, false, true, false, 7},
    {"window over pages", {0, 0}, 1, 16, 8, kF, false, true, false, 70},
    {"scaled rotation", {0}, 1, 16, 8, kF, false, true, false, 0, false, 1.2},
    {"large head", {0, 0, 0}, 1, 256, 32, kB, true},
    {"bf16 rows, f32 cache", {0, 0, 1, 1}, 2, 32, 16, kB, false, true, true, 0, false, 1, kF},
    {"f32 rows, bf16 cache", {0, 0, 1, 1}, 2, 20, 4, kF, true, true, false, 0, false, 1, kB},
};

const Case& CaseNamed(std::string_view name) {
  return *std::find_if(std::begin(kCases), std::end(kCases), [&](const Case& c) { return c.name == name; });
}

AttentionSpec SpecOf(const Case& c) {
  AttentionSpec s{};
  s.q_heads = static_cast<int>(c.kv_map.size()), s.kv_heads = c.kv_heads, s.head_dim = c.head_dim;
  std::copy(c.kv_map.begin(), c.kv_map.end(), s.kv_map);
  s.gate = c.gate, s.qk_norm = c.norm, s.round_first = c.round_first, s.eps = 1e-6f, s.freqs = c.freqs;
  for (int j = 0; j < c.freqs; ++j) s.inv_freq[j] = static_cast<float>(std::pow(1e4, -1.0 * j / c.freqs));
  s.attention_factor = static_cast<float>(c.factor), s.scale = 1 / std::sqrt(static_cast<float>(c.head_dim));
  s.window = c.window, s.block = c.block, s.append = 1, s.attend = 1, s.type = c.type, s.cache_type = c.cache_type();
  return s;
}

struct Model {
  Case c;
  AttentionSpec spec;
  int tokens, first;  // rows sit at first, first + 1, ...
  Array q, k, v, q_norm, k_norm;

  Model(const Case& from, int count, uint64_t seed, int first_position = 0)
      : c(from), spec(SpecOf(from)), tokens(count), first(first_position) {
    Random random(seed);
    q = Array(c.type, random.Fill(1LL * tokens * q_width(), 2));
    k = Array(c.type, random.Fill(1LL * tokens * kv_width(), 2));
    v = Array(c.type, random.Fill(1LL * tokens * kv_width()));
    q_norm = Array(kF, random.Fill(c.head_dim, 2));
    k_norm = Array(kF, random.Fill(c.head_dim, 2));
  }
  int q_width() const { return spec.q_heads * c.head_dim * (c.gate ? 2 : 1); }
  int kv_width() const { return c.kv_heads * c.head_dim; }
  int o_width() const { return spec.q_heads * c.head_dim; }
  Array Rows(const Array& all, int row, int count) const {
    const int64_t width = all.count() / tokens;
    return Array(all.type(), all.Get(row * width, count * width));
  }

  /// All rows, the last `step` of them in one step (which matters to a block mask only).
  Values Want(int step) const {
    const int d = c.head_dim;
    Values queries(1LL * tokens * o_width()), gates(queries.size()), all = q.Get();
    if (c.gate)
      reference::Split(all.data(), {o_width(), o_width()}, {queries.data(), gates.data()}, tokens, spec.q_heads);
    else
      queries = all;
    Values keys = k.Get(), values = v.Get();
    auto rounded = [](DType type, const Values& x) { return Array(type, x).Get(); };
    auto norm = [&](Values& x, const Array& weight) {
      const Values ones(d, 1.0);
      reference::RmsNorm(Values(x).data(), ones.data(), x.data(), static_cast<int64_t>(x.size()) / d, d, spec.eps,
                         reference::Type::kF32);
      if (c.round_first) x = rounded(c.type, x);
      for (size_t i = 0; i < x.size(); ++i) x[i] *= weight.At(static_cast<int64_t>(i) % d);
    };
    if (c.norm) norm(queries, q_norm), norm(keys, k_norm);
    queries = rounded(c.type, queries);
    std::vector<int64_t> positions(tokens);
    for (int t = 0; t < tokens; ++t) positions[t] = first + t;
    if (c.freqs > 0) {
      const std::vector<float> inv_freq(spec.inv_freq, spec.inv_freq + c.freqs);
      reference::Rope(Values(queries).data(), positions.data(), queries.data(), tokens, spec.q_heads, d, inv_freq,
                      spec.attention_factor);
      reference::Rope(Values(keys).data(), positions.data(), keys.data(), tokens, c.kv_heads, d, inv_freq,
                      spec.attention_factor);
    }
    // A query is rounded where the model's ops are apart, keys and values as they are cached. At scores of 16 a
    // rounding moves a weight by hundredths, which is no one's error.
    queries = rounded(c.type, queries);
    keys = rounded(c.cache_type(), keys), values = rounded(c.cache_type(), values);
    // Nothing is before the rows; a window decides by difference, so positions may start from 0 here.
    reference::AttentionShape shape{
        std::vector<int64_t>(c.kv_map.begin(), c.kv_map.end()), c.kv_heads, d, spec.scale, c.block, c.window};
    Values o(queries.size());
    const int before = tokens - step;
    if (before > 0) reference::Attention(queries.data(), keys.data(), values.data(), o.data(), before, 0, shape);
    const int64_t at = 1LL * before * o_width();
    reference::Attention(queries.data() + at, keys.data(), values.data(), o.data() + at, step, before, shape);
    if (c.gate) reference::SigmoidGate(Values(o).data(), gates.data(), o.data(), static_cast<int64_t>(o.size()));
    return o;
  }
};

/// One sequence on pages handed out in a scattered order; what is not written is NaN.
struct Sequence {
  const Model& m;
  Isa isa;
  int threads = 2;
  int position;
  std::vector<int> table;
  std::vector<uint8_t, TrackedAllocator<uint8_t>> pool;
  int64_t page_bytes, layer_offset = 128, layer_bytes;
  Values o;

  Sequence(const Model& model, Isa use) : m(model), isa(use), position(model.first) {
    layer_bytes = 2LL * m.c.kv_heads * 32 * m.c.head_dim * DTypeBytes(m.c.cache_type());
    page_bytes = layer_offset + layer_bytes + 64;
    const int first_page = m.first / 32, pages = (m.first + m.tokens + 31) / 32 - first_page + 1;
    pool.assign((2 * pages + 3) * page_bytes, 0xff);
    table.assign(first_page + pages, 0);
    for (int i = 0; i < pages; ++i) table[first_page + i] = (2 * i + 3) % (2 * pages + 3);
  }
  Array q_norm = m.q_norm, k_norm = m.k_norm;

  void Feed(int count, bool is_long, bool append = true, bool attend = true) {
    const int row = position - m.first;
    Array q = m.Rows(m.q, row, count), k = m.Rows(m.k, row, count), v = m.Rows(m.v, row, count);
    Array out(m.c.type, 1LL * count * m.o_width());
    Batch batch;
    // Sequence 0 of the batch is padding; ours has row 1 of the page table.
    batch.page_table.assign(2 * table.size(), 1 << 20);
    std::copy(table.begin(), table.end(), batch.page_table.begin() + static_cast<int64_t>(table.size()));
    batch.max_pages = static_cast<int>(table.size());
    batch.Add(count, position, 0, 1);
    batch.num_short = is_long ? 0 : 1;
    BatchView view = batch.View();
    AttentionSpec spec = m.spec;
    spec.append = append, spec.attend = attend;
    BodyCall run{.entry = is_long ? "attn_prefill" : "attn_decode",
                 .args = {attend ? q.data() : nullptr, append ? k.data() : nullptr, append ? v.data() : nullptr,
                          m.c.norm && attend ? q_norm.data() : nullptr, m.c.norm && append ? k_norm.data() : nullptr,
                          pool.data() + layer_offset, attend ? out.data() : nullptr},
                 .batch = &view,
                 .state = {.page_tokens = 32, .page_bytes = page_bytes}};
    RunBody(isa, run, spec, threads);
    if (attend) {
      Values rows = out.Get();
      o.insert(o.end(), rows.begin(), rows.end());
    }
    position += count;
  }
};

class AttentionTest : public IsaTest {};

TEST_P(AttentionTest, OneChunkAgreesWithTheOracle) {
  for (const Case& c : kCases)
    for (int tokens : {1, 2, 9, 31, 32, 33, 65, 100}) {
      SCOPED_TRACE(fmt::format("{}, {} tokens", c.name, tokens));
      Model m(c, tokens, tokens);
      Sequence s(m, GetParam());
      s.Feed(tokens, true);
      // A score's rounding moves a weight by as much: both sums count, and scores reach about 16.
      const DType coarser = c.type == kB || c.cache_type() == kB ? kB : kF;
      ExpectNear(s.o, m.Want(tokens), Tolerance(coarser, 256.0 * (c.head_dim + tokens)), "o");
    }
}

TEST_P(AttentionTest, AnyPiecesGiveTheSameBits) {
  for (const Case& c : kCases)
    for (int seed = 0; seed < 3; ++seed) {
      SCOPED_TRACE(fmt::format("{}, seed {}", c.name, seed));
      const int tokens = 75;
      Model m(c, tokens, 3);
      Sequence whole(m, GetParam()), pieces(m, GetParam());
      whole.threads = 1;
      whole.Feed(tokens, true);
      Random random(seed);
      while (pieces.position < tokens) {
        const int left = tokens - pieces.position;
        const bool is_long = seed > 0 && random.Int(0, 1) == 1;
        pieces.threads = random.Int(1, 4);
        // Rows that were appended and dropped are overwritten by those that count.
        if (!is_long && left > 3 && random.Int(0, 3) == 0) {
          const size_t kept = pieces.o.size();
          pieces.Feed(3, false);
          pieces.position -= 3;
          pieces.o.resize(kept);
        }
        pieces.Feed(std::min(left, seed == 0 ? 1 : random.Int(1, is_long ? 40 : 4)), is_long);
      }
      // On CUDA short rows divide their keys over blocks and prompts do not: as exact, other bits.
      if (GetParam() == kCuda)
        ExpectNear(pieces.o, whole.o, Tolerance(c.type, 256.0 * (c.head_dim + tokens)), "o");
      else
        EXPECT_EQ(pieces.o, whole.o);
    }
}

TEST_P(AttentionTest, APromptInAnyChunksGivesTheSameBits) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.name);
    Model m(c, 75, 3);
    Sequence whole(m, GetParam()), pieces(m, GetParam());
    whole.Feed(75, true);
    for (int count : {2, 31, 33, 9}) pieces.Feed(count, true);
    EXPECT_EQ(pieces.o, whole.o);
    EXPECT_EQ(pieces.pool, whole.pool);
  }
}

TEST_P(AttentionTest, AppendAndAttendApartGiveTheSameBits) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.name);
    Model m(c, 40, 8);
    Sequence together(m, GetParam()), apart(m, GetParam());
    together.Feed(37, true);
    together.Feed(3, false);
    apart.Feed(37, true, true, false);
    apart.position = 0;
    apart.Feed(37, true, false, true);
    apart.Feed(3, false, true, false);
    apart.position -= 3;
    apart.Feed(3, false, false, true);
    EXPECT_EQ(apart.o, together.o);
    EXPECT_EQ(apart.pool, together.pool);
  }
}

TEST_P(AttentionTest, ALongDecodeMergesThePartsOfItsKeys) {
  const Case cases[] = {
      {"ratio 1", {0}, 1, 16, 8, kF},
      CaseNamed("ratio 8, gate"),
      CaseNamed("bf16, ratio 16"),
      {"a window over parts", {0, 0}, 1, 16, 8, kF, false, true, false, 290},
      // Two parts at most for each, so a part is longer than it must be.
      {"64 KV heads", Shared(64, 1), 64, 8, 4, kF},
  };
  const int prompt = 316;
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    // At least two parts of older keys, besides the rows of the step.
    const int parts = std::min(cuda::AttnSplits(c.kv_heads), prompt / cuda::kAttnPageTokens / cuda::kAttnLeastPages);
    ASSERT_GE(parts, 2);
    Model m(c, prompt + 6, 5);
    Sequence s(m, GetParam());
    s.Feed(prompt, true, true, false);  // cached, not asked
    for (int rows : {1, 3, 1, 1}) s.Feed(rows, false);
    const Values want = m.Want(1);
    const DType coarser = c.type == kB || c.cache_type() == kB ? kB : kF;
    ExpectNear(s.o, Values(want.end() - 6LL * m.o_width(), want.end()),
               Tolerance(coarser, 256.0 * (c.head_dim + m.tokens)), "o");
  }
}

TEST_P(AttentionTest, ABlockSeesItsOwnLaterRows) {
  for (int window : {0, 9}) {
    const Case c{"block", {0, 0, 1, 1}, 2, 16, 8, kF, false, true, false, window, true};
    Model m(c, 50, 4);
    Sequence s(m, GetParam());
    s.Feed(42, true, true, false);  // context: cached, not asked
    s.Feed(8, false);
    Values want = m.Want(8);
    ExpectNear(s.o, Values(want.end() - 8LL * m.o_width(), want.end()), Tolerance(kF, 256.0 * 66),
               fmt::format("window {}", window));
  }
}

TEST_P(AttentionTest, FarPositionsRotateRight) {
  // The last positions of the longest context; a window, so that nothing before is needed.
  const Case c{"far", {0, 0}, 1, 16, 8, kF, false, true, false, 20};
  Model m(c, 64, 2, 262144 - 64);
  Sequence s(m, GetParam());
  s.Feed(60, true);
  s.Feed(4, false);
  Values want = m.Want(64);
  const int64_t from = 20LL * m.o_width();  // earlier rows see what was never written
  ExpectNear(Values(s.o.begin() + from, s.o.end()), Values(want.begin() + from, want.end()), Tolerance(kF, 256.0 * 36),
             "o");
}

TEST_P(AttentionTest, EveryKvHeadIsAppendedAndNothingElseIsTouched) {
  const Case& c = CaseNamed("a KV head without queries");
  Model m(c, 33, 6);
  Sequence s(m, GetParam());
  s.Feed(33, true);
  int64_t written = 0;
  for (size_t i = 0; i < s.pool.size(); ++i) {
    const int64_t in_page = static_cast<int64_t>(i) % s.page_bytes;
    if (in_page < s.layer_offset || in_page >= s.layer_offset + s.layer_bytes)
      ASSERT_EQ(s.pool[i], 0xff) << "another layer's byte";
    else if (i % 4 == 3)
      written += s.pool[i] != 0xff;  // no value here has an exponent of all ones
  }
  EXPECT_EQ(written, 33LL * 2 * m.kv_width());
}

TEST_P(AttentionTest, PaddingAndEmptySharesDoNothing) {
  AttentionSpec s = SpecOf(CaseNamed("ratio 4, gate, partial rotary"));
  Batch batch;
  batch.Add(1, 0, -1, -1);
  batch.num_short = 1;
  BatchView view = batch.View();
  RunBody(GetParam(), {.entry = "attn_decode", .args = std::vector<void*>(kAttnArgs), .batch = &view}, s, 2);
  s.q_heads = s.kv_heads = 0;
  Batch rows;
  rows.Add(1), rows.Add(5);
  rows.num_short = 1;
  BatchView all = rows.View();
  for (const char* entry : {"attn_decode", "attn_prefill"})
    RunBody(GetParam(), {.entry = entry, .args = std::vector<void*>(kAttnArgs), .batch = &all}, s, 2);
}

TEST_P(AttentionTest, ABatchHasTheBitsOfItsSequencesAlone) {
  const Case& c = CaseNamed("ragged: part of two groups");
  Model m(c, 60, 12);
  Sequence a(m, GetParam()), b(m, GetParam());
  a.Feed(40, true);
  b.Feed(17, true);
  const Values a_rows = (a.o.clear(), a.Feed(2, false), a.o), b_rows = (b.o.clear(), b.Feed(20, true), b.o);
  a.position -= 2, b.position -= 20;
  for (int threads : ThreadsOf(GetParam())) {
    // Both in one pool: b's pages behind a's.
    std::vector<uint8_t, TrackedAllocator<uint8_t>> pool = a.pool;
    pool.insert(pool.end(), b.pool.begin(), b.pool.end());
    Batch batch;
    batch.max_pages = static_cast<int>(a.table.size());
    batch.page_table = a.table;
    for (int page : b.table) batch.page_table.push_back(page + static_cast<int>(a.pool.size() / a.page_bytes));
    batch.Add(2, a.position, 0, 0);
    batch.Add(1, 0, -1, -1);
    batch.Add(20, b.position, 1, 1);
    batch.num_short = 2;
    BatchView view = batch.View();
    auto join = [&](const Array& all) {
      Values rows = m.Rows(all, a.position, 2).Get(), rest = m.Rows(all, b.position, 20).Get();
      rows.resize(rows.size() + all.count() / m.tokens, NAN);
      rows.insert(rows.end(), rest.begin(), rest.end());
      return Array(all.type(), rows);
    };
    Array q = join(m.q), k = join(m.k), v = join(m.v), o(c.type, 23LL * m.o_width());
    for (const char* entry : {"attn_decode", "attn_prefill"})
      RunBody(GetParam(),
              {.entry = entry,
               .args = {q.data(), k.data(), v.data(), a.q_norm.data(), a.k_norm.data(), pool.data() + a.layer_offset,
                        o.data()},
               .batch = &view,
               .state = {.page_tokens = 32, .page_bytes = a.page_bytes}},
              m.spec, threads);
    EXPECT_EQ(o.Get(0, 2LL * m.o_width()), a_rows) << threads;
    EXPECT_TRUE(std::isnan(o.At(2LL * m.o_width()))) << "padding was written";
    EXPECT_EQ(o.Get(3LL * m.o_width(), 20LL * m.o_width()), b_rows) << threads;
  }
}

QWEN_FOR_EVERY_ISA_AND_CUDA(AttentionTest);

}  // namespace
}  // namespace qwen::kernels::conformance
