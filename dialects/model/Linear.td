//===- Linear.td - projections, activations, channel plumbing ----------------===//

def Model_EmbedOp : Model_Op<"embed", [Pure]> {
  let summary = "Gathers one row of the embedding table a token";
  let description = [{
    `y[t] = table[ids[t]]`.

    - (C1) `ids` and `y` have the same number of tokens.
    - (C2) the channels of `y` are those of `table`.

    Example: `%x = model.embed %ids, %table : (tensor<?xi32>, tensor<101x40xf32>) -> tensor<?x40xf32>`
  }];
  let arguments = (ins Model_Ids:$ids, Model_Matrix:$table);
  let results = (outs Model_Rows:$y);
  let assemblyFormat = "$ids `,` $table attr-dict `:` functional-type(operands, results)";
  let hasVerifier = 1;
}

def Model_LinearOp : Model_Op<"linear", [Pure]> {
  let summary = "y = x W^T";
  let description = [{
    `y[t, n] = sum_k x[t, k] * weight[n, k]`, accumulated in f32, rounded once to the type of `y`. The weight is
    stored `[out, in]` as in the checkpoint. An f32 result of a bf16 input is a partial sum of one rank.

    - (C1) the columns of `weight` are the channels of `x`.
    - (C2) the rows of `weight` are the channels of `y`.

    Example: `%y = model.linear %x, %w : (tensor<?x40xf32>, tensor<96x40xf32>) -> tensor<?x96xf32>`
  }];
  let arguments = (ins Model_Rows:$x, Model_Matrix:$weight);
  let results = (outs Model_Rows:$y);
  let assemblyFormat = "$x `,` $weight attr-dict `:` functional-type(operands, results)";
  let hasVerifier = 1;
}

def Model_SiluMulOp : Model_Op<"silu_mul", [Pure, AllTypesMatch<["gate", "up", "y"]> /*silu_mul_c1*/]> {
  let summary = "SwiGLU: silu(gate) * up";
  let description = [{
    `y = gate * sigmoid(gate) * up`, in f32, rounded once (model specification, 3.7).

    - (C1) all three have one type.

    Example: `%h = model.silu_mul %g, %u : tensor<?x96xf32>`
  }];
  let arguments = (ins Model_Rows:$gate, Model_Rows:$up);
  let results = (outs Model_Rows:$y);
  let assemblyFormat = "$gate `,` $up attr-dict `:` type($y)";
}

def Model_SigmoidGateOp : Model_Op<"sigmoid_gate", [Pure, AllTypesMatch<["x", "gate", "y"]> /*sigmoid_gate_c1*/]> {
  let summary = "Multiplies by the sigmoid of a gate";
  let description = [{
    `y = x * sigmoid(gate)`: the output gate of full attention (model specification, 3.11).

    - (C1) all three have one type.

    Example: `%y = model.sigmoid_gate %o, %g : tensor<?x96xf32>`
  }];
  let arguments = (ins Model_Rows:$x, Model_Rows:$gate);
  let results = (outs Model_Rows:$y);
  let assemblyFormat = "$x `,` $gate attr-dict `:` type($y)";
}

def Model_SplitOp : Model_Op<"split", [Pure]> {
  let summary = "Cuts channels into parts, head by head";
  let description = [{
    Views the channels as `[heads, width]` and gives each result a run of every head's width, in order. `heads` is
    1 for `q | k | v` of a delta-rule layer, and the number of query heads for `query | gate`, which the
    checkpoint interleaves per head (model specification, trap 10).

    - (C1) every part's channels are a multiple of `heads > 0`.
    - (C2) the parts' channels sum to those of `x`; element types agree.

    Example: `%q, %g = model.split %x heads 4 : (tensor<?x64xf32>) -> (tensor<?x32xf32>, tensor<?x32xf32>)`
  }];
  let arguments = (ins Model_Rows:$x, I64Attr:$heads);
  let results = (outs Variadic<Model_Rows>:$parts);
  let assemblyFormat = "$x `heads` $heads attr-dict `:` functional-type(operands, results)";
  let hasVerifier = 1;
}

def Model_ConcatOp : Model_Op<"concat", [Pure]> {
  let summary = "Joins channels";
  let description = [{
    `y[t] = parts[0][t] | parts[1][t] | ...`: the input of the MTP head's `fc`, embedding first (model
    specification, 11).

    - (C1) the parts' channels sum to those of `y`; element types agree.

    Example: `%y = model.concat %e, %h : (tensor<?x40xf32>, tensor<?x40xf32>) -> tensor<?x80xf32>`
  }];
  let arguments = (ins Variadic<Model_Rows>:$parts);
  let results = (outs Model_Rows:$y);
  let assemblyFormat = "$parts attr-dict `:` functional-type(operands, results)";
  let hasVerifier = 1;
}

def Model_DynamicConvOp : Model_Op<"dynamic_conv", [Pure, AllTypesMatch<["x", "y"]> /*dynamic_conv_c1*/]> {
  let summary = "Short convolution along a draft block with per-token, per-group taps";
  let description = [{
    `y[t, c] = sum_tau (base[index, tau, c] + coef[t, index, tau, c / group]) * x[t - tau, c]`, rows before the
    block's start being zero (DFlash2; model specification, 12.2).

    - (C1) `y` has the type of `x`.
    - (C2) `base` is `[2, taps, channels]`.
    - (C3) `coef` has `2 * taps * channels / group` channels and `group` divides the channels.
    - (C4) `index` is 0 or 1.

    Example: `%y = model.dynamic_conv %x, %coef, %base, %batch group 16 index 0 : (...) -> tensor<?x64xf32>`
  }];
  let arguments = (ins Model_Rows:$x, Model_Rows:$coef, Model_Cube:$base, Model_Batch:$batch,
                       I64Attr:$group, I64Attr:$index);
  let results = (outs Model_Rows:$y);
  let assemblyFormat = [{
    $x `,` $coef `,` $base `,` $batch `group` $group `index` $index attr-dict `:` functional-type(operands, results)
  }];
  let hasVerifier = 1;
}
