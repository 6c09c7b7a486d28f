// RUN: qwen-opt %s --verify-stage=stage=fuse --split-input-file --verify-diagnostics

// Dispatches, weights and states.
module {
  model.param @w group "model" transform "none" sources [[]] : tensor<40x40xf32>
  func.func @step(%x: tensor<?x40xf32>) -> tensor<?x40xf32> attributes {model.program = "step", model.rank = 0 : i64} {
    %w = model.weight @w : tensor<40x40xf32>
    %y = kernel.dispatch @linear(%ix = %x : tensor<?x40xf32>, %iw = %w : tensor<40x40xf32>) -> (tensor<?x40xf32>) {
      %s = model.linear %ix, %iw : (tensor<?x40xf32>, tensor<40x40xf32>) -> tensor<?x40xf32>
      kernel.yield %s : tensor<?x40xf32>
    }
    return %y : tensor<?x40xf32>
  }
}

// -----

func.func @step(%x: tensor<?x40xf32>) -> tensor<?x40xf32> attributes {model.program = "step", model.rank = 0 : i64} {
  // expected-error @+1 {{may not exist after fuse: no dispatch holds it; run dispatch-remaining behind the fusions}}
  %y = model.add %x, %x : tensor<?x40xf32>
  return %y : tensor<?x40xf32>
}

// -----

func.func @step(%x: tensor<?x40xf32>) -> tensor<?x40xf32> attributes {model.program = "step", model.rank = 0 : i64} {
  // expected-error @+1 {{may not exist after fuse: it names kernels, which only select-kernels may choose}}
  %y = kernel.dispatch @elementwise(%ix = %x : tensor<?x40xf32>) -> (tensor<?x40xf32>)
      attributes {kernels = [@add__c40], args = [array<i32: 0, 0, 1>]} {
    %s = model.add %ix, %ix : tensor<?x40xf32>
    kernel.yield %s : tensor<?x40xf32>
  }
  return %y : tensor<?x40xf32>
}
