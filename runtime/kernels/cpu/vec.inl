// Vectors of sixteen f32 for every ISA: one AVX-512 register, two of AVX2, four of SSE2.
//
// Included inside the ISA's namespace. GCC's and clang's vector types are enough, so there is no intrinsics header and
// no standard header. Sixteen lanes everywhere: a body sums in the same lanes on every machine. A pair of halves rather
// than one wide vector type, because GCC keeps types wider than a register in memory.
//
// The files are built without contraction: a product and a sum become one fma where Fma() says so and nowhere else.
// Equal formulas therefore give equal bits wherever the compiler inlines them, which token by token = chunks rests on.

#define QWEN_INLINE inline __attribute__((always_inline))

#if defined(__AVX512F__)
inline constexpr int kNativeLanes = 16;
#elif defined(__AVX2__)
inline constexpr int kNativeLanes = 8;
#else
inline constexpr int kNativeLanes = 4;
#endif

typedef float NativeF __attribute__((vector_size(4 * kNativeLanes)));
typedef int NativeI __attribute__((vector_size(4 * kNativeLanes)));
typedef unsigned NativeU __attribute__((vector_size(4 * kNativeLanes)));
typedef unsigned short NativeH __attribute__((vector_size(2 * kNativeLanes)));

// --- One register
// ------------------------------------------------------------------------------------------------------

