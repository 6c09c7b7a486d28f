//===- MoE.td - mixture of experts -------------------------------------------===//

def Model_RouterOp : Model_Op<"router", [Pure]> {
  let summary = "Picks the experts of every token and their weights";
  let description = [{
    `p = softmax(x W^T)` over all experts, `top_k` highest, ties to the lowest id; with `renormalize` divided by
    their sum. Logits and softmax in f32, unrounded. `ids` are in descending order of weight (model
    specification, 3.8).

    - (C1) `weight` is `[experts, channels of x]`.
    - (C2) `weights` and `ids` have the same `top_k` columns, `1 <= top_k <= experts`.

    Example: `%w, %ids = model.router %x, %r renormalize
      : (tensor<?x40xf32>, tensor<7x40xf32>) -> (tensor<?x2xf32>, tensor<?x2xi32>)`
  }];
  let arguments = (ins Model_Rows:$x, Model_Matrix:$weight, UnitAttr:$renormalize);
  let results = (outs Model_RowsF32:$weights, Model_RowsI32:$ids);
  let assemblyFormat = [{
    $x `,` $weight (`renormalize` $renormalize^)? attr-dict `:` functional-type(operands, results)
  }];
  let hasVerifier = 1;
}

def Model_ExpertsOp : Model_Op<"experts", [Pure]> {
  let summary = "The weighted sum of the picked experts' feed-forward outputs";
  let description = [{
    `y = sum_i weights[t, i] * down_e(silu(g) * u)`, `e = ids[t, i]`, `[g; u] = gate_up_e x`, gate rows first.
    Summed in f32 in ascending order of e, rounded once (model specification, 3.9). Experts outside
    `[first_expert, first_expert + experts)` belong to another rank and add nothing.

    - (C1) `gate_up` is `[experts, 2 * inter, channels]`, `down` is `[experts, channels of y, inter]`.
    - (C2) `ids` and `weights` have the same columns.
    - (C3) `first_expert >= 0`.

    Example: `%y = model.experts %x, %w, %ids, %gu, %d first_expert 0 : (...) -> tensor<?x40xf32>`
  }];
  let arguments = (ins Model_Rows:$x, Model_RowsF32:$weights, Model_RowsI32:$ids, Model_Cube:$gate_up,
                       Model_Cube:$down, I64Attr:$first_expert);
  let results = (outs Model_Rows:$y);
  let assemblyFormat = [{
    $x `,` $weights `,` $ids `,` $gate_up `,` $down `first_expert` $first_expert attr-dict
    `:` functional-type(operands, results)
  }];
  let hasVerifier = 1;
}

def Model_CombineOp : Model_Op<"combine", [Pure, AllTypesMatch<["routed", "shared", "y"]> /*combine_c1*/]> {
  let summary = "Adds the shared expert, scaled by its scalar gate";
  let description = [{
    `y = routed + sigmoid(gate) * shared`, one gate a token (model specification, 3.10).

    - (C1) `routed`, `shared` and `y` have one type.
    - (C2) `gate` has one channel.

    Example: `%y = model.combine %r, %s, %g : tensor<?x40xf32>, tensor<?x1xf32>`
  }];
  let arguments = (ins Model_Rows:$routed, Model_Rows:$shared, Model_Rows:$gate);
  let results = (outs Model_Rows:$y);
  let assemblyFormat = "$routed `,` $shared `,` $gate attr-dict `:` type($y) `,` type($gate)";
  let hasVerifier = 1;
}
