// The noise of a draw: Philox4x32-10 (Salmon et al. 2011) and the Gumbel variable made of it (contracts, section 4).
//
// Host and device compile this same text, so a draw does not depend on the backend: integers, IEEE division and single
// products and sums only. Host files that include it are built without contraction; device code asks for none by name.
// Everything has internal linkage: the files that are built once per ISA must not share an out-of-line copy.
#ifndef QWEN_RUNTIME_KERNELS_LM_HEAD_PHILOX_H_
#define QWEN_RUNTIME_KERNELS_LM_HEAD_PHILOX_H_

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define QWEN_DRAW static __device__ __forceinline__
#define QWEN_DRAW_MUL(a, b) __fmul_rn(a, b)
#define QWEN_DRAW_ADD(a, b) __fadd_rn(a, b)
#else
#define QWEN_DRAW static inline __attribute__((unused))
#define QWEN_DRAW_MUL(a, b) ((a) * (b))
#define QWEN_DRAW_ADD(a, b) ((a) + (b))
#endif

namespace qwen::kernels {

struct PhiloxWords {
  unsigned w[4];
};

QWEN_DRAW PhiloxWords Philox4x32(PhiloxWords counter, unsigned key0, unsigned key1) {
  unsigned c0 = counter.w[0], c1 = counter.w[1], c2 = counter.w[2], c3 = counter.w[3];
  for (int round = 0; round < 10; ++round) {
    unsigned long long p0 = 0xD2511F53ull * c0, p1 = 0xCD9E8D57ull * c2;
    c0 = static_cast<unsigned>(p1 >> 32) ^ c1 ^ key0;
    c1 = static_cast<unsigned>(p1);
    c2 = static_cast<unsigned>(p0 >> 32) ^ c3 ^ key1;
    c3 = static_cast<unsigned>(p0);
    key0 += 0x9E3779B9u, key1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

/// log(1 + f) for f in [sqrt(1/2) - 1, sqrt(2) - 1]: the series of 2 atanh(f / (2 + f)); the first term left out is
/// 2e-9.
QWEN_DRAW float DrawLogNearOne(float f) {
  float s = f / QWEN_DRAW_ADD(2.0f, f);
  float z = QWEN_DRAW_MUL(s, s);
  float p = 2.0f / 9;
  p = QWEN_DRAW_ADD(QWEN_DRAW_MUL(p, z), 2.0f / 7);
  p = QWEN_DRAW_ADD(QWEN_DRAW_MUL(p, z), 2.0f / 5);
  p = QWEN_DRAW_ADD(QWEN_DRAW_MUL(p, z), 2.0f / 3);
  p = QWEN_DRAW_ADD(QWEN_DRAW_MUL(p, z), 2.0f);
  return QWEN_DRAW_MUL(s, p);
}

/// log(x), x positive and normal.
QWEN_DRAW float DrawLog(float x) {
  const unsigned bits = __builtin_bit_cast(unsigned, x);
  int exponent = static_cast<int>(bits >> 23) - 127;
  float m = __builtin_bit_cast(float, (bits & 0x7fffffu) | 0x3f800000u);
  if (m > 1.41421356f) m = QWEN_DRAW_MUL(m, 0.5f), exponent += 1;
  float e = static_cast<float>(exponent);
  float log_m = DrawLogNearOne(QWEN_DRAW_ADD(m, -1.0f));
  // ln 2 in two parts, the first of which times e is exact.
  return QWEN_DRAW_ADD(QWEN_DRAW_MUL(e, 0.693359375f), QWEN_DRAW_ADD(log_m, QWEN_DRAW_MUL(e, -2.12194440e-4f)));
}

/// -log1p(-u), u in (0, 1): keeps the relative precision of a small u, which is what makes rare tokens reachable.
QWEN_DRAW float DrawExponential(float u) {
  if (u < 0.25f) return -DrawLogNearOne(-u);
  return -DrawLog(QWEN_DRAW_ADD(1.0f, -u));
}

/// u = min((w + 1/2) 2^-32, 1 - 2^-24).
QWEN_DRAW float DrawUniform(unsigned word) {
  float u = QWEN_DRAW_MUL(QWEN_DRAW_ADD(static_cast<float>(word), 0.5f), 0x1p-32f);
  return u < 1.0f - 0x1p-24f ? u : 1.0f - 0x1p-24f;
}

QWEN_DRAW float GumbelOfWord(unsigned word) { return -DrawLog(DrawExponential(DrawUniform(word))); }
/// No Gumbel value is larger: u is at least 2^-33, and 33 ln 2 = 22.87.
static constexpr float kMaxGumbel = 22.9f;
/// Not below GumbelOfWord(word), without a logarithm: E >= u, so G <= -log(u), and u >= 2^-n says n ln 2 at most.
QWEN_DRAW float GumbelBound(unsigned word) {
  float u = DrawUniform(word);
  const unsigned bits = __builtin_bit_cast(unsigned, u);
  // A thousandth for the roundings of G, which are a thousand times smaller.
  return QWEN_DRAW_ADD(QWEN_DRAW_MUL(static_cast<float>(127 - static_cast<int>(bits >> 23)), 0.6931472f), 0.001f);
}

/// The four words of tokens 4 * group to 4 * group + 3, for the token drawn at `position`.
QWEN_DRAW PhiloxWords DrawWords(unsigned long long seed, int group, int position, int choice) {
  PhiloxWords counter = {
      {static_cast<unsigned>(group), static_cast<unsigned>(position), static_cast<unsigned>(choice), 0}};
  return Philox4x32(counter, static_cast<unsigned>(seed), static_cast<unsigned>(seed >> 32));
}

QWEN_DRAW float Gumbel(unsigned long long seed, int token, int position, int choice) {
  const PhiloxWords words = DrawWords(seed, token >> 2, position, choice);
  // Not by an index: on a card that would put the words into memory.
  const unsigned low = token & 1 ? words.w[1] : words.w[0], high = token & 1 ? words.w[3] : words.w[2];
  return GumbelOfWord(token & 2 ? high : low);
}

}  // namespace qwen::kernels

#endif  // QWEN_RUNTIME_KERNELS_LM_HEAD_PHILOX_H_
