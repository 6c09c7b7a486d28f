//===- DeltaNet.td - Gated DeltaNet ------------------------------------------===//

def Model_CausalConv1dOp : Model_Op<"causal_conv1d", [MemoryEffects<[MemRead, MemWrite]>, AllTypesMatch<["x", "y"]> /*causal_conv1d_c1*/]> {
  let summary = "Depthwise causal convolution along the sequence, then SiLU";
  let description = [{
    `y[t, c] = silu(sum_{j<width} weight[c, j] * x[t - (width - 1) + j, c])`: the last tap multiplies the current
    token. Rows before this step come from the state's history, rows before the sequence are zero; the history
    then becomes the last `width - 1` inputs. f32 accumulation (model specification, 6.2).

    - (C1) `y` has the type of `x`.
    - (C2) `weight` is `[channels, width]` with the state's width.
    - (C3) the channels are the state's convolution channels.

    Example: `%y = model.causal_conv1d %x, %w, %s, %batch
      : tensor<?x60xf32>, tensor<60x4xf32>, !model.recurrent_state<k 3 v 3 dk 8 dv 4 w 4, f32>`
  }];
  let arguments = (ins Model_Rows:$x, Model_RowsF32:$weight, Model_RecurrentState:$state, Model_Batch:$batch);
  let results = (outs Model_Rows:$y);
  let assemblyFormat = [{
    $x `,` $weight `,` $state `,` $batch attr-dict `:` type($x) `,` type($weight) `,` type($state)
  }];
  let hasVerifier = 1;
}

def Model_DeltaGatesOp : Model_Op<"delta_gates", [Pure]> {
  let summary = "Write strength and log decay of the delta rule";
  let description = [{
    `beta = sigmoid(b)`, `g = -exp(a_log) * softplus(a + dt_bias)`, per value head, both f32 and never rounded;
    `softplus(x) = x` above 20 (model specification, 6.3).

    - (C1) `b`, `a`, `beta` and `g` have the same channels, the length of `a_log` and of `dt_bias`.

    Example: `%beta, %g = model.delta_gates %b, %a, %a_log, %dt
      : (tensor<?x4xf32>, tensor<?x4xf32>, tensor<4xf32>, tensor<4xf32>) -> (tensor<?x4xf32>, tensor<?x4xf32>)`
  }];
  let arguments = (ins Model_Rows:$b, Model_Rows:$a, Model_Vector:$a_log, Model_Vector:$dt_bias);
  let results = (outs Model_RowsF32:$beta, Model_RowsF32:$g);
  let assemblyFormat = "$b `,` $a `,` $a_log `,` $dt_bias attr-dict `:` functional-type(operands, results)";
  let hasVerifier = 1;
}

def Model_GatedDeltaRuleOp : Model_Op<"gated_delta_rule", [MemoryEffects<[MemRead, MemWrite]>]> {
  let summary = "The gated delta rule, token by token over the recurrent state";
  let description = [{
    Per value head h with key head `h / (value_heads / key_heads)`, state S `[key_dim, value_dim]` in f32:
    `S <- exp(g) S;  u = beta (v - S^T k);  S <- S + k u^T;  y = S^T q`. The decay comes first, the read uses the
    decayed state, the output the updated one (model specification, 6.5; Yang et al. 2024, Gated Delta Networks).

    - (C1) `q` and `k` have `key_heads * key_dim` channels of the state.
    - (C2) `v` and `y` have `value_heads * value_dim` channels.
    - (C3) `beta` and `g` have `value_heads` channels.
    - (C4) the state's value heads are a multiple of its key heads.

    Example: `%y = model.gated_delta_rule %q, %k, %v, %beta, %g, %s, %batch : (...) -> tensor<?x12xf32>`
  }];
  let arguments = (ins Model_Rows:$q, Model_Rows:$k, Model_Rows:$v, Model_RowsF32:$beta, Model_RowsF32:$g,
                       Model_RecurrentState:$state, Model_Batch:$batch);
  let results = (outs Model_Rows:$y);
  let assemblyFormat = [{
    $q `,` $k `,` $v `,` $beta `,` $g `,` $state `,` $batch attr-dict `:` functional-type(operands, results)
  }];
  let hasVerifier = 1;
}
