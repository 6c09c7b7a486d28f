// Every rank reads all ranks' partial rows and adds them in rank order, so all hold the same bits and nobody waits for
// a leader. A thread owns whole rows: the norm needs them.

inline void AllReduce(const void* spec, const Launch& l) {
  const AllReduceSpec& s = *static_cast<const AllReduceSpec*>(spec);
  float* row = reinterpret_cast<float*>(l.scratch);
  const Range share = ShareOf(l, l.batch->num_tokens);
  for (long long t = share.begin; t < share.end; ++t) {
    const long long first = t * s.channels;
    ForRuns(s.channels, [&](int i, int run) {
      F16 sum = LoadPart(static_cast<const float*>(l.peers[0]) + first + i, run);
      for (int r = 1; r < l.ranks; ++r) sum = sum + LoadPart(static_cast<const float*>(l.peers[r]) + first + i, run);
      sum = RoundTo(s.y_type, sum);
      if (s.residual) sum = RoundTo(s.y_type, sum + LoadTyped(s.y_type, l.args[kReduceResidual], first + i, run));
      if (l.args[kReduceSum]) StoreTyped(s.y_type, l.args[kReduceSum], first + i, sum, run);
      StorePart(row + i, sum, run);
    });
    if (!s.norm) continue;
    RmsNormRow(s.y_type, row, static_cast<const float*>(l.args[kReduceNormWeight]), s.channels, s.eps, s.round_first,
               row);
    ForRuns(s.channels,
            [&](int i, int run) { StoreTyped(s.y_type, l.args[kReduceY], first + i, LoadPart(row + i, run), run); });
  }
}

inline void AllGather(const void* spec, const Launch& l) {
  const AllGatherSpec& s = *static_cast<const AllGatherSpec*>(spec);
  long long channels = 0;
  for (int r = 0; r < s.ranks; ++r) channels += s.counts[r];
  float* y = static_cast<float*>(l.args[kGatherY]);
  const Range share = ShareOf(l, l.batch->num_logit_rows);
  for (long long n = share.begin; n < share.end; ++n) {
    float* to = y + n * channels;
    for (int r = 0; r < s.ranks; to += s.counts[r], ++r)
      if (s.counts[r] > 0)
        __builtin_memcpy(to, static_cast<const float*>(l.peers[r]) + n * s.counts[r], 4LL * s.counts[r]);
  }
}
