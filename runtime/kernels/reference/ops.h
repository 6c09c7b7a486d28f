// The oracle: one plain function per model op, as the op's description in dialects/model states it.
//
// Scalar loops over row-major `[tokens, channels]` arrays, heads flattened into channels. Every value is a `Real`, float
// or double; sums over channels and keys run in double either way, so that what a comparison shows is the other side's
// error. The functions do not round: the caller rounds a result to its type, once, where the op says "rounded once". The
// one rounding inside an op is a parameter (`RmsNorm`). In double nothing is ever rounded. An array may be empty: a rank
// of a ragged shard can own no channel at all.
#ifndef QWEN_RUNTIME_KERNELS_REFERENCE_OPS_H_
#define QWEN_RUNTIME_KERNELS_REFERENCE_OPS_H_

#include <cstdint>
#include <vector>

#include "runtime/kernels/reference/batch.h"
#include "runtime/kernels/reference/types.h"

namespace qwen::reference {

// Normalisations and sums. Section numbers are those of the model specification.

/// `y = x + residual` over `count` elements (3.3).
template <class Real>
void Add(const Real* x, const Real* residual, Real* y, int64_t count);

/// Each of `rows` runs of `channels` (3.1, 3.2). A model row is one run; for `qk_norm` every head is. `before_weight`
/// is the type that the normalised value takes before the weight: kF32 for no rounding.
template <class Real>
void RmsNorm(const Real* x, const Real* weight, Real* y, int64_t rows, int64_t channels, double eps, Type before_weight);

enum class Activation { kSilu, kSigmoid };

/// Norm first, gate second, over runs of `value_dim` (6.7).
template <class Real>
void GatedRmsNorm(const Real* x, const Real* gate, const Real* weight, Real* y, int64_t rows, int64_t value_dim,
                  double eps, Activation activation);

/// `y = x / sqrt(sum(x^2) + eps) * scale` over runs of `head_dim` (6.4).
template <class Real>
void L2Norm(const Real* x, Real* y, int64_t rows, int64_t head_dim, double eps, double scale);

// Projections and channel plumbing.

template <class Real>
void Embed(const int32_t* ids, const Weight& table, Real* y, int64_t tokens);

/// `y[tokens, weight.rows] = x[tokens, weight.cols] W^T`. Also `lm_head`.
template <class Real>
void Linear(const Real* x, const Weight& weight, Real* y, int64_t tokens);

/// `y = gate * sigmoid(gate) * up` over `count` elements (3.7).
template <class Real>
void SiluMul(const Real* gate, const Real* up, Real* y, int64_t count);

/// `y = x * sigmoid(gate)` over `count` elements (3.11).
template <class Real>
void SigmoidGate(const Real* x, const Real* gate, Real* y, int64_t count);

/// Part i takes the next `widths[i] / heads` channels of every head.
template <class Real>
void Split(const Real* x, const std::vector<int64_t>& widths, const std::vector<Real*>& parts, int64_t tokens,
           int64_t heads);

template <class Real>
void Concat(const std::vector<const Real*>& parts, const std::vector<int64_t>& widths, Real* y, int64_t tokens);

/// One draft block of `rows` rows; base [2][taps][channels], coef [rows][2][taps][channels / group] (12.2).
template <class Real>
void DynamicConv(const Real* x, const Real* coef, const Real* base, Real* y, int64_t rows, int64_t channels,
                 int64_t taps, int64_t group, int64_t index);

// Attention.

/// Row t sits at `positions[t]`. The angle is an f32 product in double too: at position 262 143 its rounding is 0.01
/// radians, so it is part of what the op means (3.4).
template <class Real>
void Rope(const Real* x, const int64_t* positions, Real* y, int64_t tokens, int64_t heads, int64_t head_dim,
          const std::vector<float>& inv_freq, double factor);

struct AttentionShape {
  std::vector<int64_t> kv_map;  // the KV head of each query head
  int64_t kv_heads = 0, head_dim = 0;
  double scale = 1;
  bool block = false;  // sees the later rows of its own step as well
  int64_t window = 0;  // 0: no window
};

/// Rows `first` ... `first + rows - 1` of one sequence, whose keys and values [position][kv_heads * head_dim] already
/// hold these rows (3.6).
template <class Real>
void Attention(const Real* q, const Real* keys, const Real* values, Real* y, int64_t rows, int64_t first,
               const AttentionShape& shape);

// Gated DeltaNet, for consecutive rows of one sequence.

/// `history` [width - 1][channels], oldest first, zero before the sequence; it becomes the last inputs (6.2).
template <class Real>
void CausalConv1d(const Real* x, const Real* weight, Real* history, Real* y, int64_t rows, int64_t channels,
                  int64_t width);

/// beta = sigmoid(b); g = -exp(a_log) softplus(a + dt_bias) (6.3).
template <class Real>
void DeltaGates(const Real* b, const Real* a, const Real* a_log, const Real* dt_bias, Real* beta, Real* g,
                int64_t tokens, int64_t heads);

struct DeltaShape {
  int64_t key_heads = 0, value_heads = 0, key_dim = 0, value_dim = 0;
};

/// `state` [value_heads][key_dim][value_dim] is read and left as the rows make it (6.5).
template <class Real>
void GatedDeltaRule(const Real* q, const Real* k, const Real* v, const Real* beta, const Real* g, Real* state, Real* y,
                    int64_t rows, const DeltaShape& shape);

// Mixture of experts.

/// Softmax over all experts, `top_k` best, ties to the lowest id (3.8).
template <class Real>
void Router(const Real* x, const Weight& weight, Real* weights, int32_t* ids, int64_t tokens, int64_t top_k,
            bool renormalize);

/// `gate_up` is [experts * 2 * inter, channels], `down` [experts * channels of y, inter]; experts outside
/// [first, first + experts) belong to other ranks (3.9). `y` is zero on entry.
template <class Real>
void Experts(const Real* x, const Real* weights, const int32_t* ids, const Weight& gate_up, const Weight& down, Real* y,
             int64_t tokens, int64_t top_k, int64_t first, int64_t experts);

/// `y = routed + sigmoid(gate) * shared`, one gate a token (3.10).
template <class Real>
void Combine(const Real* routed, const Real* shared, const Real* gate, Real* y, int64_t tokens, int64_t channels);

// Logits and the next token.

template <class Real>
void LogitRows(const Real* x, const std::vector<int32_t>& logit_rows, Real* y, int64_t channels);

/// The token after position `position - 1`: contracts, section 4, in double.
template <class Real>
int32_t Sample(const Real* logits, int64_t vocab, const SampleParams& params, int64_t position);

/// One short sequence: `next[j]` and `ids[j]` of its rows. -> how many drafts agree; the token after them is
/// `next[accepted]`.
int64_t Accept(const int32_t* next, const int32_t* ids, int64_t rows);

/// One draft block's logit rows, in order, from the `anchor` token (12.2).
template <class Real>
void CandidateWalk(const Real* logits, const Real* hidden, int32_t anchor, const Weight& predecessor,
                   const Weight& successor, int32_t* next, int64_t rows, int64_t candidates);

// Collectives.

/// Sums the ranks' arrays in rank order.
template <class Real>
void AllReduce(const std::vector<const Real*>& parts, Real* y, int64_t count);

}  // namespace qwen::reference

#endif  // QWEN_RUNTIME_KERNELS_REFERENCE_OPS_H_
