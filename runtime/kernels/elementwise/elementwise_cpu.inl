// Scalar loops over a thread's rows. accept and candidate_walk go by sequence, as their rows depend on each other.

/// The sequence that row `row` of the batch belongs to.
inline int SequenceOf(const BatchView& batch, int row) {
  int seq = 0;
  while (batch.cu_tokens[seq + 1] <= row) ++seq;
  return seq;
}

inline void Accept(const ElementwiseSpec& s, const Launch& l) {
  const BatchView& batch = *l.batch;
  const int* next = static_cast<const int*>(l.args[0]);
  int* accepted = static_cast<int*>(l.args[1]);
  int* emitted = static_cast<int*>(l.args[2]);
  const Range share = ShareOf(l, batch.num_short);
  for (long long seq = share.begin; seq < share.end; ++seq) {
    if (batch.state_slot[seq] < 0 && batch.table_row[seq] < 0) continue;
    const int begin = batch.cu_tokens[seq], end = batch.cu_tokens[seq + 1];
    // Logit rows ascend; the sequence's are a run of them. A row nobody asked about ends the prefix: nothing was drawn.
    int n = 0;
    while (n < batch.num_logit_rows && batch.logit_rows[n] < begin) ++n;
    int row = begin, drawn = -1;
    while (n < batch.num_logit_rows && batch.logit_rows[n] == row) {
      drawn = next[n++];
      if (row + 1 == end || drawn != batch.token_ids[row + 1]) break;
      ++row, drawn = -1;
    }
    accepted[seq] = row - begin;
    emitted[seq] = drawn;
  }
}

inline void CandidateWalk(const ElementwiseSpec& s, const Launch& l) {
  const BatchView& batch = *l.batch;
  const float* logits = static_cast<const float*>(l.args[0]);
  int* next = static_cast<int*>(l.args[4]);
  const int vocab = s.in_channels[0], rank = s.in_channels[1];
  Candidate* heap = reinterpret_cast<Candidate*>(l.scratch);
  const Range share = ShareOf(l, batch.num_seqs);
  for (int n = 0; n < batch.num_logit_rows;) {
    const int seq = SequenceOf(batch, batch.logit_rows[n]);
    int predecessor = batch.token_ids[batch.cu_tokens[seq]];
    for (; n < batch.num_logit_rows && batch.logit_rows[n] < batch.cu_tokens[seq + 1]; ++n) {
      if (seq < share.begin || seq >= share.end) continue;
      const int count = TakeCandidates(logits + 1LL * n * vocab, vocab, 1.0f, s.candidates, heap);
      Candidate best{-__builtin_inff(), -1};
      for (int i = 0; i < count; ++i) {
        float edge = 0;
        for (int r = 0; r < rank; ++r)
          edge = Fma(LoadOne(s.in_type[2], l.args[2], 1LL * predecessor * rank + r) *
                         LoadOne(s.in_type[1], l.args[1], 1LL * n * rank + r),
                     LoadOne(s.in_type[3], l.args[3], 1LL * heap[i].id * rank + r), edge);
        const Candidate scored{heap[i].z + edge, heap[i].id};
        if (best.id < 0 || Before(scored, best)) best = scored;
      }
      next[n] = best.id;
      predecessor = best.id < 0 ? predecessor : best.id;
    }
  }
}

inline void Elementwise(const void* spec, const Launch& l) {
  const ElementwiseSpec& s = *static_cast<const ElementwiseSpec*>(spec);
  const BatchView& batch = *l.batch;
  void* const* in = l.args;
  void* const* out = l.args + s.inputs;
  const ElementwiseOp op = static_cast<ElementwiseOp>(s.op);
  if (op == ElementwiseOp::kAccept) return Accept(s, l);
  if (op == ElementwiseOp::kCandidateWalk) return CandidateWalk(s, l);

  auto load = [&](int i, long long row, int channel) {
    return LoadOne(s.in_type[i], in[i], row * s.in_channels[i] + channel);
  };
  auto store = [&](int o, long long row, int channel, float x) {
    StoreOne(s.out_type[o], out[o], row * s.out_channels[o] + channel, x);
  };
  const Range share = ShareOf(l, s.logit_rows ? batch.num_logit_rows : batch.num_tokens);
  for (long long t = share.begin; t < share.end; ++t) {
    const int channels = s.out_channels[0];
    switch (op) {
      case ElementwiseOp::kAdd:
        for (int c = 0; c < channels; ++c) store(0, t, c, load(0, t, c) + load(1, t, c));
        break;
      case ElementwiseOp::kSiluMul:
        for (int c = 0; c < channels; ++c) {
          const float gate = load(0, t, c);
          store(0, t, c, gate / (1.0f + __builtin_expf(-gate)) * load(1, t, c));
        }
        break;
      case ElementwiseOp::kSigmoidGate:
        for (int c = 0; c < channels; ++c) store(0, t, c, load(0, t, c) * SigmoidOne(load(1, t, c)));
        break;
      case ElementwiseOp::kSplit:
        for (int head = 0, from = 0; head < s.heads; ++head)
          for (int o = 0; o < s.outputs; ++o) {
            const int width = s.out_channels[o] / s.heads;
            for (int c = 0; c < width; ++c) store(o, t, head * width + c, load(0, t, from++));
          }
        break;
      case ElementwiseOp::kConcat:
        for (int i = 0, to = 0; i < s.inputs; ++i)
          for (int c = 0; c < s.in_channels[i]; ++c) store(0, t, to++, load(i, t, c));
        break;
      case ElementwiseOp::kLogitRows:
        for (int c = 0; c < channels; ++c) store(0, t, c, load(0, batch.logit_rows[t], c));
        break;
      case ElementwiseOp::kDynamicConv: {
        const int block = batch.cu_tokens[SequenceOf(batch, static_cast<int>(t))], groups = channels / s.group;
        for (int c = 0; c < channels; ++c) {
          float sum = 0;
          for (int tap = 0; tap < s.taps && t - tap >= block; ++tap) {
            const int at = s.index * s.taps + tap;
            const float weight =
                LoadOne(s.in_type[2], in[2], 1LL * at * channels + c) + load(1, t, at * groups + c / s.group);
            sum = Fma(weight, load(0, t - tap, c), sum);
          }
          store(0, t, c, sum);
        }
        break;
      }
      case ElementwiseOp::kAccept:
      case ElementwiseOp::kCandidateWalk:
        break;  // by sequence, above
    }
  }
}
