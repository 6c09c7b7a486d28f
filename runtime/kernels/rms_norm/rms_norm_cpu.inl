// A thread owns whole rows. The norm reads the sum as it was rounded, so fusing the pair changes no bit.

inline void AddRmsNorm(const void* spec, const Launch& l) {
  const RmsNormSpec& s = *static_cast<const RmsNormSpec*>(spec);
  const float* w = static_cast<const float*>(l.args[kNormWeight]);
  float* row = reinterpret_cast<float*>(l.scratch);
  const Range share = ShareOf(l, l.batch->num_tokens);
  for (long long t = share.begin; t < share.end; ++t) {
    const long long first = t * s.channels;
    ForRuns(s.channels, [&](int i, int run) {
      F16 v = LoadTyped(s.type, l.args[kNormX], first + i, run);
      if (s.add) {
        v = RoundTo(s.type, v + LoadTyped(s.type, l.args[kNormResidual], first + i, run));
        if (l.args[kNormSum]) StoreTyped(s.type, l.args[kNormSum], first + i, v, run);
      }
      StorePart(row + i, v, run);
    });
    RmsNormRow(s.type, row, w, s.channels, s.eps, s.round_first, row);
    ForRuns(s.channels,
            [&](int i, int run) { StoreTyped(s.type, l.args[kNormY], first + i, LoadPart(row + i, run), run); });
  }
}
