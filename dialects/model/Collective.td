//===- Collective.td - what ranks exchange -----------------------------------===//

def Model_AllReduceOp : Model_Op<"all_reduce", [Pure]> {
  let summary = "Sums the ranks' partial rows, in rank order, in f32";
  let description = [{
    `y = sum_r x_r` with the same order on every rank, so that all residuals are the same bits; rounded once to the
    type of `y` (parallelism design, section 9).

    - (C1) `x` and `y` have the same channels.

    Example: `%y = model.all_reduce %x : tensor<?x40xf32> -> tensor<?x40xbf16>`
  }];
  let arguments = (ins Model_RowsF32:$x);
  let results = (outs Model_Rows:$y);
  let assemblyFormat = "$x attr-dict `:` type($x) `->` type($y)";
  let hasVerifier = 1;
}

def Model_AllGatherOp : Model_Op<"all_gather", [Pure]> {
  let summary = "Joins the ranks' channels";
  let description = [{
    `y[t] = x_0[t] | x_1[t] | ...`; rank r's share is `counts[r]` channels, which may be 0.

    - (C1) `counts` sums to the channels of `y`.
    - (C2) the channels of `x` are one of `counts`.

    Example: `%y = model.all_gather %x counts [64, 37] : tensor<?x64xf32> -> tensor<?x101xf32>`
  }];
  let arguments = (ins Model_RowsF32:$x, DenseI64ArrayAttr:$counts);
  let results = (outs Model_RowsF32:$y);
  let assemblyFormat = "$x `counts` $counts attr-dict `:` type($x) `->` type($y)";
  let hasVerifier = 1;
}
