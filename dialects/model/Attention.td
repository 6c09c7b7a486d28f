//===- Attention.td - rotary positions, KV cache, attention ------------------===//

def Model_RopeOp : Model_Op<"rope", [Pure, AllTypesMatch<["x", "y"]> /*rope_c1*/]> {
  let summary = "Rotates the first channels of every head by position";
  let description = [{
    Per head of `head_dim` channels, with `n = len(inv_freq)` and the row's absolute position p: for j < n,
    `y_j = x_j cos(p f_j) - x_{j+n} sin(p f_j)`, `y_{j+n} = x_{j+n} cos(p f_j) + x_j sin(p f_j)`; channels from
    2n on pass through. Angles, sines and cosines in f32, the latter times `attention_factor` (1 unless YaRN).
    The importer writes the frequencies, so a scaled RoPE is other numbers, not another op (model
    specification, 3.4; for text alone interleaved mRoPE is this op, 3.5).

    - (C1) `y` has the type of `x`.
    - (C2) the channels are a multiple of `head_dim`.
    - (C3) `2 * len(inv_freq) <= head_dim`, and there is at least one frequency.

    Example: `%y = model.rope %q, %batch head_dim 16 inv_freq [1.0, 0.01] factor 1.0 : tensor<?x64xf32>`
  }];
  let arguments = (ins Model_Rows:$x, Model_Batch:$batch, I64Attr:$head_dim, DenseF32ArrayAttr:$inv_freq,
                       F64Attr:$attention_factor);
  let results = (outs Model_Rows:$y);
  let assemblyFormat = [{
    $x `,` $batch `head_dim` $head_dim `inv_freq` $inv_freq `factor` $attention_factor attr-dict `:` type($x)
  }];
  let hasVerifier = 1;
}

def Model_KvAppendOp : Model_Op<"kv_append", [MemoryEffects<[MemRead, MemWrite]>]> {
  let summary = "Writes the rows' keys and values to the cache at their positions";
  let description = [{
    Keys are stored after norm and RoPE, values raw (model specification, 10.1), both rounded to the cache's element
    type.

    - (C1) `k` and `v` have `kv_heads * head_dim` channels.

    Example: `model.kv_append %k, %v, %cache, %batch : tensor<?x32xf32>, !model.kv_cache<2x16, f32>`
  }];
  let arguments = (ins Model_Rows:$k, Model_Rows:$v, Model_KvCache:$cache, Model_Batch:$batch);
  let assemblyFormat = "$k `,` $v `,` $cache `,` $batch attr-dict `:` type($k) `,` type($v) `,` type($cache)";
  let hasVerifier = 1;
}

def Model_AttentionOp : Model_Op<"attention", [MemoryEffects<[MemRead]>, AllTypesMatch<["q", "y"]> /*attention_c1*/]> {
  let summary = "Softmax attention of every row over its sequence's cache";
  let description = [{
    For row i at position p and query head h, over the visible keys j of its own sequence:
    `y = sum_j softmax_j(scale * q.k_j) v_j`, KV head `kv_map[h]`, scores and softmax in f32 (model
    specification, 3.6). `kv_map` is a list because a rank of a ragged shard may hold a query head group in part.

    `mask`: `causal` sees j <= p; `block` also the later rows of its own step (a draft block). `window` > 0 hides
    keys with p - j >= window.

    - (C1) `y` has the type of `q`.
    - (C2) the channels of `q` are `len(kv_map) * head_dim` of the cache.
    - (C3) every entry of `kv_map` names a KV head of the cache.
    - (C4) `mask` is `causal` or `block`; `window >= 0`.

    Example: `%y = model.attention %q, %cache, %batch kv_map [0, 0, 1, 1] scale 0.25 mask "causal" window 0
      : tensor<?x64xf32>, !model.kv_cache<2x16, f32>`
  }];
  let arguments = (ins Model_Rows:$q, Model_KvCache:$cache, Model_Batch:$batch, DenseI64ArrayAttr:$kv_map,
                       F64Attr:$scale, StrAttr:$mask, I64Attr:$window);
  let results = (outs Model_Rows:$y);
  let assemblyFormat = [{
    $q `,` $cache `,` $batch `kv_map` $kv_map `scale` $scale `mask` $mask `window` $window attr-dict
    `:` type($q) `,` type($cache)
  }];
  let hasVerifier = 1;
}