template <class V>
QWEN_INLINE V LoadAs(const void* p) {
  V v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <class V>
QWEN_INLINE void StoreAs(void* p, V v) {
  __builtin_memcpy(p, &v, sizeof v);
}

QWEN_INLINE NativeF Fma(NativeF a, NativeF b, NativeF c) {
#if !defined(__FMA__)
  return a * b + c;
#elif defined(__clang__)
  return __builtin_elementwise_fma(a, b, c);
#elif defined(__AVX512F__)
  return __builtin_ia32_vfmaddps512_mask(a, b, c, -1, 4);  // 4: the current rounding mode
#else
  return __builtin_ia32_vfmaddps256(a, b, c);
#endif
}
QWEN_INLINE float Fma(float a, float b, float c) {
#if defined(__FMA__)
  return __builtin_fmaf(a, b, c);
#else
  return a * b + c;
#endif
}
/// Where one is NaN, `b`.
QWEN_INLINE NativeF Max(NativeF a, NativeF b) { return a > b ? a : b; }

/// e^x to 1 ulp or so: Taylor to degree 7 on [-ln 2 / 2, ln 2 / 2], where the next term is 5e-9. NaN stays NaN.
QWEN_INLINE NativeF Exp(NativeF x) {
  const NativeF zero = {};
  const NativeF lowest = zero - 104.0f, highest = zero + 89.0f;
  x = x < lowest ? lowest : x;
  x = x > highest ? highest : x;
  // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
  const NativeF magic = zero + 12582912.0f;
  NativeF shifted = Fma(x, zero + 1.44269504f, magic);
  NativeI n = (NativeI)shifted - (NativeI)magic;
  NativeF whole = shifted - magic;
  NativeF r = Fma(whole, zero - 0.693359375f, x);
  r = Fma(whole, zero + 2.12194440e-4f, r);
  NativeF p = zero + 1.0f / 5040;
  p = Fma(p, r, zero + 1.0f / 720);
  p = Fma(p, r, zero + 1.0f / 120);
  p = Fma(p, r, zero + 1.0f / 24);
  p = Fma(p, r, zero + 1.0f / 6);
  p = Fma(p, r, zero + 0.5f);
  p = Fma(p, r, zero + 1.0f);
  p = Fma(p, r, zero + 1.0f);
  // In two steps, for results that are denormal or infinite.
  NativeI half = n >> 1;
  return p * (NativeF)((half + 127) << 23) * (NativeF)((n - half + 127) << 23);
}

QWEN_INLINE float SumLanes(NativeF v) {
#if defined(__AVX512F__)
  typedef float F8 __attribute__((vector_size(32)));
  F8 v8 = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
          __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
#elif defined(__AVX2__)
  NativeF v8 = v;
#endif
#if defined(__AVX2__)
  typedef float F4 __attribute__((vector_size(16)));
  F4 v4 = __builtin_shufflevector(v8, v8, 0, 1, 2, 3) + __builtin_shufflevector(v8, v8, 4, 5, 6, 7);
#else
  NativeF v4 = v;
#endif
  v4 = v4 + __builtin_shufflevector(v4, v4, 2, 3, 0, 1);
  return v4[0] + v4[1];
}
QWEN_INLINE float MaxLanes(NativeF v) {
  float best = v[0];
  for (int i = 1; i < kNativeLanes; ++i) best = v[i] > best ? v[i] : best;
  return best;
}

/// Which lanes are above `x`; NaN is above nothing.
QWEN_INLINE NativeI Above(NativeF v, float x) { return v > x - NativeF{}; }
QWEN_INLINE bool Any(NativeI lanes) {
  unsigned long long words[sizeof lanes / 8], any = 0;
  StoreAs(words, lanes);
  for (unsigned long long word : words) any |= word;
  return any != 0;
}

/// bf16 to f32: exact.
QWEN_INLINE NativeF Widen(NativeH h) { return (NativeF)(__builtin_convertvector(h, NativeU) << 16); }
/// f32 to bf16, to nearest even; NaN stays a NaN.
QWEN_INLINE NativeU NarrowBits(NativeF v) {
  NativeU u = (NativeU)v;
  NativeU rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
  return v == v ? rounded : (u >> 16) | 0x40;
}
QWEN_INLINE NativeH Narrow(NativeF v) { return __builtin_convertvector(NarrowBits(v), NativeH); }
QWEN_INLINE NativeF RoundBf16(NativeF v) { return (NativeF)(NarrowBits(v) << 16); }

template <class V>
struct Make;  // how to fill and move a V: native or halves
template <>
struct Make<NativeF> {
  static QWEN_INLINE NativeF Splat(float x) { return x - NativeF{}; }
  static QWEN_INLINE NativeF Load(const float* p) { return LoadAs<NativeF>(p); }
  static QWEN_INLINE NativeF LoadBf16(const unsigned short* p) { return Widen(LoadAs<NativeH>(p)); }
  // A run of (even k, odd k) pairs, as tile16 keeps bf16: the parity's elements.
  static QWEN_INLINE NativeF LoadPairs(const unsigned* p, bool odd) {
    NativeU u = LoadAs<NativeU>(p);
    return (NativeF)(odd ? u & 0xffff0000u : u << 16);
  }
};
QWEN_INLINE void Store(float* p, NativeF v) { StoreAs(p, v); }
QWEN_INLINE void StoreBf16(unsigned short* p, NativeF v) { StoreAs(p, Narrow(v)); }

// --- Several
// ------------------------------------------------------------------------------------------------------------

template <class H>
struct Two {
  H lo, hi;
};
template <class H>
inline constexpr int kLanesOf = 2 * kLanesOf<decltype(H::lo)>;
template <>
inline constexpr int kLanesOf<NativeF> = kNativeLanes;

template <class H>
struct Make<Two<H>> {
  static constexpr int kHalf = kLanesOf<H>;
  static QWEN_INLINE Two<H> Splat(float x) { return {Make<H>::Splat(x), Make<H>::Splat(x)}; }
  static QWEN_INLINE Two<H> Load(const float* p) { return {Make<H>::Load(p), Make<H>::Load(p + kHalf)}; }
  static QWEN_INLINE Two<H> LoadBf16(const unsigned short* p) {
    return {Make<H>::LoadBf16(p), Make<H>::LoadBf16(p + kHalf)};
  }
  static QWEN_INLINE Two<H> LoadPairs(const unsigned* p, bool odd) {
    return {Make<H>::LoadPairs(p, odd), Make<H>::LoadPairs(p + kHalf, odd)};
  }
};
template <class H>
QWEN_INLINE Two<H> operator+(Two<H> a, Two<H> b) {
  return {a.lo + b.lo, a.hi + b.hi};
}
template <class H>
QWEN_INLINE Two<H> operator-(Two<H> a, Two<H> b) {
  return {a.lo - b.lo, a.hi - b.hi};
}
template <class H>
QWEN_INLINE Two<H> operator*(Two<H> a, Two<H> b) {
  return {a.lo * b.lo, a.hi * b.hi};
}
template <class H>
QWEN_INLINE Two<H> operator/(Two<H> a, Two<H> b) {
  return {a.lo / b.lo, a.hi / b.hi};
}
template <class H>
QWEN_INLINE Two<H> Fma(Two<H> a, Two<H> b, Two<H> c) {
  return {Fma(a.lo, b.lo, c.lo), Fma(a.hi, b.hi, c.hi)};
}
template <class H>
QWEN_INLINE Two<H> Max(Two<H> a, Two<H> b) {
  return {Max(a.lo, b.lo), Max(a.hi, b.hi)};
}
template <class H>
QWEN_INLINE Two<H> Exp(Two<H> x) {
  return {Exp(x.lo), Exp(x.hi)};
}
template <class H>
QWEN_INLINE Two<H> RoundBf16(Two<H> x) {
  return {RoundBf16(x.lo), RoundBf16(x.hi)};
}
template <class H>
QWEN_INLINE float SumLanes(Two<H> v) {
  return SumLanes(v.lo + v.hi);
}
template <class H>
QWEN_INLINE float MaxLanes(Two<H> v) {
  return MaxLanes(Max(v.lo, v.hi));
}
/// Whether a register has such a lane, not which.
template <class H>
QWEN_INLINE NativeI Above(Two<H> v, float x) {
  return Above(v.lo, x) | Above(v.hi, x);
}
template <class H>
QWEN_INLINE void Store(float* p, Two<H> v) {
  Store(p, v.lo), Store(p + kLanesOf<H>, v.hi);
}
template <class H>
QWEN_INLINE void StoreBf16(unsigned short* p, Two<H> v) {
  StoreBf16(p, v.lo), StoreBf16(p + kLanesOf<H>, v.hi);
}

#if defined(__AVX512F__)
using F16 = NativeF;
#elif defined(__AVX2__)
using F16 = Two<NativeF>;
#else
using F16 = Two<Two<NativeF>>;
#endif
inline constexpr int kLanes = 16;

QWEN_INLINE F16 Splat(float x) { return Make<F16>::Splat(x); }
QWEN_INLINE F16 Load(const float* p) { return Make<F16>::Load(p); }

/// The first `count` lanes of p, zeros behind.
QWEN_INLINE F16 LoadPart(const float* p, int count) {
  if (count >= kLanes) return Load(p);
  float lanes[kLanes] = {};
  for (int i = 0; i < count; ++i) lanes[i] = p[i];
  return Load(lanes);
}
QWEN_INLINE void StorePart(float* p, F16 v, int count) {
  if (count >= kLanes) return Store(p, v);
  float lanes[kLanes];
  Store(lanes, v);
  for (int i = 0; i < count; ++i) p[i] = lanes[i];
}

// --- Element types
// ------------------------------------------------------------------------------------------------------

QWEN_INLINE float WidenOne(unsigned short h) {
  unsigned u = static_cast<unsigned>(h) << 16;
  float x;
  __builtin_memcpy(&x, &u, 4);
  return x;
}
QWEN_INLINE unsigned short NarrowOne(float x) {
  unsigned u;
  __builtin_memcpy(&u, &x, 4);
  if (x != x) return static_cast<unsigned short>(u >> 16 | 0x40);
  return static_cast<unsigned short>((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

/// Element `i` of an array of `type`: f32 or bf16.
QWEN_INLINE float LoadOne(DType type, const void* p, long long i) {
  return type == DType::kBF16 ? WidenOne(static_cast<const unsigned short*>(p)[i]) : static_cast<const float*>(p)[i];
}
QWEN_INLINE void StoreOne(DType type, void* p, long long i, float x) {
  if (type == DType::kBF16)
    static_cast<unsigned short*>(p)[i] = NarrowOne(x);
  else
    static_cast<float*>(p)[i] = x;
}
/// Elements i to i + count, count <= 16; zeros behind.
QWEN_INLINE F16 LoadTyped(DType type, const void* p, long long i, int count) {
  if (type == DType::kF32) return LoadPart(static_cast<const float*>(p) + i, count);
  const unsigned short* h = static_cast<const unsigned short*>(p) + i;
  if (count >= kLanes) return Make<F16>::LoadBf16(h);
  unsigned short lanes[kLanes] = {};
  for (int j = 0; j < count; ++j) lanes[j] = h[j];
  return Make<F16>::LoadBf16(lanes);
}
QWEN_INLINE void StoreTyped(DType type, void* p, long long i, F16 v, int count) {
  if (type == DType::kF32) return StorePart(static_cast<float*>(p) + i, v, count);
  unsigned short* h = static_cast<unsigned short*>(p) + i;
  if (count >= kLanes) return StoreBf16(h, v);
  unsigned short lanes[kLanes];
  StoreBf16(lanes, v);
  for (int j = 0; j < count; ++j) h[j] = lanes[j];
}
QWEN_INLINE F16 RoundTo(DType type, F16 v) { return type == DType::kBF16 ? RoundBf16(v) : v; }
QWEN_INLINE float RoundTo(DType type, float x) { return type == DType::kBF16 ? WidenOne(NarrowOne(x)) : x; }

QWEN_INLINE int Min(int a, int b) { return a < b ? a : b; }
QWEN_INLINE int MaxInt(int a, int b) { return a > b ? a : b; }
QWEN_INLINE int RoundUp16(int n) { return (n + 15) & ~15; }

/// Visits a row in runs of sixteen: visit(first element, elements in the run).
template <class Visit>
QWEN_INLINE void ForRuns(int count, Visit visit) {
  for (int i = 0; i < count; i += kLanes) visit(i, Min(kLanes, count - i));
}

inline void WidenRow(DType type, const void* p, long long first, int count, float* to) {
  ForRuns(count, [&](int i, int run) { StorePart(to + i, LoadTyped(type, p, first + i, run), run); });
}

/// In sixteen lanes, then a fixed tree: depends on nothing but the row.
inline float SumSquares(const float* x, int count) {
  F16 sum = Splat(0);
  ForRuns(count, [&](int i, int run) {
    F16 v = LoadPart(x + i, run);
    sum = Fma(v, v, sum);
  });
  return SumLanes(sum);
}

QWEN_INLINE F16 Sigmoid(F16 x) { return Splat(1) / (Splat(1) + Exp(Splat(0) - x)); }
QWEN_INLINE F16 Silu(F16 x) { return x / (Splat(1) + Exp(Splat(0) - x)); }
inline float SigmoidOne(float x) { return 1.0f / (1.0f + __builtin_expf(-x)); }

// --- Rows that several families share
// --------------------------------------------------------------------------------------

/// y = x * rsqrt(mean(x^2) + eps) * w, rounded to `last`, and to `first` before the weight. x == y allowed.
inline void RmsNormRow(DType first, DType last, const float* x, const float* w, int count, float eps, float* y) {
  float scale = 1.0f / __builtin_sqrtf(SumSquares(x, count) / static_cast<float>(count) + eps);
  ForRuns(count, [&](int i, int run) {
    F16 v = RoundTo(first, LoadPart(x + i, run) * Splat(scale));
    StorePart(y + i, RoundTo(last, v * LoadPart(w + i, run)), run);
  });
}
/// As the model specification writes it, 3.1 with `round_first` and 3.2 without.
inline void RmsNormRow(DType type, const float* x, const float* w, int count, float eps, bool round_first, float* y) {
  RmsNormRow(round_first ? type : DType::kF32, type, x, w, count, eps, y);
}

// --- Division of work
// -------------------------------------------------------------------------------------------------------

/// The thread's contiguous share of `count` equal items.
struct Range {
  long long begin, end;
};
QWEN_INLINE Range ShareOf(const Launch& l, long long count) {
  return {count * l.thread / l.threads, count * (l.thread + 1) / l.threads};
}
/// For items of unequal cost, in order: whether the one whose costs run from `before` to `before + cost` of `total` is
/// this thread's.
QWEN_INLINE bool Owns(const Launch& l, long long before, long long cost, long long total) {
  return (2 * before + cost) * l.threads / (2 * total) == l.thread;
}
