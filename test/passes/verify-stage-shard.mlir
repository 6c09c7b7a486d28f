// RUN: qwen-opt %s --verify-stage=stage=shard --split-input-file --verify-diagnostics

// Collectives and sliced weights are what shard leaves behind.
module attributes {model.tp = 2 : i64} {
  model.param @w group "model" transform "none" sources [[]] : tensor<12x40xf32>
  func.func @step_r0(%x: tensor<?x40xf32>) -> tensor<?x4xf32> attributes {model.program = "step", model.rank = 0 : i64} {
    %w = model.weight @w slices [[0, 4], []] : tensor<4x40xf32>
    %y = model.linear %x, %w : (tensor<?x40xf32>, tensor<4x40xf32>) -> tensor<?x4xf32>
    %z = model.all_reduce %y : tensor<?x4xf32> -> tensor<?x4xf32>
    return %z : tensor<?x4xf32>
  }
}

// -----

// expected-error @+1 {{has no model.rank: run shard-tensor-parallel, also with tp=1}}
func.func @step(%x: tensor<?x40xf32>) -> tensor<?x40xf32> attributes {model.program = "step"} {
  return %x : tensor<?x40xf32>
}

// -----

func.func @step(%x: tensor<?x40xf32>) -> tensor<?x40xf32> attributes {model.program = "step", model.rank = 0 : i64} {
  // expected-error @+1 {{may not exist after shard: dispatches are formed by the fusions, which run later}}
  %y = kernel.dispatch @elementwise(%ix = %x : tensor<?x40xf32>) -> (tensor<?x40xf32>) {
    %s = model.add %ix, %ix : tensor<?x40xf32>
    kernel.yield %s : tensor<?x40xf32>
  }
  return %y : tensor<?x40xf32>
}
