//===- Sampling.td - logits and the next token -------------------------------===//

def Model_LogitRowsOp : Model_Op<"logit_rows", [Pure]> {
  let summary = "Keeps the rows whose next token is wanted";
  let description = [{
    `y[n] = x[logit_rows[n]]` of the batch (contracts, section 2).

    - (C1) `y` has the channels and element type of `x`.

    Example: `%y = model.logit_rows %x, %batch : tensor<?x40xf32> -> tensor<?x40xf32>`
  }];
  let arguments = (ins Model_Rows:$x, Model_Batch:$batch);
  let results = (outs Model_Rows:$y);
  let assemblyFormat = "$x `,` $batch attr-dict `:` type($x) `->` type($y)";
  let hasVerifier = 1;
}

def Model_LmHeadOp : Model_Op<"lm_head", [Pure]> {
  let summary = "Logits in f32";
  let description = [{
    `y[n, v] = sum_c x[n, c] * weight[v, c]`, accumulated and kept in f32.

    - (C1) `weight` is `[vocabulary, channels of x]`, `y` is f32 with as many channels as `weight` has rows.

    Example: `%l = model.lm_head %x, %w : (tensor<?x40xf32>, tensor<101x40xf32>) -> tensor<?x101xf32>`
  }];
  let arguments = (ins Model_Rows:$x, Model_Matrix:$weight);
  let results = (outs Model_RowsF32:$y);
  let assemblyFormat = "$x `,` $weight attr-dict `:` functional-type(operands, results)";
  let hasVerifier = 1;
}

def Model_SampleOp : Model_Op<"sample", [Pure]> {
  let summary = "Draws the next token of every logit row";
  let description = [{
    `next = argmax_v(z_v + G_v)` with the row's temperature, top-k, top-p, min-p and seed; greedy leaves G out; ties
    take the lowest id. Philox4x32-10 keyed by seed and absolute position (contracts, section 4).

    - (C1) `logits` is f32; `next` has one id a logit row.

    Example: `%next = model.sample %logits, %batch : tensor<?x101xf32> -> tensor<?xi32>`
  }];
  let arguments = (ins Model_RowsF32:$logits, Model_Batch:$batch); // sample_c1
  let results = (outs Model_Ids:$next);
  let assemblyFormat = "$logits `,` $batch attr-dict `:` type($logits) `->` type($next)";
}

def Model_AcceptOp : Model_Op<"accept", [Pure]> {
  let summary = "How many drafts of every short sequence the model agrees with";
  let description = [{
    `accepted[s]` is the length of the longest prefix of rows with `next[row j] == ids[row j + 1]`, `emitted[s]` the
    token after them (contracts, section 3). It names rows; it commits nothing.

    Example: `%n, %t = model.accept %next, %ids, %batch : tensor<?xi32>, tensor<?xi32> -> tensor<?xi32>, tensor<?xi32>`
  }];
  let arguments = (ins Model_Ids:$next, Model_Ids:$ids, Model_Batch:$batch);
  let results = (outs Model_Ids:$accepted, Model_Ids:$emitted);
  let assemblyFormat = [{
    $next `,` $ids `,` $batch attr-dict `:` type($next) `,` type($ids) `->` type($accepted) `,` type($emitted)
  }];
}

def Model_CandidateWalkOp : Model_Op<"candidate_walk", [Pure]> {
  let summary = "DFlash2's selector: a walk over each slot's best candidates";
  let description = [{
    Per logit row of a draft block, in order: the `candidates` highest logits u, edge score
    `u(c) + sum_r pred[p]_r * h_r * succ[c]_r` from the predecessor p chosen before (the anchor token first), argmax
    (model specification, 12.2).

    - (C1) `predecessor` and `successor` are `[vocabulary, rank]` and `hidden` has `rank` channels.
    - (C2) `1 <= candidates <= vocabulary`.

    Example: `%next = model.candidate_walk %logits, %hp, %ids, %pred, %succ, %batch candidates 16 : (...) -> tensor<?xi32>`
  }];
  let arguments = (ins Model_RowsF32:$logits, Model_Rows:$hidden, Model_Ids:$ids, Model_Matrix:$predecessor,
                       Model_Matrix:$successor, Model_Batch:$batch, I64Attr:$candidates);
  let results = (outs Model_Ids:$next);
  let assemblyFormat = [{
    $logits `,` $hidden `,` $ids `,` $predecessor `,` $successor `,` $batch `candidates` $candidates attr-dict
    `:` functional-type(operands, results)
  }];
  let hasVerifier = 1;
}
