// RUN: qwen-opt %s --verify-stage=stage=memory --split-input-file --verify-diagnostics

module {
  model.param @w group "model" transform "none" sources [[]] : tensor<40x40xf32>
  kernel.kernel @elementwise__c40 family "elementwise" entry "elementwise" target "cpu" part "all" {c = 40}
  plan.program @step__cpu_r0 name "step" target "cpu" rank 0 arena_bytes 0 {
  }
}

// -----

// expected-error @+1 {{may not exist after memory: plan-memory replaces every program by a plan.program}}
func.func @step(%x: tensor<?x40xf32>) -> tensor<?x40xf32> attributes {model.program = "step", model.rank = 0 : i64} {
  return %x : tensor<?x40xf32>
}
