//===- Norm.td - normalisations and residual sums ----------------------------===//

def Model_AddOp : Model_Op<"add", [Pure, AllTypesMatch<["x", "residual", "y"]> /*add_c1*/]> {
  let summary = "Adds the residual stream";
  let description = [{
    `y = x + residual`, rounded once to the type (model specification, 3.3).

    - (C1) all three have one type.

    Example: `%s = model.add %x, %r : tensor<?x64xbf16>`
  }];
  let arguments = (ins Model_Rows:$x, Model_Rows:$residual);
  let results = (outs Model_Rows:$y);
  let assemblyFormat = "$x `,` $residual attr-dict `:` type($y)";
}

def Model_RMSNormOp : Model_Op<"rms_norm", [Pure, AllTypesMatch<["x", "y"]> /*rms_norm_c1*/]> {
  let summary = "Scales every row to unit root mean square, then by a weight";
  let description = [{
    `y[t, c] = x[t, c] * rsqrt(mean_c(x[t, c]^2) + eps) * weight[c]`, in f32, rounded once to the type of `y`.

    Qwen3.5 centres its norm weights on zero; the importer folds `1 + w` into an f32 constant, as bf16 would
    lose bits (model specification, 3.2). `round_first` rounds before the weight, as Qwen3 does (3.1).

    - (C1) `y` has the type of `x`: `[tokens, channels]`.
    - (C2) `weight` is `[channels]`.
    - (C3) `eps > 0`.

    Example: `%y = model.rms_norm %x, %w eps 1.0e-06 : tensor<?x64xbf16>, tensor<64xf32>`
  }];
  let arguments = (ins Model_Rows:$x, Model_Vector:$weight, F64Attr:$eps, UnitAttr:$round_first);
  let results = (outs Model_Rows:$y);
  let assemblyFormat = [{
    $x `,` $weight `eps` $eps (`round_first` $round_first^)? attr-dict `:` type($x) `,` type($weight)
  }];
  let hasVerifier = 1;
}

def Model_QKNormOp : Model_Op<"qk_norm", [Pure, AllTypesMatch<["x", "y"]> /*qk_norm_c1*/]> {
  let summary = "RMS norm of every head on its own";
  let description = [{
    As `model.rms_norm` over each run of `head_dim` channels, `head_dim` being the length of `weight`, shared
    by all heads (model specification, 4 and 3.11). Before RoPE.

    - (C1) `y` has the type of `x`.
    - (C2) the channels of `x` are a multiple of the length of `weight`.
    - (C3) `eps > 0`.

    Example: `%y = model.qk_norm %q, %w eps 1.0e-06 : tensor<?x512xbf16>, tensor<128xf32>`
  }];
  let arguments = (ins Model_Rows:$x, Model_Vector:$weight, F64Attr:$eps, UnitAttr:$round_first);
  let results = (outs Model_Rows:$y);
  let assemblyFormat = [{
    $x `,` $weight `eps` $eps (`round_first` $round_first^)? attr-dict `:` type($x) `,` type($weight)
  }];
  let hasVerifier = 1;
}

def Model_GatedRMSNormOp : Model_Op<"gated_rms_norm", [Pure, AllTypesMatch<["x", "gate", "y"]> /*gated_rms_norm_c1*/]> {
  let summary = "RMS norm per value head, then an activated gate";
  let description = [{
    Per run of `value_dim` channels: `y = x * rsqrt(mean(x^2) + eps) * weight * act(gate)`; norm first, gate
    second, all in f32, rounded once (model specification, 6.7). `activation` is `silu` or `sigmoid`.

    - (C1) `x`, `gate` and `y` have one type.
    - (C2) the channels of `x` are a multiple of the length of `weight`.
    - (C3) `eps > 0`.
    - (C4) `activation` is `silu` or `sigmoid`.

    Example: `%y = model.gated_rms_norm %o, %z, %w eps 1.0e-06 activation "silu" : tensor<?x96xf32>, tensor<8xf32>`
  }];
  let arguments = (ins Model_Rows:$x, Model_Rows:$gate, Model_Vector:$weight, F64Attr:$eps, StrAttr:$activation);
  let results = (outs Model_Rows:$y);
  let assemblyFormat = [{
    $x `,` $gate `,` $weight `eps` $eps `activation` $activation attr-dict `:` type($x) `,` type($weight)
  }];
  let hasVerifier = 1;
}

def Model_L2NormOp : Model_Op<"l2_norm", [Pure, AllTypesMatch<["x", "y"]> /*l2_norm_c1*/]> {
  let summary = "Scales every head to unit length";
  let description = [{
    Per run of `head_dim` channels: `y = x * rsqrt(sum(x^2) + eps) * scale`, in f32, rounded once. Sum, not mean,
    and eps inside the root (model specification, 6.4). `scale` is `key_dim^-0.5` for queries, 1 for keys.

    - (C1) `y` has the type of `x`.
    - (C2) the channels of `x` are a multiple of `head_dim > 0`.
    - (C3) `eps > 0`.

    Example: `%y = model.l2_norm %q head_dim 128 eps 1.0e-06 scale 0.0883 : tensor<?x2048xf32>`
  }];
  let arguments = (ins Model_Rows:$x, I64Attr:$head_dim, F64Attr:$eps, F64Attr:$scale);
  let results = (outs Model_Rows:$y);
  let assemblyFormat = "$x `head_dim` $head_dim `eps` $eps `scale` $scale attr-dict `:` type($x)";
  let hasVerifier = 1;
}
