// What the machine could do at best: the loops that `qwenrt bench` holds kernels against.

/// Reads `bytes`, a multiple of 4096, once. Prefetches far ahead: one stream a thread leaves the hardware's own too near.
inline unsigned ReadCeiling(const void* from, long long bytes) {
  constexpr int kAtOnce = 8, kAhead = 4096;
  NativeU sums[kAtOnce] = {};
  const unsigned char* at = static_cast<const unsigned char*>(from);
  for (const unsigned char* end = at + bytes; at != end; at += kAtOnce * sizeof(NativeU)) {
    for (unsigned line = 0; line < kAtOnce * sizeof(NativeU); line += 64) __builtin_prefetch(at + kAhead + line);
#pragma GCC unroll 8
    for (int i = 0; i < kAtOnce; ++i) sums[i] ^= LoadAs<NativeU>(at + i * sizeof(NativeU));
  }
  NativeU all = {};
  for (int i = 0; i < kAtOnce; ++i) all ^= sums[i];
  unsigned sum = 0;
  for (int i = 0; i < kNativeLanes; ++i) sum ^= all[i];
  return sum;
}

/// Products and sums in registers, as fast as the bodies' product of rows and weights could go; flops done.
inline double MultiplyCeiling(long long rounds, float* sink) {
#if defined(QWEN_AMX)
  // Three products of bf16 stand for one of f32.
  alignas(64) unsigned char config[64] = {1};
  for (int i = 0; i < 8; ++i) config[16 + 2 * i] = 64, config[48 + i] = 16;
  TileConfig(config);
  for (long long round = 0; round < rounds; ++round) Unroll<4>([&]<int c>() { TileDot<c, 4 + c / 2, 6 + c % 2>(); });
  TileRelease();
  *sink = 0;
  return 4.0 * 2 * 16 * 16 * 32 * static_cast<double>(rounds) / kPlanes;
#else
  constexpr int kChains = 12;  // two a cycle, four or five cycles each
  NativeF sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = Make<NativeF>::Splat(static_cast<float>(i));
  const NativeF scale = Make<NativeF>::Splat(0.999f), step = Make<NativeF>::Splat(0.001f);
  for (long long round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) sums[i] = Fma(sums[i], scale, step);
  }
  *sink = 0;
  for (int i = 0; i < kChains; ++i) *sink += SumLanes(sums[i]);
  return 2.0 * kNativeLanes * kChains * static_cast<double>(rounds);
#endif
}
