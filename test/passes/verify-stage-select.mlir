// RUN: qwen-opt %s --verify-stage=stage=select --split-input-file --verify-diagnostics

// Every dispatch names records of the module.
module {
  kernel.kernel @elementwise__c40 family "elementwise" entry "elementwise" target "cpu" part "all" {c = 40}
  func.func @step(%x: tensor<?x40xf32>) -> tensor<?x40xf32> attributes {model.program = "step", model.rank = 0 : i64} {
    %y = kernel.dispatch @elementwise(%ix = %x : tensor<?x40xf32>) -> (tensor<?x40xf32>)
        attributes {kernels = [@elementwise__c40], args = [array<i32: 0, 0, 1>]} {
      %s = model.add %ix, %ix : tensor<?x40xf32>
      kernel.yield %s : tensor<?x40xf32>
    }
    return %y : tensor<?x40xf32>
  }
}

// -----

func.func @step(%x: tensor<?x40xf32>) -> tensor<?x40xf32> attributes {model.program = "step", model.rank = 0 : i64} {
  // expected-error @+1 {{names no kernels after select: run select-kernels}}
  %y = kernel.dispatch @elementwise(%ix = %x : tensor<?x40xf32>) -> (tensor<?x40xf32>) {
    %s = model.add %ix, %ix : tensor<?x40xf32>
    kernel.yield %s : tensor<?x40xf32>
  }
  return %y : tensor<?x40xf32>
}

// -----

func.func @step(%x: tensor<?x40xf32>) -> tensor<?x40xf32> attributes {model.program = "step", model.rank = 0 : i64} {
  // expected-error @+1 {{names kernel @elementwise__c40, which is no kernel.kernel of the module}}
  %y = kernel.dispatch @elementwise(%ix = %x : tensor<?x40xf32>) -> (tensor<?x40xf32>)
      attributes {kernels = [@elementwise__c40], args = [array<i32: 0, 0, 1>]} {
    %s = model.add %ix, %ix : tensor<?x40xf32>
    kernel.yield %s : tensor<?x40xf32>
  }
  return %y : tensor<?x40xf32>
}
